"""What one object's refusal may hold up: that object, and nothing else."""

import asyncio
import time
from typing import Self

import orjson
import pytest
from driftwatch.cluster.api import Applied
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, ClusterError, Unreachable, api_error
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, ObjectHead
from driftwatch.manifests.parse import read_file
from driftwatch.metrics.registry import Metrics
from driftwatch.model import GroupKind, Manifest, ObjectKey, Priority
from driftwatch.reconcile.concurrency import CEILING, FIRST, Concurrency
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.reconcile.schedule import Schedule
from driftwatch.report.drift_report import Report

SHOP = ObjectKey("", "Namespace", "", "shop")
SETTINGS = ObjectKey("", "ConfigMap", "shop", "settings")
HOUR = 3600.0


def refusal(code: int, reason: str = "", message: str = "", **details: object) -> ApiError:
    """A Status of failure."""
    body = {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}
    return api_error(code, orjson.dumps(body), {})


class Kinds:
    """Serves every kind."""

    def __init__(self) -> None:
        self.asked = 0

    async def serves(self, _kind, _version):
        self.asked += 1
        return True

    def missing(self, _kind, _version) -> None:
        """Discovery is looked at again."""

    def resource(self, manifest):
        plural = f"{manifest.kind.lower()}s"
        return Resource("", "v1", manifest.kind, plural, namespaced=bool(manifest.namespace), prefix="/api/v1")

    def expected(self) -> None:
        """Nothing is defined here."""


class ApiClient:
    """Takes everything but what `refusals` has an answer for."""

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
        detector = Detector(declared.states, time.monotonic, Managers())
        self.api = ApiClient()
        self.kinds = Kinds()
        queue = KeyedQueue(declared.states, Concurrency(time.monotonic), time.monotonic)
        self.controller = Controller(
            declared, detector, self.api, self.kinds, Report(Metrics()), Schedule(), queue, time.monotonic
        )

    async def sync(self) -> None:
        """Apply what Git declares in the order of a sync."""
        for keys in ({SHOP}, {SETTINGS}):
            async with asyncio.timeout(5.0):
                await self.controller.reconcile_all(keys)


COMES_BACK_LATER = refusal(429, "TooManyRequests", "webhook: come back later", name="shop", retryAfterSeconds=HOUR)


async def test_h04_a_retry_after_of_an_hour_holds_no_later_commit() -> None:
    """What an object is asked to wait is its own wait: the next commit goes on with all that comes after it."""
    scene = Scene()
    scene.api.refusals["shop"] = COMES_BACK_LATER
    await scene.controller.reconcile_all({SHOP})
    await scene.sync()
    assert scene.api.asked == ["shop", "settings"], "the namespace is asked for once, and nothing waits for it"
    await scene.controller.stop(1.0)


async def test_h04_a_retry_after_of_an_hour_is_kept_to_for_no_longer_than_a_refused_manifest_waits() -> None:
    """A webhook's word keeps drift unhealed for ten minutes at most."""
    scene = Scene()
    scene.api.refusals["shop"] = COMES_BACK_LATER
    await scene.sync()
    wait = scene.controller.queue.wait()
    assert wait is not None
    assert 590.0 < wait <= 600.0 * 1.2
    await scene.controller.stop(1.0)


@pytest.mark.parametrize("reason", ["", "TooManyRequests"])
async def test_h04_a_webhook_that_denies_with_429_holds_nothing_but_its_object(reason: str) -> None:
    """A Status may come without a reason: it is about the object all the same."""
    scene = Scene()
    scene.api.refusals["shop"] = refusal(
        429, reason, 'admission webhook "gate.example.com" denied the request: later', retryAfterSeconds=HOUR
    )
    await scene.sync()
    assert scene.controller.concurrency.pause() == 0.0
    assert scene.api.asked == ["shop", "settings"]
    await scene.controller.stop(1.0)


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
    scene.api.refusals |= {"shop": error, "settings": error}
    for _ in range(4):
        await scene.sync()
    limits = {priority: scene.controller.concurrency._shares[priority].limit for priority in Priority}
    assert limits == FIRST
    await scene.controller.stop(1.0)


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
    assert {priority: concurrency.limit(priority) for priority in Priority} == FIRST


def test_h04_many_objects_that_fail_at_once_are_an_overload() -> None:
    """An API server that is ill seldom says so: its failures have nothing but their number in common."""
    clock = Time()
    concurrency = Concurrency(clock)
    for number in range(20):
        concurrency.failed(f"object-{number}", 0.01)
    assert concurrency.limit(Priority.DRIFT) < CEILING[Priority.DRIFT]


def test_h04_limits_recover_with_time_when_nothing_contradicts() -> None:
    """On a quiet cluster no answer would ever raise them, and the next burst would find one place."""
    clock = Time()
    concurrency = Concurrency(clock)
    for _ in range(6):
        clock.now += 1.0
        concurrency.overloaded(0.01)
    assert concurrency.limit(Priority.DRIFT) == 1
    seen = []
    for _ in range(60):
        wait = concurrency.recovers(Priority.DRIFT)
        clock.now += wait or 1.0
        seen.append(concurrency.limit(Priority.DRIFT))
    assert seen[0] == 2, "the queue is told when there is one place more"
    assert seen[-1] == FIRST[Priority.DRIFT]
    assert concurrency.limit(Priority.SYNC) == FIRST[Priority.SYNC], "more than it began with is earned by good answers"


WIDGET = GroupKind("example.com", "Widget")
SERVED = Resource("example.com", "v1", "Widget", "widgets", namespaced=True, prefix="/apis/example.com/v1")
NOT_THERE = {
    "a proxy's 404": api_error(404, b"404 page not found", {}),
    "a 404 that names nothing": refusal(404, "NotFound", "the server could not find the requested resource"),
    "a terminating definition": refusal(
        405, "MethodNotAllowed", "create not allowed while custom resource definition is terminating"
    ),
}


@pytest.mark.parametrize("error", NOT_THERE.values(), ids=NOT_THERE.keys())
async def test_h04_a_404_of_an_object_whose_kind_is_served_is_its_own_failure(error: ClusterError) -> None:
    """It waits for its own backoff, is parked nowhere, and the rest is applied."""
    scene = Scene()
    scene.api.refusals["shop"] = error
    await scene.sync()
    assert scene.api.asked == ["shop", "settings"]
    assert scene.controller.blocked.counts["kind"] == 0
    assert scene.kinds.asked == 1
    wait = scene.controller.queue.wait()
    assert wait is not None
    assert wait > 0.4
    await scene.controller.stop(1.0)


class Discovery:
    """Serves what `found` says; each look at it is counted, and fails while `trouble` says why."""

    def __init__(self) -> None:
        self.found: dict[GroupKind, Resource] = {WIDGET: SERVED}
        self.looks = 0
        self.looked = asyncio.Event()
        self.trouble = ""

    async def refresh(self) -> bool:
        self.looks += 1
        self.looked.set()
        await asyncio.sleep(0)
        if self.trouble:
            raise ClusterError(self.trouble)
        return False

    def resource(self, group, version, kind):
        found = self.found.get(GroupKind(group, kind))
        return found if found is not None and found.version == version else None


class Tracked:
    """A tracker that runs, and what it has said to be served."""

    def __init__(self) -> None:
        self.discovery = Discovery()
        self.served: list[GroupKind] = []
        self.announced = asyncio.Event()
        self.kinds = RestMapper(self.discovery)

    def _on_served(self, kinds: list[GroupKind]) -> None:
        self.served += kinds
        self.announced.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self.kinds.run(self._on_served))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until_looked(self, times: int) -> None:
        """Wait for so many more looks at discovery."""
        most = self.discovery.looks + times
        async with asyncio.timeout(20.0):
            while self.discovery.looks < most:
                self.discovery.looked.clear()
                await self.discovery.looked.wait()


async def test_h05_a_kind_that_discovery_goes_on_to_serve_is_not_said_to_be_served_again() -> None:
    """However often its path answers 404; each answer is not a look at discovery, either."""
    async with Tracked() as tracked:
        for _ in range(50):
            tracked.kinds.missing(WIDGET, "v1")
            await asyncio.sleep(0.002)
        assert tracked.discovery.looks <= 2
        await tracked.until_looked(1)
        assert tracked.served == []


async def test_h05_a_kind_that_discovery_drops_is_wanted_until_it_is_back() -> None:
    """Discovery may say so some moments after the path is gone."""
    async with Tracked() as tracked:
        tracked.kinds.missing(WIDGET, "v1")
        await tracked.until_looked(1)
        tracked.discovery.found.clear()
        await tracked.until_looked(1)
        assert not await tracked.kinds.serves(WIDGET, "v1")
        assert tracked.served == []
        tracked.discovery.found[WIDGET] = SERVED
        async with asyncio.timeout(20.0):
            await tracked.announced.wait()
        assert tracked.served == [WIDGET]


async def test_h05_a_discovery_that_fails_is_asked_by_a_backoff_and_told_of_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However much is asked of it meanwhile."""
    async with Tracked() as tracked:
        tracked.discovery.trouble = "no discovery document"
        tracked.kinds.want(GroupKind("example.com", "Gadget"), "v1")
        for _ in range(100):
            tracked.kinds.want(GroupKind("example.com", "Gadget"), "v1")
            await asyncio.sleep(0.01)
        assert tracked.discovery.looks <= 2
        await tracked.until_looked(2)
    assert capsys.readouterr().out.count("discovery failed") == 1


async def test_h05_questions_at_the_same_time_share_one_request() -> None:
    """A hundred objects of a kind that is gone are no hundred looks at discovery."""
    async with Tracked() as tracked:
        await asyncio.gather(*(tracked.kinds.serves(WIDGET, "v1") for _ in range(100)))
        assert tracked.discovery.looks <= 2


@pytest.mark.parametrize("name", [".", "..", "a/b", "a%2fb"])
@pytest.mark.parametrize("field", ["name", "namespace"])
def test_h05_a_name_that_no_path_may_hold_is_an_invalid_manifest(name: str, field: str) -> None:
    """It would become another path: it is told of with file and line, and the others of the file are used."""
    bad = {"name": "a", "namespace": "shop"} | {field: name}
    documents = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": each} for each in (bad, {"name": "good"})]
    data = b"\n---\n".join(map(orjson.dumps, documents))
    parsed = read_file("bad.yaml", data, "apps", "default")
    assert [manifest.name for manifest in parsed.manifests] == ["good"]
    [invalid] = parsed.invalid
    assert (invalid.file, invalid.line) == ("bad.yaml", 1)
    assert f"metadata.{field}" in invalid.reason
