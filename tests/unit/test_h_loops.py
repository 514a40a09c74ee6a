"""No request is made again at once, whatever was answered."""

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import asynccontextmanager

import pytest
from driftwatch.cluster.apply import Applier
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import Unreadable
from driftwatch.cluster.reflector import Reflector
from driftwatch.cluster.session import Response
from driftwatch.cluster.surroundings import SurroundingsWatch
from driftwatch.model import RenderSpec, SourceSpec, VariablesFrom

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
    watch = SurroundingsWatch(session, Discovery())
    watch._sources = {"apps": spec.render.variables_from}
    assert await requests_of(session, watch._follow(reference)) < 6


@pytest.mark.parametrize(
    "body", [b"<html>welcome", b"[]", b"", b"\xff", b"{}", b'{"metadata":{"resourceVersion":"x"}}']
)
async def test_h05_an_answer_that_is_no_object_is_an_answer_that_failed(body: bytes) -> None:
    """It is tried again as any other failure, and its words, which may be a Secret's, are not told."""
    applier = Applier(Session(body))
    with pytest.raises(Unreadable) as caught:
        await applier.apply(MAPS, "shop", "a", b"{}")
    assert "welcome" not in str(caught.value)
    with pytest.raises(Unreadable):
        await applier.read_head(MAPS, "shop", "a")
