"""Measures single drifts and bursts for the floor, the daemon and the toy loop, in turn."""

import random
import signal
import time
from collections.abc import Callable, Iterator

from benchmarks import objects
from benchmarks.children import Child
from benchmarks.figures import BURST_BUDGET, Duel, Results
from benchmarks.plan import Plan
from benchmarks.room import FLOOR_NAMESPACE, TOY_PERIOD, Daemon, Room, repository_of

WARM_UPS = 3  # repetitions that do not count: they warm up connections, caches and branch predictors
HEAL_SECONDS = 60.0
BURST_SECONDS = 180.0
EVENTS_END = 1.0  # seconds without a new Kubernetes Event after which the daemon has written all
DAEMON, TOY = "daemon", "toy"

SINGLE = (("delete", "Deployment"), ("edit", "Deployment"), ("delete", "ConfigMap"), ("edit", "ConfigMap"))


def start_daemon(room: Room, burst: int) -> Daemon:
    """Start the daemon over the same objects as the floor's."""
    daemon = room.daemon(DAEMON, repository_of(room, DAEMON, objects.contested(DAEMON, burst)))
    daemon.start()
    return daemon


def singles(room: Room, plan: Plan, results: Results) -> None:
    """Delete or edit one object many times, for the floor and the daemon in turn."""
    for act, kind in SINGLE:
        results.duels.append(single(room, act, kind, DAEMON, plan.repetitions))


def single(room: Room, act: str, kind: str, namespace: str, repetitions: int, suffix: str = "") -> Duel:
    """Measure one kind of drift, `repetitions` times for the floor and for the daemon over `namespace`."""
    verb = "deleted" if act == "delete" else "edited"
    title = f"One {kind} {verb}{suffix}"
    duel = Duel(f"{title}, {repetitions} times")
    for number in range(-WARM_UPS, repetitions):
        for seconds, taken in turns(room, act, kind, namespace, duel, floor_first=bool(number % 2)):
            if number >= 0:
                seconds.append(taken)
        room.progress.advance(title, number + WARM_UPS + 1, repetitions + WARM_UPS)
    return duel


def turns(
    room: Room, act: str, kind: str, namespace: str, duel: Duel, *, floor_first: bool
) -> Iterator[tuple[list[float], float]]:
    """Disturb floor and daemon one after the other. Yields each time, with the list of the duel that it belongs to."""
    each = [(FLOOR_NAMESPACE, duel.floor), (namespace, duel.daemon)]
    for where, seconds in each if floor_first else reversed(each):
        answer = room.ask(act, HEAL_SECONDS, kind=kind, namespace=where, name=objects.VICTIMS[act])
        room.settle()
        yield seconds, answer["seconds"]


def bursts(room: Room, daemon: Daemon, plan: Plan, results: Results) -> None:
    """Delete all ConfigMaps of the burst at once, then some of them, for the floor and the daemon in turn."""
    for count, rounds in ((plan.burst, plan.burst_rounds), (plan.burst_small, plan.burst_small_rounds)):
        results.duels.append(burst(room, daemon, DAEMON, count, rounds))


def burst(room: Room, daemon: Daemon, namespace: str, count: int, rounds: int, suffix: str = "") -> Duel:
    """Delete `count` ConfigMaps at once, for the floor and for the daemon over `namespace`.

    Each turn begins when the daemon has written all its Events, so that delayed Events do not slow down the floor.
    """
    title = f"{count:,} ConfigMaps deleted at once{suffix}"
    duel = Duel(f"{title}, {rounds} times", budgets=(BURST_BUDGET, None))
    deleting: list[float] = []
    for number in range(rounds):
        turns = [(FLOOR_NAMESPACE, duel.floor), (namespace, duel.daemon)]
        for where, seconds in turns if number % 2 else reversed(turns):
            _let_events_be_written(daemon)
            answer = room.ask("burst", BURST_SECONDS, namespace=where, count=count)
            seconds.append(answer["seconds"])
            deleting.append(answer["deleting"])
            room.settle()
        room.progress.advance(title, number + 1, rounds)
    duel.note = f"the API server took {min(deleting):.2f} to {max(deleting):.2f} s to delete them meanwhile"
    return duel


def _let_events_be_written(daemon: Daemon) -> None:
    """Wait until the daemon has written its Events. It delays them while it heals, and bounds their rate."""
    seen, since = -1.0, time.monotonic()
    while time.monotonic() - since < EVENTS_END:
        count = daemon.told("driftwatch_kubernetes_events_total")
        if count != seen:
            seen, since = count, time.monotonic()
        time.sleep(0.1)


def toy(room: Room, plan: Plan, results: Results) -> None:
    """Measure the toy loop, fewer times, because each takes seconds. The floor and the daemon are idle meanwhile."""
    repository = repository_of(room, TOY, objects.contested(TOY, 0))
    loop = room.toy(repository)
    try:
        for kind in objects.KINDS:
            room.ask("present", BURST_SECONDS, kind=kind, namespace=TOY, count=len(objects.VICTIMS))
        _toy_singles(room, plan, results)
        # After the single drifts: a round of the loop takes longer with more objects, and single drifts would wait.
        repository.commit(objects.files(objects.contested(TOY, plan.toy_burst)), "Declare many more")
        room.ask("present", BURST_SECONDS, kind="ConfigMap", namespace=TOY, count=plan.toy_burst + len(objects.VICTIMS))
        _toy_burst(room, plan, results)
    finally:
        _end(loop)


def _toy_singles(room: Room, plan: Plan, results: Results) -> None:
    for act, kind in SINGLE[:3]:
        verb = "deleted" if act == "delete" else "edited"
        duel = _duel(results, lambda title, start=f"One {kind} {verb}, ": title.startswith(start))
        for number in range(plan.toy_repetitions):
            # Begin at a random moment of the loop's sleep, so that the measurement is not in step with the loop.
            pause = random.uniform(0.2, TOY_PERIOD)  # noqa: S311  no secret
            room.ask("quiet", HEAL_SECONDS, seconds=pause)
            duel.toy.append(
                room.ask(act, HEAL_SECONDS, kind=kind, namespace=TOY, name=objects.VICTIMS[act])["seconds"],
            )
            room.progress.advance(f"Toy loop: one {kind} {verb}", number + 1, plan.toy_repetitions)


def _toy_burst(room: Room, plan: Plan, results: Results) -> None:
    room.settle()
    taken = room.ask("burst", BURST_SECONDS, namespace=TOY, count=plan.toy_burst)["seconds"]
    duel = _duel(results, lambda title: title.startswith(f"{plan.toy_burst:,} ConfigMaps deleted at once"))
    duel.toy.append(taken)
    duel.note = "; ".join(filter(None, (duel.note, f"the toy loop had {plan.toy_burst} to put back, once")))


def _duel(results: Results, fits: Callable[[str], bool]) -> Duel:
    """The row for the toy loop's times."""
    return next((duel for duel in results.duels if fits(duel.title)), Duel(""))


def _end(loop: Child) -> None:
    loop.signal_all(signal.SIGTERM)
    loop.stop()
