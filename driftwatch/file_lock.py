"""Locks between processes, by a lock file."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

POLL_SECONDS = 0.1


class LockHeldError(Exception):
    """Another process held the lock for the whole timeout."""


@contextmanager
def locked(path: Path, timeout: float, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, waiting for it `timeout` seconds; `waiting` is called once if it is not free.

    The kernel releases the lock when its holder ends. Raises `LockHeldError`, and `FileNotFoundError` if the folder of
    the file does not exist, or no longer exists.
    """
    lock = FileLock(path, mode=0o600, thread_local=False)
    deadline, announced = time.monotonic() + timeout, False
    while not _try(lock, path):
        if time.monotonic() >= deadline:
            raise LockHeldError(str(path))
        if not announced:
            announced = True
            waiting()
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _try(lock: BaseFileLock, path: Path) -> bool:
    """Take the lock if it is free. Looks for the folder first, every time: the library would make it again."""
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
