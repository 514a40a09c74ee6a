"""A wall clock that jumps, for one program and what it starts.

The kernel lets nobody shift the wall clock of a single process (its time namespaces have monotonic clocks only), and
the machine's own is everybody's. So a small library, compiled here and loaded into the program, adds an offset to every
answer of `clock_gettime`, `gettimeofday` and `time`: Python's clock and that of OpenSSL, which judges certificates.
"""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Give a program `environment`, and its wall clock goes as far ahead as `jump` says."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler for a clock that jumps")
        library = folder / "clock.so"
        self._offset = folder / "clock-offset"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        self._offset.write_bytes(struct.pack("q", 0))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of the machine's, or behind."""
        with self._offset.open("r+b") as file:  # in place: the program has this file mapped
            file.write(struct.pack("q", seconds))
