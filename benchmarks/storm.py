"""Measures a storm: many watched kinds, and other writers update all their objects without a pause.

The daemon manages the noisy objects, but not their statuses. So each status write is an event that the daemon has to
judge. The floor heals in the same storm. It watches only its own two kinds and does not see the noise.
"""

import time
from pathlib import Path

from driftwatch.localcluster import Progress

from benchmarks import objects
from benchmarks.figures import Check, Duel, Results
from benchmarks.latency import turns
from benchmarks.plan import Plan
from benchmarks.room import Daemon, Room, repository_of

NAMESPACE = "storm"
EVENTS = "driftwatch_watch_events_total"
START_SECONDS = 120.0
GRACE = 120.0  # seconds for the writers to end after the storm
GROWTH_BUDGET = 2_000_000  # bytes, from a tenth of the storm to its end


def storm(folder: Path, progress: Progress, plan: Plan, results: Results) -> None:
    """Measure heals of single drifts in the storm, and the daemon's CPU and memory meanwhile."""
    noisy = plan.kinds - len(objects.KINDS) - 1  # one kind less, because CustomResourceDefinitions are watched, too
    progress.note(
        f"Storm: {plan.kinds} kinds, {plan.storm_rate:,.0f} status writes a second for {plan.storm_seconds:,.0f} s."
    )
    with Room(folder / "storm", progress, 0, [NAMESPACE]) as room:
        bodies = objects.contested(NAMESPACE, 0) + [
            body for number in range(noisy) for body in objects.noisy(NAMESPACE, number)
        ]
        daemon = room.daemon(NAMESPACE, repository_of(room, NAMESPACE, bodies))
        daemon.start(START_SECONDS)
        room.settle()
        time.sleep(plan.settle)
        _measure(room, daemon, noisy, plan, results)


def _measure(room: Room, daemon: Daemon, noisy: int, plan: Plan, results: Results) -> None:
    kubeconfig = str(room.cluster.kubeconfig)
    events, cpu, began = daemon.told(EVENTS), daemon.child.cpu(), time.monotonic()
    rain = room.python(
        "rain", kubeconfig, NAMESPACE, str(noisy), str(plan.storm_rate), str(plan.storm_seconds), talks=True
    )
    duel = Duel(f"One ConfigMap deleted in a storm of status writes over {plan.kinds} kinds")
    early = 0
    while (elapsed := time.monotonic() - began) < plan.storm_seconds:
        early = early or (daemon.child.memory()["own"].rss if elapsed > plan.storm_seconds / 10 else 0)
        floor_first = bool(len(duel.floor) % 2)
        for seconds, healed in turns(room, "delete", "ConfigMap", NAMESPACE, duel, floor_first=floor_first):
            seconds.append(healed)
        time.sleep(plan.settle / 5)  # slower than the pace at which an object counts as contested
        room.progress.advance("Storm: seconds", min(int(elapsed), int(plan.storm_seconds)), int(plan.storm_seconds))
    late = daemon.child.memory()["own"].rss
    written = rain.hear(GRACE)
    taken = time.monotonic() - began
    used, seen = daemon.child.cpu() - cpu, daemon.told(EVENTS) - events
    duel.title += f", {len(duel.daemon)} times"
    rate = written["writes"] / written["seconds"]
    duel.note = f"the API server took {rate:,.0f} status writes a second, {plan.storm_rate:,.0f} were asked for"
    results.duels.append(duel)
    results.checks += [
        Check(
            f"CPU of the daemon in a storm over {plan.kinds} kinds",
            f"{used / taken:.1%} of a core at {seen / taken:,.0f} events a second, {used / seen * 1e6:.0f} µs an event",
        ),
        Check(
            f"Memory of the daemon in that storm, after {plan.storm_seconds / 10:,.0f} and {plan.storm_seconds:,.0f} s",
            f"{early / 1e6:.1f} and {late / 1e6:.1f} MB resident",
            f"no more than {GROWTH_BUDGET / 1e6:.0f} MB of growth",
            late - early <= GROWTH_BUDGET,
        ),
    ]
