"""Something that goes on in the background while a test does something else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(work: Callable[[], object], pause: float = 0.0) -> Iterator[None]:
    """For as long as the block, a thread does `work` again and again, after `pause` seconds each time."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(pause):
            work()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
