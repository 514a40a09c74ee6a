"""Measures the cost of a watch event without drift: in the whole process, and in decoding and judging alone."""

import gc
import statistics
import time
from collections.abc import Callable
from functools import partial

import orjson
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import decode_event, decode_head, object_of
from driftwatch.drift.object_state import Declaration, ObjectStates, Verdict
from driftwatch.model import Manifest, ObjectKey

from benchmarks import objects
from benchmarks.children import Child
from benchmarks.figures import EVENT_BUDGET, Check, Results
from benchmarks.latency import DAEMON
from benchmarks.plan import Plan
from benchmarks.room import FLOOR_NAMESPACE, Daemon, Room

LINES = 2000
ROUNDS = 7
ITEMS = (0, 30, 100, 300)  # environment variables of a Deployment
ITEM_ROUNDS = 20
ITEM_RATIO = 10.0  # budget: largest ratio of the cost of 300 variables to the cost of 30
NOISY = objects.VICTIMS["edit"]  # the Deployment that gets the status writes


def noise(room: Room, daemon: Daemon, plan: Plan, results: Results) -> None:
    """CPU time of the daemon and of the floor while one of their objects gets status writes."""
    for who, child, namespace in (
        ("the floor (parses the event, compares one value)", room.floor, FLOOR_NAMESPACE),
        ("the daemon", daemon.child, DAEMON),
    ):
        room.progress.note(f"Status noise against {who}: {plan.noise:,} writes, {plan.rate:.0f} a second.")
        seconds, events = _noise(room, child, namespace, plan)
        budget = "20 µs" if child is daemon.child else ""
        results.checks.append(
            Check(
                f"CPU of a status event in the whole process, TLS and HTTP included: {who}",
                f"{seconds * 1e6:.0f} µs an event, over {events:,} events at {plan.rate:.0f} a second",
                budget,
                seconds <= EVENT_BUDGET if budget else None,
            )
        )


def _noise(room: Room, child: Child, namespace: str, plan: Plan) -> tuple[float, int]:
    """CPU seconds for each event, and the number of events in the probe's watch."""
    where = {"kind": "Deployment", "namespace": namespace, "name": NOISY}
    target = objects.path("Deployment", namespace, NOISY)
    room.settle()
    idle_cpu, idle_began = child.cpu(), time.monotonic()
    time.sleep(plan.settle)
    idle = (child.cpu() - idle_cpu) / (time.monotonic() - idle_began)
    before = room.ask("count", 10.0, **where)["events"]
    cpu, began = child.cpu(), time.monotonic()
    writer = room.python("noise", str(room.cluster.kubeconfig), target, str(plan.noise), str(plan.rate), talks=True)
    writer.hear(plan.noise / plan.rate * 5 + 30)
    writer.stop()
    room.settle()
    used = child.cpu() - cpu - idle * (time.monotonic() - began)
    events = room.ask("count", 10.0, **where)["events"] - before
    return used / events, events


def decode(room: Room, results: Results) -> None:
    """Time of the decoding and judging calls for one event, with the event of a real Deployment."""
    raw = room.kubectl("get", "--raw", objects.path("Deployment", DAEMON, NOISY))
    lines = _lines(raw)
    key = ObjectKey("apps", "Deployment", DAEMON, NOISY)
    each: list[float] = []
    gc.collect()
    for _ in range(ROUNDS):
        detector = Detector(ObjectStates(), time.monotonic, Managers())
        detector.accept(key, decode_head(raw), "digest")
        detector.states.of(key).written_at = float("-inf")  # most noise comes long after driftwatch's own write
        began = time.process_time_ns()
        findings = [_judge(detector, line) for line in lines]
        each.append((time.process_time_ns() - began) / 1e9 / len(lines))
        assert set(findings) == {Verdict.IN_SYNC}
    seconds = statistics.median(each)
    results.checks.append(
        Check(
            f"CPU of a status event in decoding and judging alone, {len(lines[0]):,} bytes",
            f"{seconds * 1e6:.1f} µs an event",
            "20 µs",
            seconds <= EVENT_BUDGET,
        )
    )


def _lines(raw: bytes) -> list[bytes]:
    """Watch lines with rising resourceVersions, like those of status writes. An older version would be ignored."""
    live = orjson.loads(raw)
    version = str(live["metadata"]["resourceVersion"])
    mark = f'"resourceVersion":"{version}"'.encode()
    assert mark in raw, "the API server's JSON looks otherwise than expected"
    return [
        b'{"type":"MODIFIED","object":'
        + raw.strip().replace(mark, f'"resourceVersion":"{int(version) + number}"'.encode(), 1)
        + b"}"
        for number in range(1, LINES + 1)
    ]


def _judge(detector: Detector, line: bytes) -> Verdict:
    event = decode_event(line)
    metadata = event.object.metadata
    key = ObjectKey("apps", "Deployment", metadata.namespace, metadata.name)
    return detector.on_event(key, event.type, event.object, partial(object_of, line))


def items(results: Results) -> None:
    """CPU time of one event and of a first LIST of a Deployment in sync, by its number of list items."""
    spent = {count: _of_items(count) for count in ITEMS}
    for position, what in enumerate(("a status event", "an event within 2 s of our own write", "a first LIST")):
        times = {count: spent[count][position] for count in ITEMS}
        ratio = times[300] / times[30]
        results.checks.append(
            Check(
                f"CPU of {what} in decoding and judging, with {', '.join(map(str, ITEMS))} environment variables",
                ", ".join(f"{seconds * 1e6:,.0f} µs" for seconds in times.values())
                + f"; 300 cost {ratio:.1f} times what 30 cost",
                f"{ITEM_RATIO:.0f} times",
                ratio <= ITEM_RATIO,
            )
        )


def _of_items(count: int) -> tuple[float, float, float]:
    """Seconds of a status event, of an event within 2 s of driftwatch's own write, and of a first LIST."""
    variables = [{"name": f"VARIABLE_{number:03}", "value": f"value-{number}"} for number in range(count)]
    container = {"name": "web", "image": "nginx", "env": variables}
    body = {"metadata": {"labels": {"app": "web"}}, "spec": {"template": {"spec": {"containers": [container]}}}}
    owned = {f'k:{{"name":"{each["name"]}"}}': {".": {}, "f:name": {}, "f:value": {}} for each in variables}
    inside = {'k:{"name":"web"}': {".": {}, "f:name": {}, "f:image": {}, "f:env": owned}}
    spec = {"f:template": {"f:spec": {"f:containers": inside}}}
    entry = {
        "manager": "driftwatch",
        "operation": "Apply",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": spec},
    }
    manifest = Manifest("apps", "v1", "Deployment", "shop", "web", orjson.dumps(body), "digest", "web.yaml", 1)
    key = ObjectKey("apps", "Deployment", "shop", "web")

    def line(version: int) -> bytes:
        metadata = {
            "name": "web",
            "namespace": "shop",
            "resourceVersion": str(version),
            "annotations": {"driftwatch.io/desired-hash": "digest"},
            "managedFields": [entry],
            **body["metadata"],
        }
        return orjson.dumps({"type": "MODIFIED", "object": {**body, "metadata": metadata}})

    lines = [line(version) for version in range(10, 10 + ITEM_ROUNDS)]

    def detector() -> Detector:
        states = ObjectStates()
        states.of(key).declaration = Declaration("bench", manifest)
        return Detector(states, lambda: 0.0, Managers())

    def timed(judge: Callable[[bytes], Verdict]) -> float:
        each = []
        gc.collect()
        for one in lines:
            began = time.process_time_ns()
            verdict = judge(one)
            each.append((time.process_time_ns() - began) / 1e9)
            assert verdict is Verdict.IN_SYNC
        return statistics.median(each)

    def first_list(one: bytes) -> Verdict:
        made = detector()
        made.states.of(key)
        return made.on_listed(key, decode_event(one).object, partial(object_of, one))

    def event(written_at: float) -> float:
        made = detector()
        made.accept(key, decode_event(line(1)).object, "digest")
        made.states.of(key).written_at = written_at
        return timed(partial(_judge, made))

    return event(float("-inf")), event(0.0), timed(first_list)
