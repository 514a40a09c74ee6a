"""How long the collector of garbage stops everything is told; and where memory comes from."""

import gc
import platform
import subprocess
import sys

import pytest
from driftwatch import memory

_THREADS = """
import ctypes, threading
from driftwatch import memory
if {one_heap}:
    memory.configure_malloc()
barrier = threading.Barrier(4)
def allocate():
    barrier.wait()
    kept.append(bytearray(4096))
    barrier.wait()
kept = []
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def test_a_full_collection_is_told_with_its_seconds() -> None:
    """Young generations are not: they take microseconds, and there are many."""
    told: list[float] = []
    with memory.observe_pauses(told.append):
        gc.collect(0)
        gc.collect(1)
        assert told == []
        gc.collect()
    assert len(told) >= 1
    assert all(0.0 < seconds < 60.0 for seconds in told)


def test_what_is_kept_is_not_looked_at_again() -> None:
    """Not even by a full collection, until it is let go of."""
    kept: list[object] = []
    kept.append(kept)
    try:
        memory.freeze()
        assert not any(found is kept for found in gc.get_objects())
    finally:
        gc.unfreeze()


def test_nothing_is_told_afterwards() -> None:
    """The hook goes with the context, whatever happens in it."""
    told: list[float] = []
    before = list(gc.callbacks)
    with memory.observe_pauses(told.append):
        pass
    gc.collect()
    assert told == []
    assert gc.callbacks == before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
@pytest.mark.parametrize(("one_heap", "heaps"), [(True, {1}), (False, {2, 3, 4, 5})])
def test_threads_share_a_heap(one_heap: bool, heaps: set[int]) -> None:
    """By themselves they would have one each, and each would keep what another one has freed."""
    command = [sys.executable, "-c", _THREADS.format(one_heap=one_heap)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.count("<heap nr=") in heaps
