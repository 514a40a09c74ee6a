"""Memory: returns freed memory to the system after bursts, and measures garbage collection pauses."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_OLDEST_GENERATION = 2  # the oldest generation: a full collection; younger ones take microseconds
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # names in glibc's malloc.h
_THRESHOLD_BYTES = 128 * 1024  # bytes; glibc's initial mmap threshold, which it would raise by itself


def configure_malloc() -> None:
    """Configure glibc's malloc: one heap for all threads, and fixed thresholds for returning large blocks.

    Call it before the first thread starts. Other C libraries are left alone. A heap for each thread pays off only if
    threads allocate at the same time. A growing threshold places large temporary lists among long-lived objects. Both
    fragment the memory that a daemon frees.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def release() -> None:
    """Run a full garbage collection and return freed memory to the system (glibc only). Takes about 10 ms."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def freeze() -> None:
    """Collect garbage, then freeze the remaining objects: later collections skip them."""
    release()
    gc.freeze()


@contextmanager
def observe_pauses(observe: Callable[[float], None]) -> Iterator[None]:
    """Within the context, call `observe` with the seconds of each full collection. Collections stop all threads."""
    began = 0.0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < _OLDEST_GENERATION:
            return
        if phase == "start":
            began = time.perf_counter()
        elif began:
            observe(time.perf_counter() - began)

    gc.callbacks.append(on_collection)
    try:
        yield
    finally:
        gc.callbacks.remove(on_collection)
