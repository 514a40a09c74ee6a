"""What is done about each refusal of the design's table: the object's next try, what it waits for, who else waits."""

import asyncio
import math
from typing import NamedTuple

import orjson
import pytest
from driftwatch.cluster.errors import ApiError, ClusterError, ImmutableField, Unreachable, api_error
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import ObjectHead
from driftwatch.drift.object_state import Observation, Verdict
from driftwatch.drift.policy import Policy
from driftwatch.model import GroupKind, Manifest, Mode, ObjectKey, Priority
from driftwatch.reconcile.apply_errors import DENIED_FIRST, FAILED_RETRY, ApplyErrorHandler
from driftwatch.reconcile.concurrency import CEILING, Concurrency, Cut
from driftwatch.reconcile.outcome import Outcome
from driftwatch.reconcile.queue import BACKOFF_FIRST, LONGEST_RETRY_AFTER, SPREAD, KeyedQueue

KEY = ObjectKey("", "ConfigMap", "shop", "settings")
SHOP = ObjectKey("", "Namespace", "", "shop")
CONFIG_MAP = GroupKind("", "ConfigMap")
TERMINATING = [{"reason": "NamespaceTerminating", "message": "namespace shop is being terminated", "field": "x"}]
WEBHOOK = 'Internal error occurred: failed calling webhook "gate.example.com": context deadline exceeded'
TYPED_PATCH = "failed to create typed patch object (shop/settings; /v1, Kind=ConfigMap): .spec.y: field not declared"


def status(code: int, reason: str, message: str = "", headers: dict | None = None, **details: object) -> ApiError:
    """What the API server answers about an object."""
    body = {"kind": "Status", "code": code, "message": message, "reason": reason, "details": details}
    return api_error(code, orjson.dumps(body), headers or {})


def plain(code: int, text: str, headers: dict | None = None) -> ApiError:
    """What is answered before anything is known of an object: no Status."""
    return api_error(code, text.encode(), headers or {})


class Seen(NamedTuple):
    """What came of a refusal. `again`: at least and at most so many seconds until the next try."""

    outcome: Outcome
    again: tuple[float, float] | None = None
    waits_for: str = ""
    others_wait: float = 0.0
    limit: int = CEILING[Priority.DRIFT]
    wanted: bool = False  # the kind is looked for
    released: frozenset[ObjectKey] = frozenset()


BACKOFF = (BACKOFF_FIRST / 2, BACKOFF_FIRST)
RETRY = Seen(Outcome.RETRY, BACKOFF)
STRAINED = RETRY._replace(limit=CEILING[Priority.DRIFT] // 2)
FAILED = Seen(Outcome.FAILED, (FAILED_RETRY, FAILED_RETRY))
MISSING = Seen(Outcome.KIND_MISSING, waits_for="kind", wanted=True)


def asked(seconds: float) -> tuple[float, float]:
    return seconds, seconds * (1 + SPREAD)


TABLE = {
    "409": (status(409, "Conflict", "the object has been modified"), RETRY),
    "429 of priority and fairness": (
        plain(429, "Too many requests, please try again later.", {"Retry-After": "3"}),
        STRAINED._replace(again=asked(3), others_wait=3.0),
    ),
    "429 without Retry-After": (plain(429, "Too many requests, please try again later."), STRAINED),
    "429 of one kind's storage": (
        status(429, "TooManyRequests", "storage is (re)initializing", retryAfterSeconds=1),
        RETRY._replace(again=asked(1)),
    ),
    "500 of a bad manifest": (status(500, "", TYPED_PATCH), FAILED),
    "500": (status(500, "InternalError", "etcdserver: request timed out"), RETRY),
    "500 of a webhook": (status(500, "InternalError", WEBHOOK), RETRY),
    "502 of a proxy": (plain(502, "<html>Bad gateway"), RETRY),
    "503 with Retry-After, of a load balancer": (
        plain(503, "<html>busy", {"Retry-After": "900"}),
        STRAINED._replace(again=asked(LONGEST_RETRY_AFTER), others_wait=60.0),
    ),
    "503 of one kind's storage": (
        status(503, "ServiceUnavailable", "apiserver is shutting down", {"Retry-After": "1"}),
        RETRY._replace(again=asked(1)),
    ),
    "503 of a webhook": (
        status(503, "", 'admission webhook "gate.example.com" denied the request: the change freeze is on'),
        RETRY,
    ),
    "504": (status(504, "Timeout", "request did not complete within requested timeout"), RETRY),
    "timeout": (Unreachable("no answer in time", silent=True), RETRY),
    "connection refused": (Unreachable("Cannot connect to host 127.0.0.1:6443"), RETRY),
    "401": (status(401, "Unauthorized", "Unauthorized"), RETRY),
    "400": (status(400, "BadRequest", "the name of the object does not match"), FAILED),
    "413": (plain(413, "Request Entity Too Large"), FAILED),
    "403 by RBAC": (
        status(403, "Forbidden", 'configmaps "settings" is forbidden: User "x" cannot patch resource "configmaps"'),
        FAILED._replace(again=(DENIED_FIRST / 2, DENIED_FIRST)),
    ),
    "403 of a webhook": (status(403, "Forbidden", 'admission webhook "gate" denied the request: no'), FAILED),
    "403 by a quota": (status(403, "Forbidden", "exceeded quota: narrow"), RETRY),
    "403 of a terminating namespace": (
        status(403, "Forbidden", "being terminated", causes=TERMINATING),
        Seen(Outcome.NAMESPACE_TERMINATING, waits_for="namespace"),
    ),
    "404 of the namespace": (
        status(404, "NotFound", 'namespaces "shop" not found', kind="namespaces", name="shop"),
        Seen(Outcome.NAMESPACE_MISSING, waits_for="namespace", released=frozenset({SHOP})),
    ),
    "404 of the kind": (plain(404, "404 page not found"), MISSING),
    "403 of a terminating definition": (
        status(403, "Forbidden", "create not allowed while custom resource definition is terminating"),
        MISSING,
    ),
    "404 of the object, which went between two requests": (
        status(404, "NotFound", 'configmaps "settings" not found', kind="configmaps", name="settings"),
        RETRY,
    ),
    "422": (status(422, "Invalid", "spec.ports[0].port: Invalid value"), FAILED),
    "422 of an immutable field": (
        ImmutableField(status(422, "Invalid", "field is immutable")),
        FAILED._replace(outcome=Outcome.IMMUTABLE),
    ),
}


class Reporter:
    """Notes what is said."""

    def __init__(self) -> None:
        self.refusals: list[tuple[Outcome, float | None]] = []
        self.drifts: list[ObjectKey] = []

    def refused(self, _key, _claim, outcome, _error, retry):
        self.refusals.append((outcome, retry))

    def drifted(self, drift):
        self.drifts.append(drift.key)


class Kinds:
    """Notes what is looked for; serves nothing."""

    def __init__(self) -> None:
        self.wanted: list[GroupKind] = []

    def missing(self, kind, _version):
        self.wanted.append(kind)

    def preferred(self, _kind):
        return None

    def served(self, _kind):
        return ["v2"]


class Scene:
    """One ConfigMap of a namespace that Git declares as well, unless told otherwise; the key is out."""

    def __init__(self, *, namespace_too: bool = True, key: ObjectKey = KEY) -> None:
        self.now = 100.0
        names = [KEY, SHOP] if namespace_too else [KEY]
        manifests = [
            Manifest(one.group, "v1", one.kind, one.namespace, one.name, b"{}", "abc", "a.yaml", 1) for one in names
        ]
        self.declared = Declared(["apps"], lambda kind: kind == CONFIG_MAP)
        self.declared.replace("apps", manifests)
        self.detector = Detector(self.declared.states, self.clock, Managers())
        self.detector.states.of(KEY).last_applied = "abc"
        self.concurrency = Concurrency(self.clock)
        self.queue = KeyedQueue(self.declared.states, self.concurrency, self.clock)
        self.reporter, self.kinds = Reporter(), Kinds()
        self.released: set[ObjectKey] = set()
        self.refusals = ApplyErrorHandler(
            self.declared,
            self.detector,
            None,
            self.kinds,
            self.reporter,
            self.queue,
            self.released.update,
        )
        self.key = key
        self.queue.add(key, Priority.SYNC)
        assert self.queue.take() == key

    def clock(self) -> float:
        return self.now

    def refuse(self, error: ClusterError, observation: Observation | None = None) -> Seen:
        declaration = self.declared.get(self.key) or self.declared.get(KEY)
        self.refusals.on_refusal(self.key, declaration, observation, error, 0.01)
        self.queue.done(self.key)
        [(outcome, _)] = self.reporter.refusals
        parked = [what for what, count in self.refusals.blocked.counts.items() if count]
        return Seen(
            outcome,
            self._again(),
            "".join(parked),
            self.concurrency.pause(),
            self.concurrency.limit(Priority.DRIFT),
            wanted=bool(self.kinds.wanted),
            released=frozenset(self.released),
        )

    def _again(self) -> tuple[float, float] | None:
        delay = self.declared.states.of(self.key).delay
        return None if delay is None else (delay.due - self.now, delay.due - self.now)


@pytest.mark.parametrize(("error", "expected"), TABLE.values(), ids=TABLE.keys())
async def test_each_refusal_has_its_own_handling(error: ClusterError, expected: Seen) -> None:
    """Each line of the design's table: what is said of it, when it is tried again, and what waits meanwhile."""
    scene = Scene()
    seen = scene.refuse(error)
    assert seen._replace(again=None) == expected._replace(again=None)
    assert (seen.again is None) == (expected.again is None)
    if seen.again and expected.again:
        low, high = expected.again
        assert low - 1e-9 <= seen.again[0] <= high + 1e-9
    [(_, told)] = scene.reporter.refusals
    assert (told or math.nan) == pytest.approx(seen.again[0] if seen.again else math.nan, nan_ok=True)


@pytest.mark.parametrize("name", [name for name, (_, seen) in TABLE.items() if seen.others_wait == 0.0])
async def test_one_refused_object_keeps_no_other_waiting(name: str) -> None:
    """Unless the API server asks for a pause of everything, the next key is handed out at once."""
    scene = Scene()
    scene.refuse(TABLE[name][0])
    other = KEY._replace(name="other")
    scene.queue.add(other, Priority.SYNC)
    assert scene.queue.take() == other


async def test_what_is_denied_is_tried_again_at_first_soon_and_then_as_rarely_as_what_failed() -> None:
    """An API server that has just started denies what is allowed; a right that is missing for long costs little."""
    scene = Scene()
    declaration, error = scene.declared.get(KEY), TABLE["403 by RBAC"][0]
    delays = []
    for _ in range(15):
        scene.refusals.on_refusal(KEY, declaration, None, error, 0.01)
        scene.queue.done(KEY)
        delays.append(scene.reporter.refusals[-1][1])
        scene.now += delays[-1]
        assert scene.queue.take() == KEY
    assert all(low / 2 <= delay <= low for delay, low in zip(delays, (1, 2, 4, 8, 16), strict=False))
    assert all(FAILED_RETRY / 2 <= delay <= FAILED_RETRY for delay in delays[10:])


async def test_a_deletion_that_cannot_be_healed_is_told_as_drift() -> None:
    """Whatever the refusal, the object differs from Git."""
    for error, _ in TABLE.values():
        scene = Scene()
        scene.refuse(error, Observation(Verdict.DELETED, 7, 100.0))
        assert scene.reporter.drifts == [KEY]


async def test_a_refusal_from_before_the_namespace_came_back_is_no_reason_to_park() -> None:
    """The namespace is there by now: no event would release what waited for it."""
    scene = Scene()
    record = scene.detector.states.of(SHOP)
    record.live, record.terminating = True, False
    seen = scene.refuse(TABLE["404 of the namespace"][0])
    assert (seen.outcome, seen.waits_for) == (Outcome.RETRY, "")
    assert seen.again


async def test_a_namespace_that_went_between_two_requests_waits_for_no_namespace() -> None:
    """It has none; it is tried again."""
    scene = Scene(key=SHOP)
    seen = scene.refuse(TABLE["404 of the namespace"][0])
    assert (seen.outcome, seen.waits_for) == (Outcome.RETRY, "")


async def test_a_namespace_of_somebody_else_is_looked_at_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git does not declare it, so no event will come; one look is under way however many objects wait."""
    scene = Scene(namespace_too=False)
    monkeypatch.setattr("driftwatch.reconcile.apply_errors.NAMESPACE_POLL", (0.001, 0.001))
    answers = iter(["Terminating", "gone", "Active"])

    class ApiClient:
        async def read_head(self, _resource, _namespace, name):
            assert name == "shop"
            answer = next(answers)
            if answer == "gone":
                raise status(404, "NotFound", kind="namespaces", name="shop")
            head = ObjectHead()
            head.metadata.deletionTimestamp = "now" if answer == "Terminating" else None
            return head

    scene.refusals._api = ApiClient()
    scene.kinds.preferred = lambda _kind: "namespaces"
    for _ in range(2):
        scene.refusals.on_refusal(KEY, scene.declared.get(KEY), None, TABLE["404 of the namespace"][0], 0.01)
    assert len(scene.refusals._looks) == 1
    async with asyncio.timeout(5.0):
        await asyncio.gather(*scene.refusals._looks.values())
    assert scene.released == {KEY}
    assert next(answers, None) is None
    await asyncio.sleep(0)
    assert not scene.refusals._looks


class Looked:
    """An API server that answers each look at the namespace by the next of these; the last one stays."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.looks = 0

    async def read_head(self, _resource, _namespace, _name):
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return ObjectHead()


NO_NAMESPACE = status(404, "NotFound", kind="namespaces", name="shop")
DENIED_NAMESPACE = status(403, "Forbidden", 'namespaces "shop" is forbidden: User "x" cannot get resource')


def _wait_for_shop(scene: Scene, api: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driftwatch.reconcile.apply_errors.NAMESPACE_POLL", (0.001, 0.001))
    scene.refusals._api = api
    scene.kinds.preferred = lambda _kind: "namespaces"
    scene.refusals.on_refusal(KEY, scene.declared.get(KEY), None, TABLE["404 of the namespace"][0], 0.01)
    scene.released.clear()


async def _until(condition) -> None:
    async with asyncio.timeout(5.0):
        while not condition():  # noqa: ASYNC110  nothing says when
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("mode", list(Mode))
async def test_h03_a_namespace_that_somebody_else_creates_releases_what_waits(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """Whatever is to be done about the namespace itself, and whether or not our own apply of it is refused."""
    scene = Scene()
    scene.detector.states.of(SHOP).policy = Policy(mode=mode)
    _wait_for_shop(scene, Looked(NO_NAMESPACE, "there"), monkeypatch)
    await _until(lambda: KEY in scene.released)
    assert (SHOP in scene.released) is (mode is Mode.HEAL)  # an apply may be allowed where a creation is not
    assert not scene.refusals.blocked.namespaces


async def test_h03_no_failure_ends_the_look_for_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of our own, a silence and an overload are followed by another look."""
    scene = Scene(namespace_too=False)
    mistakes = (ValueError("no JSON"), Unreachable("no answer in time"), plain(503, "busy"), KeyError("metadata"))
    _wait_for_shop(scene, Looked(*mistakes, "there"), monkeypatch)
    await _until(lambda: scene.released == {KEY})


async def test_h03_objects_of_a_namespace_that_we_may_not_read_are_tried_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Again and again, until their namespace is there: no look can tell that it is."""
    scene = Scene()
    _wait_for_shop(scene, Looked(DENIED_NAMESPACE), monkeypatch)
    for _ in range(3):
        await _until(lambda: scene.released == {KEY})
        scene.released.clear()
        scene.refusals.on_refusal(KEY, scene.declared.get(KEY), None, TABLE["404 of the namespace"][0], 0.01)
        scene.released.clear()
    assert len(scene.refusals._looks) == 1
    scene.refusals.blocked.forget(KEY)
    await _until(lambda: not scene.refusals._looks)


async def test_h03_what_is_parked_when_a_look_has_just_ended_has_a_look_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The namespace went again before its objects came: they wait for the next look, and not for ever."""
    scene = Scene()
    api = Looked("there")
    _wait_for_shop(scene, api, monkeypatch)

    def parked_again(keys: set[ObjectKey]) -> None:
        scene.released |= keys
        if KEY in keys and api.looks == 1:
            asyncio.get_running_loop().call_soon(
                scene.refusals.on_refusal, KEY, scene.declared.get(KEY), None, TABLE["404 of the namespace"][0], 0.01
            )

    scene.refusals._release = parked_again
    await _until(lambda: api.looks == 2 and not scene.refusals.blocked.namespaces)


async def test_a_burst_of_refusals_is_one_reason_to_slow_down() -> None:
    """Many that were under way together say the same thing; one that was sent afterwards says it again."""
    scene = Scene()
    error = TABLE["429 of priority and fairness"][0]
    for _ in range(CEILING[Priority.DRIFT]):
        scene.concurrency.overloaded(0.01, error.retry_after)
    assert scene.concurrency.limit(Priority.DRIFT) == CEILING[Priority.DRIFT] // 2
    assert scene.concurrency.cuts[Cut.THROTTLED] == 1
    scene.now += 3.0
    scene.concurrency.overloaded(0.01, error.retry_after)
    assert scene.concurrency.limit(Priority.DRIFT) == CEILING[Priority.DRIFT] // 4
    assert scene.concurrency.pause() == 3.0
