"""What rendering takes from the cluster: its version, what it serves, and the ConfigMaps and Secrets of variables.

An object of variables is followed by a watch of its own, by name. Whatever the watch says, the object is read again:
that needs no state, and survives a stream that is cut. An object that is deleted leaves its last values in force, for
a deletion must not take variables from manifests that are being healed. No value is ever logged.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.errors import ClusterError
from driftwatch.cluster.session import Session
from driftwatch.source_spec import ClusterCapabilities, SourceSpec, VariablesFrom

FIRST_PAUSE = 1.0  # seconds before an object is read again after a failure
LONGEST_PAUSE = 30.0
SHORT_WATCH = 1.0  # seconds; a watch that ends sooner counts as a failure, whatever it has brought
WATCH_SECONDS = 300
READ_TIMEOUT = 330.0  # seconds; the server ends the watch before
DISCOVERY_PERIOD = 60.0  # seconds between looks at what is served; an unchanged answer is a 304 of no body

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLURALS = {"ConfigMap": "configmaps", "Secret": "secrets"}

log = structlog.get_logger()


class _Object(msgspec.Struct):
    data: dict[str, str] | None = None


class _Metadata(msgspec.Struct):
    resourceVersion: str = ""  # noqa: N815  the API's name


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[_Object] = []


_decode = msgspec.json.Decoder(_List).decode


class RenderInputsWatch:
    """Follows what the sources take from the cluster, and tells when it changes."""

    def __init__(
        self,
        session: Session,
        discovery: Discovery,
        changed: Callable[[ClusterCapabilities], Awaitable[None]] | None = None,
    ) -> None:
        self._session = session
        self._discovery = discovery
        self._changed = changed
        self._sources: dict[str, tuple[VariablesFrom, ...]] = {}
        self._values: dict[VariablesFrom, dict[str, str]] = {}
        self._trouble: dict[VariablesFrom, str] = {}
        self._tasks: dict[VariablesFrom, asyncio.Task[None]] = {}
        self._version = ""
        self._told = ClusterCapabilities()

    async def read(self, specs: Sequence[SourceSpec]) -> ClusterCapabilities:
        """Read everything once. What cannot be read is told in `missing`."""
        self._sources = {spec.name: spec.render.variables_from for spec in specs}
        await asyncio.gather(self._read_version(), *(self._read(reference) for reference in self._references()))
        self._told = self._now()
        return self._told

    async def run(self) -> None:
        """Follow until cancelled; `read` comes before."""
        try:
            while True:
                for reference in set(self._references()) - set(self._tasks):
                    self._tasks[reference] = asyncio.create_task(self._follow(reference))
                await asyncio.sleep(DISCOVERY_PERIOD)
                with contextlib.suppress(ClusterError):
                    await self._discovery.refresh()
                await self._read_version()
                await self._tell()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def follow(self, specs: Sequence[SourceSpec]) -> ClusterCapabilities:
        """Take other sources in: read what is new, and forget what no source names any more."""
        found = await self.read(specs)
        wanted = set(self._references())
        for kept in (self._values, self._trouble):
            for reference in kept.keys() - wanted:
                del kept[reference]
        for reference in set(self._tasks) - wanted:
            self._tasks.pop(reference).cancel()
        for reference in wanted - set(self._tasks):
            self._tasks[reference] = asyncio.create_task(self._follow(reference))
        return found

    def _references(self) -> Collection[VariablesFrom]:
        return dict.fromkeys(reference for references in self._sources.values() for reference in references)

    async def _read_version(self) -> None:
        with contextlib.suppress(ClusterError, ValueError, KeyError):
            answer = await self._session.request("GET", self._session.url("/version"))
            self._version = str(msgspec.json.decode(answer.body)["gitVersion"]).removeprefix("v").partition("+")[0]

    async def _read(self, reference: VariablesFrom) -> str:
        """Read one object; returns the version to watch from, "" when it cannot be read."""
        try:
            answer = await self._session.request("GET", self._url(reference))
            found = _decode(answer.body)
        except (ClusterError, msgspec.MsgspecError) as error:
            if reference not in self._values and reference in self._references():
                self._trouble[reference] = f"{reference}, which varsFrom names, cannot be read: {error}"
            log.warning("variables cannot be read; they are read again", object=str(reference), error=str(error))
            return ""
        if reference not in self._references():
            return ""  # no source names it any more: its values are not kept
        if found.items:
            self._values[reference] = dict(_variables(reference.kind, found.items[0].data or {}))
            self._trouble.pop(reference, None)
        elif reference in self._values:
            log.warning("variables are gone from the cluster; their last values stay in force", object=str(reference))
        elif not reference.optional:
            self._trouble[reference] = (
                f"{reference}, which varsFrom names, is not in the cluster: create it, or set optional"
            )
        return found.metadata.resourceVersion

    async def _follow(self, reference: VariablesFrom) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            version = await self._read(reference)
            await self._tell()
            began = loop.time()
            if version and await self._has_changed(reference, version) and loop.time() - began > SHORT_WATCH:
                failures = 0
                continue
            failures += 1
            await asyncio.sleep(backoff(failures, FIRST_PAUSE, LONGEST_PAUSE))

    async def _has_changed(self, reference: VariablesFrom, version: str) -> bool:
        """Wait until the watch tells of anything, or ends as it is bound to; False when it cannot be had."""
        query = f"&watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
        try:
            url = self._url(reference, query)
            async with self._session.stream(url, accept="application/json", silence=READ_TIMEOUT) as chunks:
                async for _ in chunks:
                    return True
        except ClusterError as error:
            log.debug("the watch of variables ended", object=str(reference), error=str(error))
            return False
        return True

    def _url(self, reference: VariablesFrom, query: str = "") -> Any:
        path = f"/api/v1/namespaces/{quote(reference.namespace, '')}/{_PLURALS[reference.kind]}"
        return self._session.url(path, f"fieldSelector=metadata.name%3D{quote(reference.name, '')}{query}")

    async def _tell(self) -> None:
        now = self._now()
        if now != self._told:
            self._told = now
            if self._changed is not None:
                await self._changed(now)

    def _now(self) -> ClusterCapabilities:
        variables: dict[str, dict[str, str]] = {}
        missing = {}
        for source, references in self._sources.items():
            for reference in references:
                variables.setdefault(source, {}).update(self._values.get(reference, {}))
                if reference in self._trouble:
                    missing[source] = self._trouble[reference]
        return ClusterCapabilities(self._version, tuple(self._discovery.api_versions()), variables, missing)


def _variables(kind: str, data: dict[str, str]) -> Iterable[tuple[str, str]]:
    """The keys that can be names of variables, with their values as text."""
    for name, value in data.items():
        if _NAME.fullmatch(name):
            text = value if kind == "ConfigMap" else base64.b64decode(value).decode("utf-8", "replace")
            yield name, text
