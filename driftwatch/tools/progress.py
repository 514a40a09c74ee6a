"""Tells a person how a long piece of work goes on: a bar on a terminal, a line now and then anywhere else."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

# CI systems kill a job that prints nothing for minutes; a line a second would bury the rest of the log.
REPORT_SECONDS = 15.0


class Progress(Protocol):
    """Where long work reports to. All of it is advice: nothing depends on what is done with it."""

    def note(self, text: str) -> None:
        """Say one thing."""

    def advance(self, text: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of the work named `text` are done."""


class Silent:
    """Reports nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def advance(self, text: str, done: int, total: int) -> None:
        """Say nothing."""


class PlainLines:
    """Prints a line for each note, and one about the advance every quarter of a minute."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = 0.0

    def note(self, text: str) -> None:
        """Print `text`."""
        print(text, file=self._stream, flush=True)

    def advance(self, text: str, done: int, total: int) -> None:
        """Print how far it is, unless that was said a moment ago and the work is not done."""
        now = time.monotonic()
        if done >= total or now - self._last >= REPORT_SECONDS:
            self._last = now
            self.note(f"{text}: {done} of {total} ({100 * done // max(total, 1)} %)")


class Bar:
    """Draws a bar. The bar appears with the first advance and goes when the work is done."""

    def __init__(self, stream: TextIO) -> None:
        # Imported here because most commands end without ever drawing a bar.
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
        """Take the bar off the screen."""
        self._bar.stop()


@contextmanager
def console_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Give a `Progress` on standard error, so that standard output holds nothing but the result."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainLines(stream)
        return
    bar = Bar(stream)
    try:
        yield bar
    finally:
        bar.close()
