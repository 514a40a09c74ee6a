"""Why a watch ended is counted, and when it last brought something is known.

The session is a fake here: silence, garbage and 410 cannot be had from a real API server on demand.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from driftwatch.cluster import reflector
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, Status, Unreachable
from driftwatch.cluster.reflector import Reflector, WatchEndReason
from driftwatch.cluster.session import Response

MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
BOOKMARK = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7"}}}\n'
EVENT = b'{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"b","resourceVersion":"8"}}}\n'
GONE = b'{"type":"ERROR","object":{"code":410,"message":"too old"}}\n'


class Session:
    """Gives one watch what it is told to, and nothing to the next; it sends no initial events."""

    def __init__(self, lines: list[bytes], error: Exception | None) -> None:
        self.lines, self.error, self.watches = lines, error, 0
        self.done = asyncio.Event()

    def url(self, path, query=""):
        return f"{path}?{query}"

    async def request(self, *_arguments, **_named):
        version = b"9" if self.watches else b"5"
        return Response(200, b'{"metadata":{"resourceVersion":"%s"},"items":[]}' % version, {})

    @asynccontextmanager
    async def stream(self, url, **_named):
        if "sendInitialEvents" in url:
            raise ApiError(422, Status(422, "Invalid", "the WatchList feature gate is off"))
        self.watches += 1
        if self.watches > 1:
            self.done.set()
            await asyncio.Event().wait()

        async def chunks():
            for line in self.lines:
                yield line
            if self.error is not None:
                raise self.error

        yield chunks()


class Listener:
    """Takes no notice."""

    def __getattr__(self, _name):
        return lambda *_arguments, **_named: None


@pytest.mark.parametrize(
    ("lines", "error", "ending"),
    [
        ([BOOKMARK, EVENT], None, WatchEndReason.ENDED),
        ([GONE], None, WatchEndReason.GONE),
        ([b"{half a li\n"], None, WatchEndReason.UNREADABLE),
        ([], Unreachable("no answer in time", silent=True), WatchEndReason.SILENT),
        ([], Unreachable("connection reset"), WatchEndReason.UNREACHABLE),
        ([], ApiError(403, Status(403, "Forbidden", "no")), WatchEndReason.REFUSED),
        ([], ApiError(410, Status(410, "Expired", "too old")), WatchEndReason.GONE),
        ([], RuntimeError("a mistake of ours"), WatchEndReason.DEFECT),
    ],
)
async def test_f01_a_watch_that_ends_is_counted_by_why(monkeypatch, lines, error, ending):
    """Operators see from the metric whether it is the network, a permission or the API server's cache."""
    monkeypatch.setattr(reflector, "BACKOFF", (0.01, 0.01))
    session = Session(lines, error)
    watch = Reflector(session, MAPS, Listener())
    task = asyncio.ensure_future(watch.run())
    async with asyncio.timeout(20):
        await session.done.wait()
    task.cancel()
    assert watch.endings == {ending: 1}
    assert bool(watch.last_bookmark) == bool(watch.last_event) == (EVENT in lines)


class Refusing(Session):
    """Refuses the first watch, or ends every one at once; tells when each was asked for."""

    def __init__(self, error: ApiError | None) -> None:
        super().__init__([], error)
        self.asked: list[float] = []

    @asynccontextmanager
    async def stream(self, url, **_named):
        if "sendInitialEvents" in url:
            raise ApiError(422, Status(422, "Invalid", "the WatchList feature gate is off"))
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)  # as whatever comes over a network lets others go on
        if len(self.asked) == 2:
            self.done.set()
        if self.error is not None:
            raise self.error

        async def chunks():
            for line in self.lines:
                yield line

        yield chunks()


async def test_f01_retry_after_is_obeyed(monkeypatch):
    """A watch that is refused with Retry-After is not opened again before that, however short the backoff is."""
    monkeypatch.setattr(reflector, "BACKOFF", (0.0, 0.0))
    session = Refusing(ApiError(429, Status(429, "TooManyRequests", "later"), retry_after=0.3))
    task = asyncio.ensure_future(Reflector(session, MAPS, Listener()).run())
    async with asyncio.timeout(20):
        await session.done.wait()
    task.cancel()
    assert session.asked[1] - session.asked[0] >= 0.3


async def test_f01_watches_that_end_at_once_are_no_hot_loop(monkeypatch):
    """A clean end is resumed at once; where one follows the other, the backoff is waited for."""
    monkeypatch.setattr(reflector, "BACKOFF", (10.0, 10.0))
    session = Refusing(None)
    task = asyncio.ensure_future(Reflector(session, MAPS, Listener()).run())
    async with asyncio.timeout(20):
        await session.done.wait()
    await asyncio.sleep(0.2)
    task.cancel()
    assert len(session.asked) == 2


class Away(Session):
    """Its first watch is cut, then the API server is away for some tries."""

    def __init__(self, away: int) -> None:
        super().__init__([BOOKMARK], Unreachable("connection reset"))
        self.away = away

    async def request(self, *_arguments, **_named):
        if self.watches and self.away:
            self.away -= 1
            raise Unreachable("connection refused")
        return await super().request()


@pytest.mark.parametrize(("away", "lists"), [(0, 1), (1, 2)])
async def test_f02_after_an_outage_everything_is_listed_anew(monkeypatch, away, lists):
    """Etcd may have been restored meanwhile, and versions have caught up; a mere cut is resumed."""
    monkeypatch.setattr(reflector, "BACKOFF", (0.01, 0.01))
    session = Away(away)
    watch = Reflector(session, MAPS, Listener())
    listed = []
    monkeypatch.setattr(watch, "_listed", lambda version, real=watch._listed: (listed.append(version), real(version)))
    task = asyncio.ensure_future(watch.run())
    async with asyncio.timeout(20):
        await session.done.wait()
    task.cancel()
    assert len(listed) == lists
