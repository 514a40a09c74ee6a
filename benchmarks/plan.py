"""The sizes of a run: of the full run, and of a smoke test of the same code."""

from dataclasses import dataclass

PARTS = (
    "single",
    "burst",
    "toy",
    "noise",
    "decode",
    "items",
    "scale",
    "polls",
    "rendering",
    "storm",
    "churn",
    "sync",
    "garbage",
)


@dataclass(frozen=True)
class Plan:
    """The sizes of a run. `rate` is in status writes a second."""

    repetitions: int = 100  # repetitions of one drift without other load
    repetitions_beside: int = 50  # repetitions of one drift with other load: many objects, scrapes, a render, a sync
    burst: int = 1000
    burst_rounds: int = 7
    burst_small: int = 200  # objects of the smaller burst, for comparison with the toy loop
    burst_small_rounds: int = 15  # a round takes a second; with few rounds the median is noisy
    burst_rounds_beside: int = 3  # rounds with the largest number of managed objects
    toy_repetitions: int = 5
    toy_burst: int = 200
    noise: int = 3000
    rate: float = 150.0
    sizes: tuple[int, ...] = (100, 1_000, 10_000)
    commits: int = 5
    chart: int = 2_000  # objects of the large chart
    synced: int = 2_000  # objects that every commit changes while others are healed
    polls: int = 200
    kinds: int = 60  # watched kinds in the storm
    storm_rate: float = 1_000.0  # status writes a second, if the API server can process them
    storm_seconds: float = 600.0
    churn: int = 25  # rounds; each deletes all objects of the burst, and a commit changes a tenth of them
    settle: float = 5.0  # seconds until a process that was just busy is measured


FULL = Plan()
QUICK = Plan(
    repetitions=5,
    repetitions_beside=3,
    burst=50,
    burst_rounds=1,
    burst_small=20,
    burst_small_rounds=1,
    burst_rounds_beside=1,
    toy_repetitions=1,
    toy_burst=20,
    noise=200,
    sizes=(50, 200),
    commits=1,
    chart=100,
    synced=300,
    polls=10,
    kinds=8,
    storm_rate=100.0,
    storm_seconds=8.0,
    churn=3,
    settle=1.0,
)
