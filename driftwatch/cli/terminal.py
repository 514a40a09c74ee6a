"""Terminal output shared by commands: colour detection and a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MANY = 50  # minimum number of objects for a progress bar


def wants_colour(color: str) -> bool:
    """Whether standard output gets colours. `color` is auto, always or never."""
    if color == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return color == "always"


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for `MANY` objects or more, on a terminal. Yields `advance(done, total)`."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=total >= MANY)

        yield advance
