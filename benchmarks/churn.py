"""Measures whether memory grows over time: thousands of heals and many commits over the same objects."""

import time
from pathlib import Path, PurePosixPath

from driftwatch.localcluster import Progress

from benchmarks import objects
from benchmarks.figures import Check, Results
from benchmarks.latency import BURST_SECONDS
from benchmarks.plan import Plan
from benchmarks.repository import Repository
from benchmarks.room import Room, repository_of

NAMESPACE = "churn"
CHANGE_SECONDS = 60.0
CHANGED = 10  # a commit changes one object in ten
GROWTH_BUDGET = 2_000_000  # bytes from the middle to the end


def churn(folder: Path, progress: Progress, plan: Plan, results: Results) -> None:
    """Delete all objects and change a part of them in each round. Measures resident memory after each round."""
    with Room(folder / "churn", progress, 0, [NAMESPACE]) as room:
        repository = repository_of(room, NAMESPACE, objects.contested(NAMESPACE, plan.burst))
        daemon = room.daemon(NAMESPACE, repository, "1s")
        daemon.start()
        resident: list[int] = []
        for number in range(plan.churn):
            room.ask("burst", BURST_SECONDS, namespace=NAMESPACE, count=plan.burst)
            _commit(room, repository, number, plan)
            room.settle()
            time.sleep(plan.settle / 5)
            resident.append(daemon.child.memory()["own"].rss)
            progress.advance("Churn: rounds", number + 1, plan.churn)
    middle, last = resident[len(resident) // 2], resident[-1]
    results.checks.append(
        Check(
            f"Memory of the daemon over {plan.churn * plan.burst:,} heals and {plan.churn} commits: after the first "
            "round, half of them, all",
            f"{resident[0] / 1e6:.1f}, {middle / 1e6:.1f}, {last / 1e6:.1f} MB resident",
            f"no more than {GROWTH_BUDGET / 1e6:.0f} MB of growth from half of them on",
            last - middle <= GROWTH_BUDGET,
        )
    )


def _commit(room: Room, repository: Repository, number: int, plan: Plan) -> None:
    """Change a part of the objects with a commit, and wait until the cluster shows all changes."""
    value = f"changed in round {number}"
    names = objects.burst_names(plan.burst)[::CHANGED]
    changed: dict[PurePosixPath, str] = {}
    for name in names:
        [found] = repository.folder.rglob(f"configmap-{name}.yaml")
        body = objects.configmap(NAMESPACE, name, objects.PROBED, setting=value)
        changed[PurePosixPath(found.relative_to(repository.folder))] = objects.as_yaml(body)
    repository.commit(changed, f"Round {number}")
    _await(room, value, len(names))


def _await(room: Room, value: str, count: int) -> None:
    """Wait until `count` objects have the value. Reads them all: the probe drops the events of other objects."""
    deadline = time.monotonic() + CHANGE_SECONDS
    path = objects.collection("ConfigMap", NAMESPACE)
    while room.kubectl("get", "--raw", path).count(f'"{value}"'.encode()) != count:
        assert time.monotonic() < deadline, "the cluster does not show what Git says"
        time.sleep(0.2)
