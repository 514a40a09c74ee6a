"""No request is made again at once, whatever was answered."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import web
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import Unreadable
from driftwatch.cluster.reflector import Reflector
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.session import Response
from driftwatch.cluster.session import Session as HttpSession
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.metrics.registry import Metrics
from driftwatch.model import Manifest, ObjectKey, Priority
from driftwatch.reconcile.concurrency import CEILING, Concurrency
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.reconcile.schedule import Schedule
from driftwatch.report.drift_report import Report
from driftwatch.source_spec import RenderSpec, SourceSpec, VariablesFrom

MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
INITIAL = (
    b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7",'
    b'"annotations":{"k8s.io/initial-events-end":"true"}}}}\n'
)
EVENT = b'{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"b","resourceVersion":"8"}}}\n'
LIST = b'{"metadata":{"resourceVersion":"9"},"items":[{"data":{"A":"b"}}]}'


class Session:
    """Answers everything with `body`; each watch brings `lines` and ends. Requests are counted."""

    def __init__(self, body: bytes, lines: tuple[bytes, ...] = ()) -> None:
        self.body, self.lines, self.count = body, lines, 0
        self.many = asyncio.Event()

    async def _answer(self) -> None:
        self.count += 1
        if self.count >= 100:
            self.many.set()
        await asyncio.sleep(0)

    def url(self, path, query=""):
        return f"{path}?{query}"

    async def request(self, *_arguments, **_named):
        await self._answer()
        return Response(200, self.body, {})

    @asynccontextmanager
    async def stream(self, url, **_named):
        await self._answer()
        lines = (INITIAL,) if "sendInitialEvents" in url else self.lines

        async def chunks():
            for line in lines:
                yield line

        yield chunks()


class Discovery:
    """Serves nothing."""

    def api_versions(self) -> list[str]:
        return []


class Listener:
    """Takes no notice."""

    def __getattr__(self, _name):
        return lambda *_arguments, **_named: None


async def requests_of(session: Session, work: Coroutine[None, None, None]) -> int:
    """How many requests it makes in half a second, or a hundred: then it makes them as fast as it can."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5), asyncio.TaskGroup() as group:
            task = group.create_task(work)
            await session.many.wait()
            task.cancel()
    return session.count


async def test_h05_a_watch_that_brings_the_same_event_and_ends_is_opened_by_a_backoff() -> None:
    """What it brings is no news: something on the way says it again and again."""
    session = Session(LIST, (EVENT,))
    assert await requests_of(session, Reflector(session, MAPS, Listener()).run()) < 15


@pytest.mark.parametrize("lines", [(), (EVENT,)], ids=["ends", "brings something"])
async def test_h05_variables_are_read_by_a_backoff_while_their_watch_ends_at_once(lines: tuple[bytes, ...]) -> None:
    """A proxy that holds no stream open must not have them read as fast as may be."""
    session = Session(LIST, lines)
    reference = VariablesFrom("ConfigMap", "shop", "variables")
    spec = SourceSpec("apps", "", "main", "", 60.0, 60.0, "", "", render=RenderSpec(variables_from=(reference,)))
    watch = RenderInputsWatch(session, Discovery())
    watch._sources = {"apps": spec.render.variables_from}
    assert await requests_of(session, watch._follow(reference)) < 6


@pytest.mark.parametrize(
    "body", [b"<html>welcome", b"[]", b"", b"\xff", b"{}", b'{"metadata":{"resourceVersion":"x"}}']
)
async def test_h05_an_answer_that_is_no_object_is_an_answer_that_failed(body: bytes) -> None:
    """It is tried again as any other failure, and its words, which may be a Secret's, are not told."""
    api = ApiClient(Session(body))
    with pytest.raises(Unreadable) as caught:
        await api.apply(MAPS, "shop", "a", b"{}")
    assert "welcome" not in str(caught.value)
    with pytest.raises(Unreadable):
        await api.read_head(MAPS, "shop", "a")


class Credentials:
    """Of an API server that asks nobody who they are."""

    ssl, proxy = False, None

    def __init__(self, server: str) -> None:
        self.server = server

    async def headers(self) -> dict[str, str]:
        return {}

    async def renew(self, _headers: dict[str, str]) -> bool:
        return False

    async def close(self) -> None:
        pass


def _status(code: int, **fields: object) -> tuple[int, bytes]:
    return code, orjson.dumps({"kind": "Status", "code": code, "message": f"odd {code}"} | fields)


ODD: dict[str, tuple[int, bytes]] = {
    "200-garbage": (200, b"<html>welcome"),
    "200-no-object": (200, b"{}"),
    "301": (301, b"moved"),
    **{str(code): _status(code, reason="Odd") for code in (400, 401, 403, 405, 409, 410, 413, 415, 418, 422, 429)},
    **{str(code): _status(code, reason="Odd") for code in (500, 501, 502, 503, 504)},
    "404-bare": (404, b"404 page not found"),
    "404-object": _status(404, reason="NotFound", details={"kind": "configmaps", "name": "a"}),
    "404-namespace": _status(404, reason="NotFound", details={"kind": "namespaces", "name": "shop"}),
    "403-terminating": _status(403, reason="Forbidden", details={"causes": [{"reason": "NamespaceTerminating"}]}),
    "405-terminating": _status(405, message="create not allowed while custom resource definition is terminating"),
    "429-an-hour": _status(429, reason="TooManyRequests", details={"retryAfterSeconds": 3600}),
}
GOOD = "good"
SECONDS = 3.0
MOST = 9  # tries that a backoff from 50 ms with its jitter allows in so many seconds


class ApiServer:
    """Answers each write by the object's name, as `ODD` says, and counts them."""

    def __init__(self) -> None:
        self.writes: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        self.writes[name] += 1
        if name in ODD:
            code, body = ODD[name]
            headers = {"Location": request.path} if code == 301 else {}
            return web.Response(status=code, body=body, headers=headers)
        answer = {"metadata": {"name": name, "resourceVersion": str(self.writes[name])}}
        return web.Response(body=orjson.dumps(answer))


@contextlib.asynccontextmanager
async def served(handler: ApiServer):
    """An HTTP server; gives the session to it."""
    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", handler.answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    session = HttpSession(Credentials(f"http://127.0.0.1:{runner.addresses[0][1]}"))
    try:
        yield session
    finally:
        await session.close()
        await runner.cleanup()


class ServedMaps:
    """Serves ConfigMaps."""

    async def refresh(self) -> bool:
        return False

    def resource(self, _group, _version, kind):
        return MAPS if kind == "ConfigMap" else None


async def test_h05_every_odd_answer_costs_an_object_few_requests_and_log_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of them at once, while another object is healed again and again at full speed."""
    names = [GOOD, *ODD]
    manifests = [Manifest("", "v1", "ConfigMap", "shop", name, b"{}", "abc", "a.yaml", 1) for name in names]
    namespace = Manifest("", "v1", "Namespace", "", "shop", b"{}", "abc", "a.yaml", 1)
    declared = Declared(["apps"], lambda kind: kind.kind != "Namespace")
    declared.replace("apps", [*manifests, namespace])
    detector = Detector(declared.states, time.monotonic, Managers())
    detector.states.of(ObjectKey("", "Namespace", "", "shop")).live = True
    keys = {ObjectKey("", "ConfigMap", "shop", name) for name in names}
    good = ObjectKey("", "ConfigMap", "shop", GOOD)
    handler = ApiServer()
    async with served(handler) as session:
        kinds = RestMapper(ServedMaps())
        queue = KeyedQueue(declared.states, Concurrency(time.monotonic), time.monotonic)
        api = ApiClient(session, queue.answered)
        controller = Controller(declared, detector, api, kinds, Report(Metrics()), Schedule(), queue, time.monotonic)
        looking = asyncio.get_running_loop().create_task(
            kinds.run(lambda served: [controller.release_kind(kind) for kind in served])
        )
        async with asyncio.timeout(20.0):
            await controller.reconcile_all(keys)
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            detector.states.of(good).accepted = None
            detector.states.of(good).last_applied = ""
            async with asyncio.timeout(5.0):
                await controller.reconcile_all({good})
            await asyncio.sleep(0.05)
        limit = controller.concurrency.limit(Priority.DRIFT)
        looking.cancel()
        await controller.stop(1.0)
    lines = capsys.readouterr().out.splitlines()
    told = Counter(name for line in lines for name in ODD if f"name={name} " in line)
    assert {name: count for name in ODD if (count := handler.writes[name]) > MOST} == {}, "requests"
    assert {name: count for name in ODD if (count := told[name]) > 2} == {}, "log lines"
    assert all(handler.writes[name] for name in ODD)
    assert handler.writes[GOOD] > 10
    assert limit == CEILING[Priority.DRIFT]
