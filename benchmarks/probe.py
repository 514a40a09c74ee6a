"""The probe: makes drift, and measures with its own watch when the drift begins and when it ends.

A measurement begins and ends with an event in *the probe's watch*. It begins when the object is gone or has the wrong
value. It ends when the object is back or has the right value. A delay of the watch affects both ends. The time of the
probe's own request does not count. The probe is a separate process. It reads commands as JSON lines from standard
input and answers each with one line.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop

from benchmarks import objects
from benchmarks.api import Api, Refused

Sight = tuple[str, str, str]  # kind, namespace, name
Event = tuple[float, str, Sight, str]  # time, event type, object, value of the edited field


DELETERS = 16  # connections that delete at the same time


class Probe:
    """Watches the objects with the label `objects.PROBED`, and counts their events."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._seen: dict[Sight, int] = {}
        self._last = 0.0

    async def watch(self, kind: str, version: str, opened: asyncio.Barrier) -> None:
        """Take the time of each event, then queue it."""
        async for line in self._api.watch(objects.collection(kind), f"{objects.PROBED}=yes", version, opened.wait):
            now = time.monotonic()
            event = orjson.loads(line)
            live = event["object"]
            sight = (kind, live["metadata"]["namespace"], live["metadata"]["name"])
            self._seen[sight] = self._seen.get(sight, 0) + 1
            self._last = now
            self._events.put_nowait((now, event["type"], sight, objects.value_of(live)))

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Run a command from standard input, within its `timeout` in seconds."""
        act = getattr(self, f"do_{command.pop('do')}")
        async with asyncio.timeout(command.pop("timeout")):
            answer: dict[str, Any] = await act(**command)
            return answer

    async def do_delete(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Delete one object. Returns the seconds from its deletion to its creation."""
        self._forget()
        sight = (kind, namespace, name)
        request = self._send("DELETE", objects.path(kind, namespace, name))
        gone = await self._until(sight, lambda change, _value: change == "DELETED")
        back = await self._until(sight, lambda change, _value: change == "ADDED")
        await request
        return {"seconds": back - gone}

    async def do_edit(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """Edit one object. Returns the seconds from the wrong to the right value."""
        self._forget()
        sight, right = (kind, namespace, name), objects.declared_value(kind)
        content_type, patch = objects.edit_of(kind)
        url = objects.path(kind, namespace, name)
        request = self._send("PATCH", url, orjson.dumps(patch), content_type, fieldManager="kubectl-set")
        wrong = await self._until(sight, lambda _change, value: value != right)
        mended = await self._until(sight, lambda _change, value: value == right)
        await request
        return {"seconds": mended - wrong}

    async def do_burst(self, namespace: str, count: int) -> dict[str, Any]:
        """Delete many objects over several connections.

        Returns the seconds from the first deletion to the last creation.
        """
        self._forget()
        names = iter(objects.burst_names(count))
        # Not one DELETE of the collection: the API server would delete with one worker, slower than a controller heals.
        # The row would show the time of the deletion.
        request = asyncio.gather(*(self._delete_each(namespace, names) for _ in range(DELETERS)))
        first, last, all_gone = 0.0, 0.0, 0.0
        gone: set[Sight] = set()
        back: set[Sight] = set()
        while len(back) < count:
            last, change, sight, _ = await self._events.get()
            if sight[1] != namespace:
                continue
            if change == "DELETED":
                first = first or last
                gone.add(sight)
                back.discard(sight)
                all_gone = last
            elif change == "ADDED" and sight in gone:
                back.add(sight)
        await request
        return {"seconds": last - first, "deleting": all_gone - first}

    async def do_await(self, kind: str, namespace: str, name: str, value: str) -> dict[str, Any]:
        """Wait until the watch shows the value. Returns the time on the monotonic clock."""
        return {"at": await self._until((kind, namespace, name), lambda _change, seen: seen == value)}

    async def do_present(self, kind: str, namespace: str, count: int) -> dict[str, Any]:
        """Wait until a namespace has `count` probed objects of a kind."""
        url = self._api.url(objects.collection(kind, namespace), labelSelector=f"{objects.PROBED}=yes")
        while True:
            found = len(orjson.loads(await self._api.request("GET", url))["items"])
            if found >= count:
                return {"found": found}
            await asyncio.sleep(0.2)

    async def do_quiet(self, seconds: float) -> dict[str, Any]:
        """Wait until the watch has shown no event for `seconds`: then the controllers have finished."""
        began = time.monotonic()
        while (pause := max(self._last, began) + seconds - time.monotonic()) > 0:  # noqa: ASYNC110  a pause, not a poll
            await asyncio.sleep(pause)
        self._forget()
        return {}

    async def do_count(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """The number of events of an object in the watch."""
        return {"events": self._seen.get((kind, namespace, name), 0)}

    async def _delete_each(self, namespace: str, names: Iterator[str]) -> None:
        for name in names:
            await self._send("DELETE", objects.path("ConfigMap", namespace, name))

    def _send(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json", **query: str
    ) -> "asyncio.Task[bytes]":
        return asyncio.create_task(self._api.request(method, self._api.url(path, **query), body, content_type))

    def _forget(self) -> None:
        while not self._events.empty():
            self._events.get_nowait()

    async def _until(self, sight: Sight, fits: Callable[[str, str], bool]) -> float:
        while True:
            when, change, seen, value = await self._events.get()
            if seen == sight and fits(change, value):
                return when


async def main(kubeconfig: Path) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Api(kubeconfig, "bench-probe") as api:
        probe = Probe(api)
        versions = {kind: await api.version(objects.collection(kind)) for kind in objects.KINDS}
        opened = asyncio.Barrier(len(objects.KINDS) + 1)
        watches = [asyncio.create_task(probe.watch(kind, versions[kind], opened)) for kind in objects.KINDS]
        await opened.wait()
        print('{"ready": true}', flush=True)
        while line := await reader.readline():
            try:
                answer = await probe.obey(orjson.loads(line))
            except TimeoutError:
                answer = {"error": "not seen in time"}
            except Refused as error:
                answer = {"error": str(error)}
            if ended := [watch for watch in watches if watch.done()]:
                answer = {"error": f"a watch of the probe ended: {ended[0]}"}
            print(orjson.dumps(answer).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
