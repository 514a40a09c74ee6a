"""Output of the demo: in colour on a terminal, as plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from driftwatch.demo.daemon import Line

# Log events about objects, shown while the user tries things by hand.
LIVE_EVENTS = {
    "drift healed",
    "drift",
    "in sync again",
    "synced",
    "not applied",
    "invalid manifest",
    "source cannot be read",
    "watch is down",
}
_INDENT = 5


class Screen:
    """Prints to standard output."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a tick that the terminal cannot encode must not end the demo
        self._console = Console(highlight=False)
        self.interactive = self._console.is_terminal

    def title(self, text: str) -> None:
        """Print the title."""
        self._print(Text(text, style="bold cyan"))

    def note(self, text: str, indent: int = 0) -> None:
        """Print a note."""
        self._print(Text(text, style="dim"), indent)

    def gap(self) -> None:
        """Print an empty line."""
        self._console.print()

    def step(self, number: int, text: str) -> None:
        """Print the heading of a step."""
        self.gap()
        self._print(Text(f"{number:>2}. {text}", style="bold"))

    def command(self, text: str) -> None:
        """Print a command that the demo runs."""
        self._print(Text.assemble(("$ ", "dim"), (text, "yellow")), _INDENT)

    def line(self, line: Line, *, stamp: bool = False) -> None:
        """Print an event of the daemon's log."""
        words = Text()
        if stamp:
            words.append(f"{line['timestamp'][11:23]}  ", style="dim")
        words.append(f"{_object(line):<28} ", style="cyan")
        words.append_text(_happening(line))
        self._print(words, 0 if stamp else _INDENT)
        detail = line.get("fields") or line.get("error") or ""
        if detail:
            self._print(Text(f"  {detail}", style="" if line.get("fields") else "red"), _INDENT)

    def tick(self, text: str) -> None:
        """Print a successful check."""
        self._print(Text.assemble(("✔ ", "bold green"), text), _INDENT)

    def cross(self, text: str) -> None:
        """Print a failed check."""
        self._print(Text.assemble(("✘ ", "bold red"), (text, "red")), _INDENT)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """On a terminal, show a spinner with `text` within the context."""
        if not self.interactive:
            yield
            return
        with self._console.status(Text(text, style="dim")):
            yield

    def panel(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Print names and values to copy, never truncated, and never wrapped by a frame."""
        width = max(len(name) for name, _ in rows)
        body = Text()
        for number, (name, value) in enumerate(rows):
            body.append("\n" if number else "")
            body.append(f"{name:<{width}}  ", style="dim")
            body.append(value)
        self.gap()
        if self.interactive and max(map(len, body.plain.splitlines())) + 4 <= self._console.width:
            self._console.print(Panel(body, title=title, border_style="cyan", expand=False))
        else:
            self._print(Text(title, style="bold cyan"))
            self._console.print(body, soft_wrap=True)

    def _print(self, text: Text, indent: int = 0) -> None:
        if self.interactive:
            self._console.print(Padding(text, (0, 0, 0, indent), expand=False))
        else:
            self._console.print(Text(" " * indent) + text, soft_wrap=True)


def _object(line: Line) -> str:
    if "kind" not in line:
        return str(line.get("source", ""))
    name = "/".join(part for part in (line.get("namespace"), line.get("name")) if part)
    return f"{line['kind']} {name}".rstrip()


def _happening(line: Line) -> Text:
    """Describe who changed what, and how fast it was healed."""
    by = f"{line.get('type', '')} by {line.get('manager', '')}"
    match line["event"]:
        case "drift healed":
            return Text.assemble((by, "red"), ", healed in ", (milliseconds(line["seconds"]), "bold green"))
        case "drift":
            return Text.assemble((by, "red"), ", not healed yet")
        case "synced":
            return Text("created" if line.get("created") else "brought to the commit", style="green")
        case "not applied":
            return Text(f"not applied: {line.get('outcome', '')}; {line.get('next', '')}", style="red")
        case event:
            return Text(str(event))


def milliseconds(seconds: float) -> str:
    """Format a short time."""
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"
