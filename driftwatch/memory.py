"""Memory: gives back to the system what a burst of work needed, and tells how long collecting garbage stops us."""

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERYTHING = 2  # the generation of a full collection; younger ones take microseconds


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
