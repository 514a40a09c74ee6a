"""The journal: one JSON line for each drift event, written to a file with rotation, or to standard output.

A separate thread writes the lines. A slow or full disk, or a pipe without a reader, must not delay a reconcile. Lines
wait in a bounded queue. Lines that do not fit are dropped, counted and logged. A line is written wholly or not at all,
so a reader of the file never sees half a line.
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

QUEUE = 10_000  # most lines that wait to be written; about 10 MB
RETRY = 1.0  # seconds between tries to write
MIB = 1024 * 1024

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class JournalWriter:
    """Writes one journal. Call `note` on the event loop, and `close` at the end."""

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
        """Queue a line. A line that does not fit is dropped and counted."""
        try:
            self._queue.put_nowait(seen)
        except queue.Full:
            self._lost += 1
            self._metrics.journal_lines.labels("dropped").inc()

    def close(self, grace: float) -> None:
        """Write the waiting lines for at most `grace` seconds. Blocks: do not call it on the event loop."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # the thread checks `_closing` when the queue is empty
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
        """Log the number of lost lines and return it: `in_hand` and the waiting ones, without the end mark."""
        lines = in_hand + sum(each is not None for each in list(self._queue.queue))
        log.error("journal: lines are lost", file=self._name, lines=lines)
        return lines

    def _next(self) -> DriftEvent | None:
        if self._closing.is_set() and self._queue.empty():
            return None
        return self._queue.get()

    def _write(self, line: bytes) -> bool:
        """Write the line, with retries. Returns False when the journal is closed before the line is written."""
        failing = ""
        while True:
            try:
                self._output.write(line)
            except OSError as error:
                words = error.strerror or str(error)
                if words != failing:
                    failing = words
                    log.error(  # noqa: TRY400  the message is enough, a traceback would not help
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
    """Target of the lines. `write` writes a whole line, or raises `OSError` and writes nothing."""

    def write(self, line: bytes) -> None:
        """Write a line."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the target."""


class StandardOutput(Output):
    """Standard output. A line that fails halfway cannot be undone, so the first half stays."""

    def __init__(self) -> None:
        self._descriptor = sys.stdout.fileno()

    def write(self, line: bytes) -> None:
        """Write a line."""
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class RotatedFile(Output):
    """A file with rotation: it is renamed to `FILE.1` before it exceeds `max_size` bytes. `keep` old files are kept.

    When another program moves the file away, as logrotate does, a new one is created.
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
        """Open the file that has the path now, if it is not open yet."""
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
