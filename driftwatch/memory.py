"""Memory: gives back to the system what a burst of work needed, and tells how long collecting garbage stops us."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERYTHING = 2  # the generation of a full collection; younger ones take microseconds
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # what glibc's malloc.h calls them
_THRESHOLD = 128 * 1024  # bytes, from which on a piece has pages of its own: glibc's first, which it raises by itself


def one_heap() -> None:
    """Have the C library, where it is GNU's, use one heap for all threads, and give large pieces back for good.

    To be called before the first thread is started. A heap a thread is for threads that run at the same time, and a
    threshold that grows keeps what one large list needed among what stays: both only scatter what a daemon frees.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _THRESHOLD)


def give_back() -> None:
    """Collect what is garbage and return freed memory, where the C library is GNU's; takes some 10 ms."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep() -> None:
    """What is there now stays: the collector need not look at it again and again."""
    give_back()
    gc.freeze()


@contextmanager
def pauses_told(observe: Callable[[float], None]) -> Iterator[None]:
    """Within the context, `observe` gets the seconds of each full collection: nothing else runs meanwhile."""
    began = 0.0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if info["generation"] < _EVERYTHING:
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
