"""A clock that jumps, for one program and what it starts.

The kernel lets nobody shift the wall clock of a single process (its time namespaces have monotonic clocks only, and set
those for good), and the machine's own is everybody's. So a small library, compiled here and loaded into the program,
adds an offset to every answer of `clock_gettime`, `gettimeofday` and `time`: Python's clocks, libuv's, and that of
OpenSSL, which judges certificates.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Give a program `environment`, and its wall clock goes as far ahead as `jump` says, all its clocks by `skip`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler for a clock that jumps")
        library = folder / "clock.so"
        self._offset = folder / "clock-offset"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self._wall = self._monotonic = 0
        self._offset.write_bytes(self._packed())
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the machine's, or behind."""
        self._wall = seconds
        self._write()

    def skip(self, seconds: int) -> None:
        """Let so much time pass at once, as for a program that was stopped meanwhile."""
        self._wall += seconds
        self._monotonic += seconds
        self._write()

    def _packed(self) -> bytes:
        return struct.pack("qq", self._wall, self._monotonic)

    def _write(self) -> None:
        with self._offset.open("r+b") as file:  # in place: the program has this file mapped
            file.write(self._packed())
