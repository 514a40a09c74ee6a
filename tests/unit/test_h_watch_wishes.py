"""A request for another try that arrives during a request is kept, not lost.

The session is a fake: only so is a request in flight for as long as a test wants.
"""

import asyncio
from contextlib import asynccontextmanager, suppress

from driftwatch.cluster import reflector, rest_mapper
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.cluster.reflector import Reflector
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.model import GroupKind

WIDGETS = Resource("x.io", "v1", "Widget", "widgets", namespaced=True, prefix="/apis/x.io/v1")
NOT_SERVED = ApiError(404, Status(404, "NotFound", "the server could not find the requested resource"))


class Held:
    """Requests that stay in flight until they are released."""

    def __init__(self):
        self.asked = 0
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()

    async def answer(self):
        self.asked += 1
        self.arrived.set()
        await self.released.wait()

    async def sent(self):
        """Wait until a request is in flight that was sent after the last release."""
        async with asyncio.timeout(5):
            await self.arrived.wait()
        self.arrived.clear()

    def release(self):
        self.released.set()
        self.released = asyncio.Event()


class Session(Held):
    """Answers each request that the kind is not served."""

    def url(self, path, query=""):
        return f"{path}?{query}"

    async def request(self, *_arguments, **_named):
        await self.answer()
        raise NOT_SERVED

    @asynccontextmanager
    async def stream(self, *_arguments, **_named):
        await self.answer()
        raise NOT_SERVED
        yield


class Listener:
    def __getattr__(self, _name):
        return lambda *_arguments, **_named: None


async def ended(task):
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_h12_a_kind_that_comes_back_during_a_request_is_tried_again_at_once(monkeypatch):
    """Where a kind is served again while a watch of it is in flight, the next try does not wait for the backoff."""
    monkeypatch.setattr(reflector, "BACKOFF", (1000.0, 1000.0))
    session = Session()
    watch = Reflector(session, WIDGETS, Listener())
    task = asyncio.ensure_future(watch.run())
    try:
        await session.sent()
        session.release()  # the first failure is tried again at once
        await session.sent()
        watch.retry_now()
        session.release()
        await session.sent()
    finally:
        await ended(task)
    assert session.asked == 3


class Discovery(Held):
    """Serves no kind."""

    async def refresh(self):
        await self.answer()
        return False

    def resource(self, *_arguments):
        return None


async def test_h12_a_kind_that_is_wanted_during_a_look_is_looked_for_at_once(monkeypatch):
    """A kind that Git begins to declare while discovery is asked is in the next question, which comes at once."""
    monkeypatch.setattr(rest_mapper, "PERIOD", 1000.0)
    discovery = Discovery()
    tracker = RestMapper(discovery)
    tracker.want(GroupKind("x.io", "Gadget"), "v1")
    task = asyncio.ensure_future(tracker.run(lambda _kinds: None))
    try:
        await discovery.sent()
        tracker.want(WIDGETS.group_kind, "v1")
        discovery.release()
        await discovery.sent()
    finally:
        await ended(task)
    assert discovery.asked == 2
