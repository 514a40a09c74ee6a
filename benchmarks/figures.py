"""Computes medians, p99 and ratios, and compares them with the budgets."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

MEDIAN_BUDGET = 2.0  # times the floor's median
P99_BUDGET = 3.0  # times the floor's p99
BURST_BUDGET = 1.5  # times the floor
EVENT_BUDGET = 20e-6  # seconds of CPU
MEMORY_BUDGET = (80_000_000, 2_000)  # bytes, and bytes for each managed object
COMMIT_BUDGET = 1.0  # seconds after the fetch
ENDS = 10  # first and last repetitions of a row that are compared


def p99(values: Sequence[float]) -> float:
    """The 99th percentile by nearest rank. With fewer than a hundred values it is the greatest."""
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1]


@dataclass
class Duel:
    """Times to heal one kind of drift, in seconds: of the floor, the daemon and, if measured, the toy loop."""

    title: str
    floor: list[float] = field(default_factory=list)
    daemon: list[float] = field(default_factory=list)
    toy: list[float] = field(default_factory=list)
    note: str = ""
    budgets: tuple[float, float | None] = (MEDIAN_BUDGET, P99_BUDGET)

    @property
    def median_ratio(self) -> float:
        """The daemon's median over the floor's."""
        return statistics.median(self.daemon) / statistics.median(self.floor)

    @property
    def p99_ratio(self) -> float:
        """The daemon's p99 over the floor's."""
        return p99(self.daemon) / p99(self.floor)

    @property
    def met(self) -> bool:
        """Whether both ratios are within budget."""
        median, worst = self.budgets
        return self.median_ratio <= median and (worst is None or self.p99_ratio <= worst)

    @property
    def ends(self) -> tuple[float, float] | None:
        """Medians of the daemon's first and last repetitions, None when there are too few repetitions."""
        if len(self.daemon) < 2 * ENDS:
            return None
        return statistics.median(self.daemon[:ENDS]), statistics.median(self.daemon[-ENDS:])


@dataclass(frozen=True)
class Check:
    """Another measurement, as text. `met` is None without a budget."""

    title: str
    measured: str
    budget: str = ""
    met: bool | None = None


@dataclass
class Results:
    """The results of a run. `failed` has the parts that failed, each with the reason."""

    duels: list[Duel] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    growth: dict[str, dict[int, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def grew(self, what: str, size: int, measured: str) -> None:
        """Add a value that was measured with `size` objects."""
        self.growth.setdefault(what, {})[size] = measured


def memory_check(count: int, rss: int, unique: int, when: str) -> Check:
    """Compare the daemon's own memory with its budget."""
    base, each = MEMORY_BUDGET
    budget = base + each * count
    return Check(
        f"Memory of the daemon, {count:,} objects, {when}",
        f"{rss / 1e6:.1f} MB resident, {unique / 1e6:.1f} MB of it unshared",
        f"{budget / 1e6:.1f} MB resident",
        rss <= budget,
    )
