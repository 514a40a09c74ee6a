"""Measures the effect of a large sync on the heal of one object. Both use the same API server and the same cores.

Each commit changes two thousand objects. Commits come a little faster than they can be applied, so a sync runs all the
time. Meanwhile the daemon heals single deletions from the same source.
"""

import statistics
import time
from functools import partial
from pathlib import Path, PurePosixPath

from driftwatch.localcluster import Progress

from benchmarks import audit, objects
from benchmarks.figures import MEDIAN_BUDGET, Check, Results
from benchmarks.latency import single
from benchmarks.plan import Plan
from benchmarks.repository import keep_committing
from benchmarks.room import Room, repository_of

NAMESPACE = "synced"
INTERVAL = "200ms"
BEGUN = 60.0  # most seconds until the first sync runs
PER_FILE = 100
COMMIT_SECONDS = 10.0  # between two commits; reading one takes a core for a second, and must not dominate


def syncing(folder: Path, progress: Progress, plan: Plan, results: Results) -> None:
    """Measure single deletions, alone and during a sync, and the speed of the sync, alone and during deletions."""
    with Room(folder / "syncing", progress, 0, [NAMESPACE]) as room:
        repository = repository_of(room, NAMESPACE, objects.contested(NAMESPACE, 0))
        repository.commit(_items(plan.synced, 0), "Declare many more")
        room.daemon(NAMESPACE, repository, INTERVAL).start()
        alone = single(room, "delete", "ConfigMap", NAMESPACE, plan.repetitions_beside, suffix=", nothing synced")
        with keep_committing(repository, partial(_items, plan.synced), COMMIT_SECONDS):
            _await_sync(room)
            undisturbed = _rate(room, time.time(), plan.settle)
            began = time.time()
            busy = single(
                room,
                "delete",
                "ConfigMap",
                NAMESPACE,
                plan.repetitions_beside,
                suffix=f", {plan.synced:,} being synced",
            )
            meanwhile = _rate(room, began, 0.0)
    busy.budgets = (MEDIAN_BUDGET, None)
    results.duels += [alone, busy]
    quiet, during = statistics.median(alone.daemon), statistics.median(busy.daemon)
    results.checks += [
        Check(
            "Median time to heal, alone and while a large sync runs",
            f"{quiet * 1e3:.1f} ms, {during * 1e3:.1f} ms",
            "twice the floor while it runs",
            busy.met,
        ),
        Check(
            f"A sync of {plan.synced:,} objects, alone and while single objects are healed",
            f"{undisturbed:,.0f} objects/s, {meanwhile:,.0f} objects/s",
        ),
    ]


def _await_sync(room: Room) -> None:
    deadline = time.monotonic() + BEGUN
    while not _rate(room, time.time(), 1.0):
        assert time.monotonic() < deadline, "no sync has begun"


def _rate(room: Room, since: float, seconds: float) -> float:
    """Objects applied a second between `since` and `seconds` from now."""
    time.sleep(seconds)
    until = time.time()
    return audit.requests(room.cluster.audit_log, since, until)["patch"] / (until - since)


def _items(count: int, revision: int) -> dict[PurePosixPath, str]:
    """ConfigMaps, many in each file. Every revision changes all of them."""
    plain = objects.as_yaml(objects.configmap(NAMESPACE, "item-NUMBER", setting=f"revision {revision}"))
    bodies = [plain.replace("NUMBER", f"{number:05}") for number in range(count)]
    return {
        PurePosixPath("many", f"items-{first // PER_FILE:03}.yaml"): "---\n".join(bodies[first : first + PER_FILE])
        for first in range(0, count, PER_FILE)
    }
