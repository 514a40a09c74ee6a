"""Shows the results as tables: on the terminal, and in docs/benchmarks.md."""

import statistics
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Duel, Results, p99
from benchmarks.text import AFTER, BEFORE, BUSY, FLATNESS, GROWTH

DUEL_COLUMNS = ("what", "floor", "daemon", "ratio", "budget", "met", "toy loop")
CHECK_COLUMNS = ("what", "measured", "budget", "met")
QUIET = 1.5  # load before a run above which other programs disturb it; the load after it is mostly its own
PLAIN_WIDTH = 180  # characters; a file or a pipe has no width
END_COLUMNS = ("what", "first 10", "last 10")


def show(console: Console, results: Results) -> None:
    """Print the tables."""
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    for title, columns, rows in _tables(results):
        if rows:
            table = Table(*columns, title=title)
            for row in rows:
                table.add_row(*row)
            console.print(table)


def markdown(results: Results, facts: dict[str, str], load: tuple[float, float]) -> str:
    """The content of docs/benchmarks.md."""
    (_, *duels), (_, *checks), (_, *ends), (_, *growth) = _tables(results)
    machine = list(facts.items())
    machine.append(("Load before and after the run", f"{load[0]:.2f} and {load[1]:.2f}"))
    notes = [f"- {duel.title}: {duel.note}." for duel in results.duels if duel.note]
    return "\n".join(
        (
            BEFORE,
            _grid(("", ""), machine),
            *(["", BUSY.format(load=load[0])] if load[0] > QUIET else []),
            *(["", f"Failed, and not all there: {', '.join(results.failed)}."] if results.failed else []),
            "\n## Latency\n\nMedian / p99 in milliseconds.\n",
            _grid(*duels),
            *(["", *notes] if notes else []),
            "\n## Flatness\n\n" + FLATNESS + "\n",
            _grid(*ends),
            "\n## Growth with the number of objects\n\n" + GROWTH + "\n",
            _grid(*growth),
            "\n## Everything else\n",
            _grid(*checks),
            AFTER,
        )
    )


def _tables(results: Results) -> list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    return [
        ("Latency: median / p99, ms", DUEL_COLUMNS, [_duel_row(duel) for duel in results.duels if duel.daemon]),
        (
            "Everything else",
            CHECK_COLUMNS,
            [(check.title, check.measured, check.budget, _verdict(check.met)) for check in results.checks],
        ),
        (
            "The daemon's medians at both ends of a row, ms",
            END_COLUMNS,
            [(duel.title, _ms(duel.ends[0]), _ms(duel.ends[1])) for duel in results.duels if duel.ends],
        ),
        _growth(results),
    ]


def _growth(results: Results) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    sizes = sorted({size for measured in results.growth.values() for size in measured})
    rows = [(what, *(measured.get(size, "") for size in sizes)) for what, measured in results.growth.items()]
    return "Growth with the number of objects", ("what", *(f"{size:,} objects" for size in sizes)), rows


def _duel_row(duel: Duel) -> tuple[str, ...]:
    median, worst = duel.budgets
    if worst is None:
        ratio, budget, render = f"{duel.median_ratio:.2f}", f"≤ {median:g}", _median
    else:
        ratio, budget, render = f"{duel.median_ratio:.2f} / {duel.p99_ratio:.2f}", f"≤ {median:g} / {worst:g}", _both
    toy = f"{_median(duel.toy)} (of {len(duel.toy)})" if duel.toy else ""
    return duel.title, render(duel.floor), render(duel.daemon), ratio, budget, _verdict(duel.met), toy


def _both(seconds: list[float]) -> str:
    return f"{_median(seconds)} / {_ms(p99(seconds))}"


def _median(seconds: list[float]) -> str:
    return _ms(statistics.median(seconds))


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"


def _verdict(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "**no**"


def _grid(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    line: Callable[[tuple[str, ...]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join((line(columns), line(("---",) * len(columns)), *map(line, rows)))
