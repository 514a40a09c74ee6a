"""The journal: one JSON line a drift, to a file that is put aside when it has grown, or to standard output.

Lines are written by a thread of their own: a disk that is slow or full, or a pipe that nobody reads, must not hold up
a heal. What cannot be written waits in a bounded queue, and what does not fit is counted and told of. A line is in the
file whole or not at all, so that a program that reads it needs no care for halves.
"""

import contextlib
import os
import queue
import sys
import threading
from pathlib import Path

import msgspec
import structlog

from driftwatch.config.observe import STANDARD_OUTPUT, Journal
from driftwatch.metrics.registry import Metrics
from driftwatch.report.drift_event import DriftEvent, journal_line

QUEUE = 10_000  # lines that wait for the disk; some 10 MB
RETRY = 1.0  # seconds between tries to write
MIB = 1024 * 1024

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class JournalWriter:
    """Writes one journal. `note` is called on the event loop, `close` to end it."""

    def __init__(self, file: str, config: Journal, metrics: Metrics) -> None:
        self._metrics = metrics
        self._output: Output = (
            StandardOutput() if file == STANDARD_OUTPUT else RotatedFile(Path(file), config.maxSize * MIB, config.keep)
        )
        self._name = file
        self._queue: queue.Queue[DriftEvent | None] = queue.Queue(QUEUE)
        self._closing = threading.Event()
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def note(self, seen: DriftEvent) -> None:
        """Have a line written; one that does not fit any more is counted."""
        try:
            self._queue.put_nowait(seen)
        except queue.Full:
            self._lost += 1
            self._metrics.journal_lines.labels("dropped").inc()

    def close(self, grace: float) -> None:
        """Write what waits, for no longer than `grace` seconds. Blocks; not for the event loop."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then it sees `_closing` when it has written all that waits
            self._queue.put_nowait(None)
        self._thread.join(grace)
        if self._thread.is_alive():
            self._tell_lost(0)

    def _run(self) -> None:
        while (seen := self._next()) is not None:
            if not self._write(_encode(journal_line(seen)) + b"\n"):
                self._metrics.journal_lines.labels("dropped").inc(self._tell_lost(1))
                break
        self._output.close()

    def _tell_lost(self, in_hand: int) -> int:
        """Say how many lines are lost: those that wait, but for the mark at their end, and one in hand."""
        lines = in_hand + sum(each is not None for each in list(self._queue.queue))
        log.error("journal: lines are lost", file=self._name, lines=lines)
        return lines

    def _next(self) -> DriftEvent | None:
        if self._closing.is_set() and self._queue.empty():
            return None
        return self._queue.get()

    def _write(self, line: bytes) -> bool:
        """Write the line, however long it takes. Returns False when the journal ends before."""
        failing = ""
        while True:
            try:
                self._output.write(line)
            except OSError as error:
                words = error.strerror or str(error)
                if words != failing:
                    failing = words
                    log.error(  # noqa: TRY400  the words say it; a traceback would not help
                        "journal cannot be written",
                        file=self._name,
                        error=words,
                        next=f"tried again every {RETRY:.0f} s; {QUEUE} lines are kept meanwhile",
                    )
                self._metrics.journal_up.set(0)
                if self._closing.wait(RETRY):
                    return False
            else:
                break
        self._metrics.journal_up.set(1)
        self._metrics.journal_lines.labels("written").inc()
        if failing:
            lost, self._lost = self._lost, 0
            log.warning("journal is written again", file=self._name, lost=lost)
        return True


class Output:
    """Where lines go. `write` takes a whole line or raises `OSError` and leaves nothing of it."""

    def write(self, line: bytes) -> None:
        """Write a line."""
        raise NotImplementedError

    def close(self) -> None:
        """End it."""


class StandardOutput(Output):
    """Standard output; what is half written when it fails is ended there, since nothing can be taken back."""

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()

    def write(self, line: bytes) -> None:
        """Write a line."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class RotatedFile(Output):
    """A file that is put aside as `FILE.1` when it would grow over `max_size` bytes; `keep` of these are kept.

    A file that somebody else moves away, as logrotate does, is begun anew.
    """

    def __init__(self, path: Path, max_size: int, keep: int) -> None:
        self._path = path
        self._max_size = max_size
        self._keep = keep
        self._descriptor = -1

    def write(self, line: bytes) -> None:
        """Write a line."""
        self._follow()
        size = os.fstat(self._descriptor).st_size
        if size and size + len(line) > self._max_size:
            self._put_aside()
            self._follow()
            size = os.fstat(self._descriptor).st_size
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            if written:
                os.ftruncate(self._descriptor, size)
            raise

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _follow(self) -> None:
        """Have the file open that has the name now."""
        if self._descriptor >= 0:
            try:
                there, held = self._path.stat(), os.fstat(self._descriptor)
            except FileNotFoundError:
                there = None
            if there is not None and (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
                return
            self.close()
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _put_aside(self) -> None:
        self.close()
        if self._keep == 0:
            self._path.unlink()
            return
        for number in range(self._keep, 1, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
