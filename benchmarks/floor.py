"""The floor: an ideal controller. It has every body ready and answers a watch event with one request at once.

It has no Git, no ownership, no retries, no log and no metrics. A controller with a watch cannot be much faster. The
additional time of driftwatch is the price of correctness.
"""

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import orjson
import uvloop
from driftwatch.model import Priority
from driftwatch.reconcile.concurrency import CEILING

from benchmarks import objects
from benchmarks.api import Api

WRITERS = CEILING[Priority.DRIFT]  # most writes in flight, the same as the daemon's


class Floor:
    """Keeps the objects of `objects.contested` in one namespace unchanged."""

    def __init__(self, api: Api, namespace: str, burst: int) -> None:
        self._api = api
        self._namespace = namespace
        self._writers = asyncio.Semaphore(WRITERS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[tuple[str, str]] = set()
        self._ready: dict[tuple[str, str], tuple[bytes, Any, Any]] = {}
        for body in objects.contested(namespace, burst):
            kind, name = body["kind"], body["metadata"]["name"]
            self._ready[kind, name] = (
                orjson.dumps(body),
                api.url(objects.collection(kind, namespace)),
                api.url(objects.path(kind, namespace, name)),
            )

    async def run(self) -> None:
        """Create the objects, write `{"ready": true}` to standard output, then watch until killed."""
        await asyncio.gather(*(self._create(key) for key in self._ready))
        versions = {kind: await self._api.version(objects.collection(kind, self._namespace)) for kind in objects.KINDS}
        opened = asyncio.Barrier(len(objects.KINDS) + 1)
        watches = [asyncio.create_task(self._watch(kind, versions[kind], opened)) for kind in objects.KINDS]
        await opened.wait()
        gc.collect()
        gc.freeze()
        print('{"ready": true}', flush=True)
        await asyncio.gather(*watches)

    async def _watch(self, kind: str, version: str, opened: asyncio.Barrier) -> None:
        path = objects.collection(kind, self._namespace)
        async for line in self._api.watch(path, f"{objects.PROBED}=yes", version, opened.wait):
            event = orjson.loads(line)
            key = (kind, event["object"]["metadata"]["name"])
            if event["type"] == "DELETED":
                self._spawn(self._create(key))
            elif key not in self._busy and objects.value_of(event["object"]) != objects.declared_value(kind):
                self._busy.add(key)  # events of status writes still have the wrong value until the restore is done
                self._spawn(self._restore(key))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _create(self, key: tuple[str, str]) -> None:
        body, collection, _ = self._ready[key]
        async with self._writers:
            await self._api.request("POST", collection, body)

    async def _restore(self, key: tuple[str, str]) -> None:
        body, _, url = self._ready[key]
        try:
            async with self._writers:
                await self._api.request("PATCH", url, body, "application/merge-patch+json")
        finally:
            self._busy.discard(key)


async def main(kubeconfig: Path, namespace: str, burst: int) -> None:
    async with Api(kubeconfig, "bench-floor") as api:
        await Floor(api, namespace, burst).run()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
