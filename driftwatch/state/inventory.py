"""Stores the kinds of which each source has had objects, so that orphans are found after a restart.

Git decides which kinds are watched. When the last object of a kind leaves Git while the daemon is down, only the
inventory still names that kind. It is stored twice: in the state folder, and in one ConfigMap for each source, in case
the folder is lost. If both are lost, only the orphans of kinds that Git no longer declares are lost.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import orjson
import structlog

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import NOT_FOUND, ApiError, ClusterError
from driftwatch.model import GroupKind
from driftwatch.state.saved_file import SavedFile

LONGEST_SAVE = 2.0  # seconds that a sync waits at most for a new kind to be in the ConfigMap
NEXT_TRY = 60.0  # seconds until the next try after a failed write to the cluster
MOST_LINES = 1000  # lines read of a ConfigMap; no cluster has more kinds

_CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
_NAMESPACE = Resource("", "v1", "Namespace", "namespaces", namespaced=False, prefix="/api/v1")
_LINE = re.compile(
    r"(/api(?:s/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?))?/([a-z0-9]+)) "  # prefix, with group and version
    r"([A-Za-z][A-Za-z0-9]*) ([a-z0-9-]+) (Namespaced|Cluster)"
)
_KEY = "kinds"
_HEADER = "# Kinds of which driftwatch may have objects here. Written by driftwatch.\n"

log = structlog.get_logger()

Kinds = dict[GroupKind, Resource]


class Inventory:
    """The kinds of every source. `namespace` is the namespace of the ConfigMaps, "" for no ConfigMaps."""

    def __init__(self, api: ApiClient, namespace: str) -> None:
        self._api = api
        self._file: SavedFile | None = None
        self._namespace = namespace
        self._kinds: dict[str, Kinds] = {}
        self._written: dict[str, str] = {}  # source → text of its ConfigMap
        self._on_disk = ""
        self._trouble = ""
        self._next_try = 0.0
        self._saving = asyncio.Lock()
        self._last_save: asyncio.Future[None] | None = None

    def keep_in(self, path: Path) -> None:
        """Set the file for the copy on disk."""
        self._file = SavedFile(path)

    def sources(self) -> list[str]:
        """The sources with at least one kind."""
        return list(self._kinds)

    def kinds(self, source: str) -> Kinds:
        """The kinds of a source, each with its API resource."""
        return self._kinds.get(source, {})

    def resources(self, sources: Iterable[str]) -> Kinds:
        """The kinds of all these sources."""
        return {kind: resource for source in sources for kind, resource in self.kinds(source).items()}

    def note(self, source: str, resource: Resource) -> None:
        """Add a kind: the source has objects of it."""
        self._kinds.setdefault(source, {})[resource.group_kind] = resource

    def drop(self, source: str, kind: GroupKind) -> None:
        """Remove a kind: no object of the source is left."""
        self._kinds.get(source, {}).pop(kind, None)

    async def load(self, sources: Iterable[str]) -> None:
        """Read both copies for these sources. Known kinds stay unchanged."""
        stored = self._from_disk()
        for source in sources:
            for resource in (*stored.get(source, ()), *await self._from_cluster(source)):
                self._kinds.setdefault(source, {}).setdefault(resource.group_kind, resource)

    async def save(self, into_cluster: set[str]) -> None:
        """Write the changes, for `into_cluster` also to the ConfigMaps. Failures are logged, never raised."""
        async with self._saving:
            await self._save_to_disk()
            for source in sorted(into_cluster & self._kinds.keys()):
                await self._save_to_cluster(source)

    async def save_soon(self, into_cluster: set[str]) -> None:
        """Write the changes, and wait at most `LONGEST_SAVE` seconds for it."""
        self._last_save = asyncio.ensure_future(self.save(into_cluster))
        await asyncio.wait({self._last_save}, timeout=LONGEST_SAVE)

    # --- In the state folder ---

    def _from_disk(self) -> dict[str, list[Resource]]:
        if self._file is None:
            return {}
        try:
            stored = msgspec.json.decode(self._file.path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(
                "inventory cannot be read; the cluster's copy is used", file=str(self._file.path), error=str(error)
            )
            return {}
        return {source: _parsed(text, str(self._file.path)) for source, text in stored.items()}

    async def _save_to_disk(self) -> None:
        content = orjson.dumps({source: _written(kinds) for source, kinds in sorted(self._kinds.items())}).decode()
        if content == self._on_disk or self._file is None:
            return
        try:
            await self._file.save(content.encode())
        except OSError as error:
            log.warning("inventory cannot be written; it is tried again", file=str(self._file.path), error=str(error))
            return
        self._on_disk = content

    # --- In the cluster ---

    async def _from_cluster(self, source: str) -> list[Resource]:
        if not self._namespace:
            return []
        try:
            raw = await self._api.read(_CONFIG_MAP, self._namespace, config_map(source))
            text = orjson.loads(raw).get("data", {}).get(_KEY, "")
        except ApiError as error:
            if error.code != NOT_FOUND:
                self._say(log.warning, f"{config_map(source)} cannot be read: {error}")
            return []
        except ClusterError as error:
            self._say(log.warning, f"{config_map(source)} cannot be read: {error}")
            return []
        self._written[source] = text
        return _parsed(text, f"ConfigMap {self._namespace}/{config_map(source)}")

    async def _save_to_cluster(self, source: str) -> None:
        text = _written(self._kinds[source])
        if not self._namespace or self._written.get(source) == text or time.monotonic() < self._next_try:
            return
        try:
            if not await self._has_namespace():
                self._say(log.info, f"there is no namespace {self._namespace}")
                return
            await self._api.apply(_CONFIG_MAP, self._namespace, config_map(source), _manifest(source, text))
        except ClusterError as error:
            self._say(log.warning, str(error))
            return
        self._written[source] = text
        self._trouble = ""

    async def _has_namespace(self) -> bool:
        try:
            await self._api.read_head(_NAMESPACE, "", self._namespace)
        except ApiError as error:
            return error.code != NOT_FOUND  # writing may be allowed even if reading the namespace is not
        return True

    def _say(self, say: Callable[..., Any], words: str) -> None:
        self._next_try = time.monotonic() + NEXT_TRY
        if words != self._trouble:
            self._trouble = words
            say(
                "inventory is not in the cluster",
                namespace=self._namespace,
                error=words,
                next="it is kept in the state folder, and tried again; inventory.namespace names another namespace",
            )


def config_map(source: str) -> str:
    """Name of the ConfigMap with a source's kinds."""
    return f"driftwatch-inventory-{source}"


def _manifest(source: str, text: str) -> bytes:
    """The ConfigMap's manifest. It has no source label, so it is no orphan."""
    labels = {"app.kubernetes.io/managed-by": "driftwatch", "app.kubernetes.io/component": "inventory"}
    metadata = {"name": config_map(source), "labels": labels}
    return orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {_KEY: text}})


def _written(kinds: Kinds) -> str:
    lines = [
        f"{each.prefix} {each.kind} {each.plural} {'Namespaced' if each.namespaced else 'Cluster'}\n"
        for _, each in sorted(kinds.items())
    ]
    return _HEADER + "".join(lines)


def _parsed(text: str, where: str) -> list[Resource]:
    """Parse a copy strictly: anybody may have edited it, and its text becomes the path of a request."""
    found = []
    for line in text.splitlines()[:MOST_LINES]:
        if not line.strip() or line.startswith("#"):
            continue
        written = _LINE.fullmatch(line)
        if written is None:
            log.warning("line of the inventory cannot be read; it is passed over", where=where, line=line[:200])
            continue
        prefix, group, version, kind, plural, scope = written.groups()
        found.append(Resource(group or "", version, kind, plural, namespaced=scope == "Namespaced", prefix=prefix))
    return found
