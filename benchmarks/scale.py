"""Measures growth with the number of objects: memory, the first sync, a restart, a commit, one deletion.

Each size has its own control plane, so that no size is affected by an earlier one.
"""

import statistics
import time
from pathlib import Path, PurePosixPath

from driftwatch.localcluster import Progress

from benchmarks import audit, objects
from benchmarks.figures import COMMIT_BUDGET, Check, Results, memory_check
from benchmarks.latency import SINGLE, burst, single
from benchmarks.plan import Plan
from benchmarks.repository import Repository
from benchmarks.room import Daemon, Room, repository_of
from benchmarks.scrape import scrape_storm, scrapes

SYNC_SECONDS = 60.0
SYNC_RATE = 50  # least objects a second; below that the run is stopped
CHANGE_SECONDS = 60.0
INTERVAL = 1.0  # seconds between the daemon's polls of the remote
NAMESPACE = "many"


def scale(folder: Path, progress: Progress, plan: Plan, results: Results) -> None:
    """Measure all sizes, and a storm of scrapes with the largest."""
    for size in plan.sizes:
        progress.note(f"{size:,} objects: repository, control plane, first sync.")
        burst = plan.burst if size > plan.burst else 0
        with Room(folder / f"scale-{size}", progress, burst, [NAMESPACE]) as room:
            repository = repository_of(room, NAMESPACE, objects.many(NAMESPACE, size, burst))
            daemon = room.daemon(NAMESPACE, repository, f"{INTERVAL:.0f}s")
            taken = daemon.start(SYNC_SECONDS + size / SYNC_RATE)
            results.grew("First sync, from the start of the process to ready", size, _rate(taken, size))
            time.sleep(plan.settle)
            _memory(daemon, size, "after the first sync", results)
            _closely(room, daemon, repository, size, plan, results)


def _closely(room: Room, daemon: Daemon, repository: Repository, size: int, plan: Plan, results: Results) -> None:
    daemon.stop()
    restarted = time.time()
    ready = daemon.start(SYNC_SECONDS + size / SYNC_RATE)
    time.sleep(plan.settle)
    settled = time.time()
    _memory(daemon, size, "after a restart in sync", results)
    windows, seconds = _commits(room, repository, plan)
    _drifts(room, daemon, size, plan, results)
    scrapes(room, daemon, size, results)
    if size == max(plan.sizes):
        scrape_storm(room, daemon, NAMESPACE, size, plan, results)
    results.grew("Full collections of garbage since the restart", size, _pauses(daemon))
    daemon.stop()
    # After the stop, because the audit log has a watch only when the watch has ended.
    counts = audit.requests(room.cluster.audit_log, restarted, settled)
    writes = sum(count for verb, count in counts.items() if verb in audit.WRITES)
    # Only this namespace: the few GETs for the cluster's identity and the inventory are in other namespaces.
    gets = audit.requests(room.cluster.audit_log, restarted, settled, namespace=NAMESPACE)["get"]
    results.grew("Restart in sync, from the start of the process to ready", size, f"{ready:.2f} s")
    results.checks.append(
        Check(
            f"Restart with {size:,} objects in sync",
            f"ready in {ready:.2f} s; requests: {audit.told(counts)}; {gets} of them GET an object of Git's",
            "no write, no GET of an object",
            writes == 0 and gets == 0,
        )
    )
    _commit_checks(room, size, windows, seconds, results)


def _drifts(room: Room, daemon: Daemon, size: int, plan: Plan, results: Results) -> None:
    """Delete or edit one object with `size` managed objects. With enough objects, also delete a thousand at once."""
    suffix = f", {size:,} objects managed"
    for act, kind in SINGLE:
        duel = single(room, act, kind, NAMESPACE, plan.repetitions_beside, suffix)
        results.duels.append(duel)
        floor, taken = statistics.median(duel.floor), statistics.median(duel.daemon)
        what = f"One {kind} {'deleted' if act == 'delete' else 'edited'}"
        results.grew(what, size, f"{floor * 1e3:.1f} → {taken * 1e3:.1f} ({duel.median_ratio:.2f})")
    if size > plan.burst:
        results.duels.append(burst(room, daemon, NAMESPACE, plan.burst, plan.burst_rounds_beside, suffix))


def _commits(room: Room, repository: Repository, plan: Plan) -> tuple[list[tuple[float, float]], list[float]]:
    """Change one file several times. Returns each commit's time window, and the seconds until the cluster shows it."""
    windows: list[tuple[float, float]] = []
    seconds: list[float] = []
    name = next(
        PurePosixPath(file.relative_to(repository.folder)) for file in repository.folder.rglob("configmap-changed.yaml")
    )
    for number in range(plan.commits):
        room.settle()
        value = f"changed by commit {number}"
        body = objects.configmap(NAMESPACE, "changed", objects.PROBED, setting=value)
        since = time.time()
        repository.commit({name: objects.as_yaml(body)}, f"Change one file, {number}")
        committed = time.monotonic()
        seen = room.ask("await", CHANGE_SECONDS, kind="ConfigMap", namespace=NAMESPACE, name="changed", value=value)
        seconds.append(seen["at"] - committed)
        time.sleep(1.0)
        windows.append((since, time.time()))
        room.progress.advance("Commits with one changed file", number + 1, plan.commits)
    return windows, seconds


def _commit_checks(
    room: Room, size: int, windows: list[tuple[float, float]], seconds: list[float], results: Results
) -> None:
    patches = [audit.requests(room.cluster.audit_log, *window)["patch"] for window in windows]
    limit = COMMIT_BUDGET + INTERVAL
    results.grew("Commit with one changed file, until it shows", size, f"{statistics.median(seconds):.2f} s")
    results.checks += [
        Check(
            f"Commit with one changed file in {size:,}, from the end of `git commit` to the object changed",
            f"median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, of {len(seconds)}",
            f"{limit:.0f} s: a fetch comes within {INTERVAL:.0f} s, the rest is to take 1 s",
            max(seconds) <= limit,
        ),
        Check(
            f"Applies for a commit with one changed file in {size:,}",
            ", ".join(map(str, patches)),
            "1 each",
            set(patches) == {1},
        ),
    ]


def _memory(daemon: Daemon, size: int, when: str, results: Results) -> None:
    memory = daemon.child.memory()
    own, children = memory["own"], memory["children"]
    results.checks.append(memory_check(size, own.rss, own.unique, when))
    results.grew(f"Memory of the daemon, {when}", size, f"{own.rss / 1e6:.1f} MB")
    results.grew(f"Memory of the desired-state process, {when}", size, f"{children.rss / 1e6:.1f} MB")


def _pauses(daemon: Daemon) -> str:
    """The number and the mean duration of the daemon's garbage collection pauses since its restart."""
    count, seconds = (daemon.told(f"driftwatch_gc_pause_seconds_{part}") for part in ("count", "sum"))
    return f"{count:.0f}, {seconds / max(count, 1) * 1e3:.1f} ms each"


def _rate(seconds: float, size: int) -> str:
    return f"{seconds:.2f} s, {size / seconds:,.0f} objects/s"
