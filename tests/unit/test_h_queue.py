"""What one object's refusal may hold up: that object, and nothing else."""

import asyncio
import time

import orjson
import pytest
from driftwatch.cluster.apply import Applied
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, ClusterError, Unreachable, api_error
from driftwatch.drift.declared import Declared
from driftwatch.drift.metadata import Metadata, ObjectHead
from driftwatch.drift.ownership import Detector
from driftwatch.drift.policy import Managers
from driftwatch.heal.concurrency import CEILING, FIRST, Concurrency
from driftwatch.heal.healer import Healer
from driftwatch.heal.lanes import Lane
from driftwatch.heal.modes import Modes
from driftwatch.model import Manifest, ObjectKey
from driftwatch.observe.metrics import Metrics
from driftwatch.observe.report import Report

SHOP = ObjectKey("", "Namespace", "", "shop")
SETTINGS = ObjectKey("", "ConfigMap", "shop", "settings")
HOUR = 3600.0


def refusal(code: int, reason: str = "", message: str = "", **details: object) -> ApiError:
    """A Status of failure."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return api_error(code, orjson.dumps(body), {})


class Kinds:
    """Serves every kind."""

    def resource(self, manifest):
        plural = f"{manifest.kind.lower()}s"
        return Resource("", "v1", manifest.kind, plural, namespaced=bool(manifest.namespace), prefix="/api/v1")

    def expected(self) -> None:
        """Nothing is defined here."""


class Applier:
    """Takes everything but what `refusals` has an answer for."""

    observer = None

    def __init__(self) -> None:
        self.refusals: dict[str, ClusterError] = {}
        self.asked: list[str] = []

    async def apply(self, _resource, _namespace, name, _body):
        self.asked.append(name)
        if name in self.refusals:
            raise self.refusals[name]
        return Applied(ObjectHead(Metadata(resourceVersion="1")), created=True)


class Scene:
    """A healer of a Namespace and a ConfigMap in it."""

    def __init__(self) -> None:
        manifests = [
            Manifest(key.group, "v1", key.kind, key.namespace, key.name, b"{}", "abc", "a.yaml", 1)
            for key in (SHOP, SETTINGS)
        ]
        declared = Declared(["apps"], lambda kind: kind.kind != "Namespace")
        declared.replace("apps", manifests)
        detector = Detector(declared.manifest, time.monotonic, Managers())
        self.applier = Applier()
        self.healer = Healer(declared, detector, self.applier, Kinds(), Report(Metrics()), Modes(), time.monotonic)

    async def sync(self) -> None:
        """Apply what Git declares in the order of a sync."""
        for keys in ({SHOP}, {SETTINGS}):
            async with asyncio.timeout(5.0):
                await self.healer.tend_all(keys)


COMES_BACK_LATER = refusal(429, "TooManyRequests", "webhook: come back later", name="shop", retryAfterSeconds=HOUR)


async def test_h04_a_retry_after_of_an_hour_holds_no_later_commit() -> None:
    """What an object is asked to wait is its own wait: the next commit goes on with all that comes after it."""
    scene = Scene()
    scene.applier.refusals["shop"] = COMES_BACK_LATER
    await scene.healer.tend_all({SHOP})
    await scene.sync()
    assert scene.applier.asked == ["shop", "settings"], "the namespace is asked for once, and nothing waits for it"
    await scene.healer.stop(1.0)


async def test_h04_a_retry_after_of_an_hour_is_kept_to_for_no_longer_than_a_refused_manifest_waits() -> None:
    """A webhook's word keeps drift unhealed for ten minutes at most."""
    scene = Scene()
    scene.applier.refusals["shop"] = COMES_BACK_LATER
    await scene.sync()
    wait = scene.healer.queue.wait()
    assert wait is not None
    assert 590.0 < wait <= 600.0 * 1.2
    await scene.healer.stop(1.0)


@pytest.mark.parametrize("reason", ["", "TooManyRequests"])
async def test_h04_a_webhook_that_denies_with_429_holds_nothing_but_its_object(reason: str) -> None:
    """A Status may come without a reason: it is about the object all the same."""
    scene = Scene()
    scene.applier.refusals["shop"] = refusal(
        429, reason, 'admission webhook "gate.example.com" denied the request: later', retryAfterSeconds=HOUR
    )
    await scene.sync()
    assert scene.healer.concurrency.pause() == 0.0
    assert scene.applier.asked == ["shop", "settings"]
    await scene.healer.stop(1.0)


ITS_OWN = {
    "schema": refusal(
        500, "InternalError", "failed to create typed live object: .spec.new: field not declared in schema"
    ),
    "too large": refusal(500, "", "etcdserver: request is too large"),
    "conversion": refusal(500, "InternalError", "conversion webhook for x.io/v1, Kind=W failed: connection refused"),
    "storage": refusal(503, "ServiceUnavailable", "apiserver is shutting down"),
    "timeout": refusal(504, "Timeout", "request did not complete within the requested timeout"),
    "aggregated": api_error(503, b"service unavailable", {}),
    "silent": Unreachable("no answer in time", silent=True),
}


@pytest.mark.parametrize("error", ITS_OWN.values(), ids=ITS_OWN.keys())
async def test_h04_failures_of_single_objects_slow_no_other(error: ClusterError) -> None:
    """Two objects that the API server cannot take, however often they are tried, leave every limit as it is."""
    scene = Scene()
    scene.applier.refusals |= {"shop": error, "settings": error}
    for _ in range(4):
        await scene.sync()
    limits = {lane: scene.healer.concurrency._shares[lane].limit for lane in Lane}
    assert limits == FIRST
    await scene.healer.stop(1.0)


class Time:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_h04_an_hour_of_three_failing_objects_is_no_overload() -> None:
    """Each has a backoff of its own, and others are healed beside them at full width."""
    clock = Time()
    concurrency = Concurrency(clock)
    for number in range(180):
        clock.now += 20.0
        concurrency.failed(f"object-{number % 3}", 0.01)
    assert {lane: concurrency.limit(lane) for lane in Lane} == FIRST


def test_h04_many_objects_that_fail_at_once_are_an_overload() -> None:
    """An API server that is ill seldom says so: its failures have nothing but their number in common."""
    clock = Time()
    concurrency = Concurrency(clock)
    for number in range(20):
        concurrency.failed(f"object-{number}", 0.01)
    assert concurrency.limit(Lane.DRIFT) < CEILING[Lane.DRIFT]


def test_h04_limits_recover_with_time_when_nothing_contradicts() -> None:
    """On a quiet cluster no answer would ever raise them, and the next burst would find one place."""
    clock = Time()
    concurrency = Concurrency(clock)
    for _ in range(6):
        clock.now += 1.0
        concurrency.overloaded(0.01)
    assert concurrency.limit(Lane.DRIFT) == 1
    seen = []
    for _ in range(60):
        wait = concurrency.recovers(Lane.DRIFT)
        clock.now += wait or 1.0
        seen.append(concurrency.limit(Lane.DRIFT))
    assert seen[0] == 2, "the queue is told when there is one place more"
    assert seen[-1] == FIRST[Lane.DRIFT]
    assert concurrency.limit(Lane.SYNC) == FIRST[Lane.SYNC], "more than it began with is earned by good answers"
