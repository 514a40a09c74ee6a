"""The ownership detector beside the API server: both judge the same object after the same events."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import orjson
import yaml
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ApiError
from driftwatch.cluster.session import Session
from driftwatch.drift.additions import additions, take_over
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import ObjectHead, WatchEvent, decode_event, object_of
from driftwatch.drift.object_state import Verdict
from driftwatch.manifests.parse import read_file
from driftwatch.model import Manifest as Declared
from driftwatch.model import ObjectKey

from tests.property import oracle
from tests.property.edits import Edit, describe, perform
from tests.support.live import Live
from tests.support.states import states_of
from tests.support.strategies import KindOf, Manifest

SOURCE = "shop"
MANAGERS = Managers()
PATIENCE = 10.0  # seconds for an event to arrive
TLS_CLOSES = 0.25  # seconds; a closed session's connections say goodbye after `close` has returned
TRIES = 5  # an object may be written by a controller while it is judged
NOT_COMPARED = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


class Judged(NamedTuple):
    """What an object is judged to be: by the detector, and by the API server."""

    verdict: Verdict | None
    changes: bool
    added: bool
    owners: bool
    entries: list[Any]

    @property
    def drifted(self) -> bool:
        """Whether there is anything to mend: a value, a field too many, or who owns what."""
        return self.changes or self.added or self.owners


class Bench:
    """Objects in a namespace, applied as the daemon would, with a detector that sees the watch of their kinds."""

    def __init__(self, session: Session, live: Live, kinds: list[KindOf], manifests: list[Manifest]) -> None:
        self._live = live
        self._api = ApiClient(session)
        self._session = session
        self._discovery = Discovery(session)
        self._kinds, self._manifests = kinds, manifests
        declared = read_file("all.yaml", yaml.safe_dump_all(manifests).encode(), SOURCE, "default").manifests
        self._declared: list[Declared] = declared
        self._keys = [ObjectKey(one.group, one.kind, one.namespace, one.name) for one in declared]
        by_key = dict(zip(self._keys, declared, strict=True))
        self._detector = Detector(states_of(by_key), time.monotonic, MANAGERS)
        self._events: dict[ObjectKey, list[tuple[WatchEvent, bytes]]] = {key: [] for key in self._keys}
        self._seen: Counter[ObjectKey] = Counter()
        self._arrived = asyncio.Event()
        self.tally: Counter[str] = Counter()
        self._history: list[str] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Apply everything and watch it."""
        await self._discovery.refresh()
        tasks = []
        for key, declared in zip(self._keys, self._declared, strict=True):
            code, found = self._live.request("GET", self._collection(key, declared))
            assert code == 200, found
            tasks.append(asyncio.create_task(self._watch(key, declared, found["metadata"]["resourceVersion"])))
        try:
            for target in range(len(self._keys)):
                await self._apply(target)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _resource(self, declared: Declared) -> Resource:
        resource = self._discovery.resource(declared.group, declared.version, declared.kind)
        assert resource is not None
        return resource

    def _collection(self, key: ObjectKey, declared: Declared) -> str:
        return self._resource(declared).path(key.namespace, "x").rpartition("/")[0]

    async def _watch(self, key: ObjectKey, declared: Declared, version: str) -> None:
        query = urlencode({"watch": "true", "resourceVersion": version, "labelSelector": "driftwatch.io/source"})
        accept = "application/json"
        if key.kind == "Secret":  # as the daemon does
            accept = f"{accept};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        url = self._session.url(self._collection(key, declared), query)
        rest = b""
        async with self._session.stream(url, accept=accept, read_timeout=60.0) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = decode_event(line)
                    self._events[key].append((event, line))
                    self._seen[key] = max(self._seen[key], event.object.version)
                    self._arrived.set()

    async def _apply(self, target: int) -> ObjectHead:
        """Apply as the daemon does, and take out what people added."""
        key, declared = self._keys[target], self._declared[target]
        resource = self._resource(declared)
        head = (await self._api.apply(resource, key.namespace, key.name, declared.body)).head
        for _ in range(TRIES):
            if not (added := additions(head.metadata, MANAGERS)):
                break
            version, entries = head.metadata.resourceVersion, take_over(head.metadata, added)
            with contextlib.suppress(ApiError):  # a controller wrote in between
                await self._api.set_managed_fields(resource, key.namespace, key.name, version, entries)
            head = (await self._api.apply(resource, key.namespace, key.name, declared.body)).head
        self._detector.accept(key, head, declared.digest)
        return head

    async def tamper(self, edit: Edit, *, heal: bool) -> None:
        """Do an edit, and hear both judges; heal then, or leave it as it is."""
        key = self._keys[edit.target]
        before = self._detector.states.of(key).version
        done = await asyncio.to_thread(
            perform, self._live, self._kinds[edit.target], self._manifests[edit.target], edit
        )
        self._history.append(f"{describe(edit, self._manifests[edit.target])} ({done.code})")
        judged = await self._judge(edit.target, before)
        self._check(edit.target, judged)
        if heal or judged.verdict is Verdict.SUSPECT:
            head = await self._apply(edit.target)
            self._history.append("applied")
            if not judged.drifted:
                after = [orjson.loads(msgspec.json.encode(entry)) for entry in head.metadata.managedFields]
                wrote = _entries({"metadata": {"managedFields": after}}) != judged.entries
                assert not wrote, self._evidence("an apply that changes nothing wrote", edit.target)

    async def _judge(self, target: int, before: int) -> Judged:
        key, declared, verdict = self._keys[target], self._declared[target], None
        for _ in range(TRIES):
            live = await asyncio.to_thread(self._live.get, self._manifests[target])
            if live is None or "driftwatch.io/source" not in live["metadata"].get("labels", {}):
                await self._await_deletion(key)
            elif int(live["metadata"]["resourceVersion"]) > before:
                await self._await_version(key, int(live["metadata"]["resourceVersion"]))
            verdict = self._feed(key) or verdict
            resource = self._resource(declared)
            would_be = orjson.loads(await self._api.dry_run(resource, key.namespace, key.name, declared.body))
            again = await asyncio.to_thread(self._live.get, self._manifests[target])
            if _version(again) == _version(live):
                changes = live is None or _compared(would_be) != _compared(live)
                added = live is not None and bool(oracle.undeclared(self._manifests[target], live))
                owners = live is None or _owners(would_be) != _owners(live)
                return Judged(verdict, changes, added, owners, _entries(live))
        raise AssertionError(self._evidence("never quiet", target))

    def _feed(self, key: ObjectKey) -> Verdict | None:
        """Show the detector what the watch brought; what it says of the last of it that is news."""
        verdict = None
        for event, line in self._events[key]:
            found = self._detector.on_event(key, event.type, event.object, partial(object_of, line))
            self.tally[f"events {found}"] += 1
            if found is not Verdict.STALE:
                verdict = found
        self._events[key].clear()
        return verdict

    def _check(self, target: int, judged: Judged) -> None:
        if judged.verdict is None:
            return
        self.tally["judged"] += 1
        observation = self._evidence(f"{judged}", target)
        match judged.verdict:
            case Verdict.IN_SYNC:
                assert not judged.changes, f"missed drift\n{observation}"
                assert not judged.added, f"missed addition\n{observation}"
            case Verdict.ADDED:
                assert judged.added, f"nothing was added\n{observation}"
                assert not judged.changes, f"missed drift beside an addition\n{observation}"
            case Verdict.DELETED:
                assert judged.changes, f"nothing was deleted\n{observation}"
            case _:
                self.tally["suspected"] += 1
                self.tally["suspected falsely"] += not judged.drifted

    async def _await_version(self, key: ObjectKey, version: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self._seen[key] < version:
                self._arrived.clear()
                await self._arrived.wait()

    async def _await_deletion(self, key: ObjectKey) -> None:
        async with asyncio.timeout(PATIENCE):
            while self._detector.states.of(key).live and not any(e.type == "DELETED" for e, _ in self._events[key]):
                self._arrived.clear()
                await self._arrived.wait()

    def _evidence(self, what: str, target: int) -> str:
        live = self._live.get(self._manifests[target])
        return "\n".join([what, f"Git: {self._declared[target].body.decode()}", f"live: {live}", *self._history[-15:]])


def _version(live: dict[str, Any] | None) -> int:
    return int(live["metadata"]["resourceVersion"]) if live else 0


def _entries(live: dict[str, Any] | None) -> list[Any]:
    """Who wrote what and when, but for status, which controllers write all the time."""
    entries = live["metadata"].get("managedFields", []) if live else []
    return [
        [entry.get(name, "") for name in ("manager", "operation", "subresource", "time", "fieldsV1")]
        for entry in entries
        if entry.get("subresource") != "status"
    ]


def _owners(found: dict[str, Any]) -> list[dict[str, Any]]:
    entries = found["metadata"].get("managedFields", [])
    return [{name: value for name, value in entry.items() if name != "time"} for entry in entries]


def _compared(found: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in found["metadata"].items() if name not in NOT_COMPARED}
    return {**{name: value for name, value in found.items() if name != "status"}, "metadata": metadata}


async def play(
    kubeconfig: Path, live: Live, kinds: list[KindOf], manifests: list[Manifest], story: list[tuple[Edit, bool]]
) -> Counter[str]:
    """Do all edits of a story, each with whether it is healed at once."""
    session = await Session.open(str(kubeconfig))
    try:
        bench = Bench(session, live, kinds, manifests)
        async with bench.watching():
            for edit, heal in story:
                await bench.tamper(edit, heal=heal)
        return bench.tally
    finally:
        await session.close()
        await asyncio.sleep(TLS_CLOSES)
