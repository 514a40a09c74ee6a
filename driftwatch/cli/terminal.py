"""What commands share of the terminal: whether colours are wanted, and a bar for work that takes a while."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MANY = 50  # objects from which on progress is shown


def wants_colour(color: str) -> bool:
    """Whether standard output gets colours; `color` is auto, always or never."""
    if color == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return color == "always"


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where somebody watches, once there are many objects; tell it how many of how many."""
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
