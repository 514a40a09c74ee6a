"""Render inputs from the cluster: its version, its served APIs, and the ConfigMaps and Secrets of `varsFrom`.

Each variables object has a watch of its own, by name. After any event, the object is read again. That needs no state
and survives a cut stream. If the object is deleted, its last values stay in use: a deletion must not remove variables
from manifests that are being healed. Values are never logged.
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
SHORT_WATCH = 1.0  # seconds; a watch that ends sooner counts as a failure, even if it brought an event
WATCH_SECONDS = 300
READ_TIMEOUT = 330.0  # seconds; longer than WATCH_SECONDS, after which the server ends the watch
DISCOVERY_PERIOD = 60.0  # seconds between discovery requests; an unchanged answer is a 304 without a body

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
    """Watches the render inputs of the sources and calls `changed` when they change."""

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
        self._errors: dict[VariablesFrom, str] = {}
        self._tasks: dict[VariablesFrom, asyncio.Task[None]] = {}
        self._version = ""
        self._reported = ClusterCapabilities()

    async def read(self, specs: Sequence[SourceSpec]) -> ClusterCapabilities:
        """Read every input once. Sources whose inputs cannot be read are listed in `missing`."""
        self._sources = {spec.name: spec.render.variables_from for spec in specs}
        await asyncio.gather(self._read_version(), *(self._read(reference) for reference in self._references()))
        self._reported = self._now()
        return self._reported

    async def run(self) -> None:
        """Watch until cancelled. Call `read` first."""
        try:
            while True:
                for reference in set(self._references()) - set(self._tasks):
                    self._tasks[reference] = asyncio.create_task(self._follow(reference))
                await asyncio.sleep(DISCOVERY_PERIOD)
                with contextlib.suppress(ClusterError):
                    await self._discovery.refresh()
                await self._read_version()
                await self._report_changes()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def follow(self, specs: Sequence[SourceSpec]) -> ClusterCapabilities:
        """Replace the sources: read new inputs, and stop watching inputs that no source names."""
        found = await self.read(specs)
        wanted = set(self._references())
        for kept in (self._values, self._errors):
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
        """Read one object. Returns the resourceVersion to watch from, "" if it cannot be read."""
        try:
            answer = await self._session.request("GET", self._url(reference))
            found = _decode(answer.body)
        except (ClusterError, msgspec.MsgspecError) as error:
            if reference not in self._values and reference in self._references():
                self._errors[reference] = f"{reference}, which varsFrom names, cannot be read: {error}"
            log.warning("variables cannot be read; they are read again", object=str(reference), error=str(error))
            return ""
        if reference not in self._references():
            return ""  # no source names it any more: its values are not kept
        if found.items:
            self._values[reference] = dict(_variables(reference.kind, found.items[0].data or {}))
            self._errors.pop(reference, None)
        elif reference in self._values:
            log.warning("variables are gone from the cluster; their last values stay in force", object=str(reference))
        elif not reference.optional:
            self._errors[reference] = (
                f"{reference}, which varsFrom names, is not in the cluster: create it, or set optional"
            )
        return found.metadata.resourceVersion

    async def _follow(self, reference: VariablesFrom) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            try:
                version = await self._read(reference)
                await self._report_changes()
                began = loop.time()
                if version and await self._has_changed(reference, version) and loop.time() - began > SHORT_WATCH:
                    failures = 0
                    continue
            except Exception:  # otherwise the task would end, and no later change of the object would be seen
                log.exception("variables failed unexpectedly; they are read again", object=str(reference))
            failures += 1
            await asyncio.sleep(backoff(failures, FIRST_PAUSE, LONGEST_PAUSE))

    async def _has_changed(self, reference: VariablesFrom, version: str) -> bool:
        """Wait for an event or the normal end of the watch. Returns False if the watch failed."""
        query = f"&watch=true&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
        try:
            url = self._url(reference, query)
            async with self._session.stream(url, accept="application/json", read_timeout=READ_TIMEOUT) as chunks:
                async for _ in chunks:
                    return True
        except ClusterError as error:
            log.debug("the watch of variables ended", object=str(reference), error=str(error))
            return False
        return True

    def _url(self, reference: VariablesFrom, query: str = "") -> Any:
        path = f"/api/v1/namespaces/{quote(reference.namespace, '')}/{_PLURALS[reference.kind]}"
        return self._session.url(path, f"fieldSelector=metadata.name%3D{quote(reference.name, '')}{query}")

    async def _report_changes(self) -> None:
        now = self._now()
        if now != self._reported:
            self._reported = now
            if self._changed is not None:
                await self._changed(now)

    def _now(self) -> ClusterCapabilities:
        variables: dict[str, dict[str, str]] = {}
        missing = {}
        for source, references in self._sources.items():
            for reference in references:
                variables.setdefault(source, {}).update(self._values.get(reference, {}))
                if reference in self._errors:
                    missing[source] = self._errors[reference]
        return ClusterCapabilities(self._version, tuple(self._discovery.api_versions()), variables, missing)


def _variables(kind: str, data: dict[str, str]) -> Iterable[tuple[str, str]]:
    """Yield the keys that are valid variable names, with their values as text."""
    for name, value in data.items():
        if _NAME.fullmatch(name):
            text = value if kind == "ConfigMap" else base64.b64decode(value).decode("utf-8", "replace")
            yield name, text
