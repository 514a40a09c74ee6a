"""Tests that measure time run by themselves, whatever the workers of pytest-xdist do beside them.

A test marked `alone` holds the machine exclusively, any other shares it; two file locks implement that. A test that
waits for the exclusive lock keeps the gate closed: no other test begins meanwhile, so the wait ends.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Machine:
    """What the workers of one run share. `folder` is one that all of them see."""

    def __init__(self, folder: Path) -> None:
        self._gate = folder / "alone.gate"
        self._machine = folder / "alone.lock"

    @contextmanager
    def held(self, *, alone: bool) -> Iterator[None]:
        """Hold the machine, alone or with others."""
        with self._gate.open("w") as gate, self._machine.open("w") as machine:
            fcntl.flock(gate, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
            yield
