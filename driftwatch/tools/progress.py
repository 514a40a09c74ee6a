"""Progress reports for long work: a bar on a terminal, an occasional line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

# CI systems kill a job that prints nothing for minutes; a line a second would fill the log.
REPORT_SECONDS = 15.0


class Progress(Protocol):
    """Receives progress of long work. Implementations may ignore it."""

    def note(self, text: str) -> None:
        """Report one message."""

    def advance(self, text: str, done: int, total: int) -> None:
        """Report that `done` of `total` steps of the work named `text` are complete."""


class Silent:
    """Reports nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def advance(self, text: str, done: int, total: int) -> None:
        """Do nothing."""


class PlainLines:
    """Prints a line for each note, and a progress line every 15 seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def note(self, text: str) -> None:
        """Print `text`."""
        print(text, file=self._stream, flush=True)

    def advance(self, text: str, done: int, total: int) -> None:
        """Print the progress, unless it was printed recently and the work is not complete."""
        now = time.monotonic()
        if done >= total or now - self._last >= REPORT_SECONDS:
            self._last = now
            self.note(f"{text}: {done} of {total} ({100 * done // max(total, 1)} %)")


class Bar:
    """Draws a progress bar from the first advance until the work is complete."""

    def __init__(self, stream: TextIO) -> None:
        # Imported here because most commands never draw a bar.
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        self._console = Console(file=stream, highlight=False)
        self._bar = RichProgress(console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        """Print `text` above the bar."""
        self._console.print(text, markup=False, soft_wrap=True)

    def advance(self, text: str, done: int, total: int) -> None:
        """Move the bar named `text`."""
        if text not in self._tasks:
            self._bar.start()
            self._tasks[text] = self._bar.add_task(text, total=total)
        self._bar.update(self._tasks[text], completed=done, total=total)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        self._bar.stop()


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Yield a `Progress` on standard error, so that standard output holds only the result."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainLines(stream)
        return
    bar = Bar(stream)
    try:
        yield bar
    finally:
        bar.close()
