"""Knows every object that is ours and that no snapshot declares, from what the reflectors see.

An object gets here in two ways: a watch or LIST shows it, or Git stops declaring it while it is there. No event tells
of the latter, so it is read once. It leaves when it is deleted, loses our label, or is declared again.
"""

from collections.abc import Callable, Iterator

import structlog

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import NOT_FOUND, ApiError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.metadata import Content, ObjectHead
from driftwatch.drift.orphan import Orphan, names_itself, read
from driftwatch.model import GroupKind, ObjectKey, named

log = structlog.get_logger()


class Orphans:
    """The index of orphans. `wake` is called when it has changed; `gone` with each orphan that left it."""

    def __init__(self, declared: Declared, clock: Callable[[], float]) -> None:
        self._declared = declared
        self._clock = clock
        self._found: dict[GroupKind, dict[ObjectKey, Orphan]] = {}
        self._copies: set[ObjectKey] = set()
        self.unread: set[ObjectKey] = set()
        self.kinds_gone: set[GroupKind] = set()
        self.wake: Callable[[], None] = lambda: None
        self.gone: Callable[[ObjectKey, Orphan], None] = lambda _key, _orphan: None

    def of(self, source: str) -> dict[ObjectKey, Orphan]:
        """Every orphan of a source."""
        return {
            key: orphan for found in self._found.values() for key, orphan in found.items() if orphan.source == source
        }

    def has(self, source: str, kind: GroupKind) -> bool:
        """Whether there is an orphan of this source and kind, or may be one."""
        return any(orphan.source == source for orphan in self._found.get(kind, {}).values()) or any(
            key.group_kind == kind for key in self.unread
        )

    def namespaces(self, kind: GroupKind) -> set[str]:
        """Namespaces in which there is an orphan of the kind, or may be one."""
        found = {key.namespace for key in self._found.get(kind, ())}
        return found | {key.namespace for key in self.unread if key.group_kind == kind}

    def all(self) -> Iterator[ObjectKey]:
        """Every orphan, of whatever source."""
        for found in self._found.values():
            yield from found

    def get(self, key: ObjectKey) -> Orphan | None:
        """What is known of an orphan."""
        return self._found.get(key.group_kind, {}).get(key)

    # --- What is seen ---

    def on_seen(self, key: ObjectKey, change: str, head: ObjectHead, content: Content) -> None:
        """An object that Git does not declare was seen."""
        metadata = head.metadata
        if change == "DELETED" or metadata.labels is None or not metadata.labels.source:
            self._copies.discard(key)
            self._remove(key, head.version)
            return
        identity = metadata.annotations.id if metadata.annotations else ""
        if names_itself(key, identity):
            self._take(key, content())
            return
        self._remove(key, head.version)
        if identity and key not in self._copies:
            self._copies.add(key)
            log.info(
                "label of a source on an object that is not its own",
                **named(key),
                source=metadata.labels.source,
                id=identity,
                next="it is left alone",
            )

    def on_listed(self, resource: Resource, seen: set[ObjectKey], version: int) -> None:
        """There are no others of the collection than those seen."""
        for key, orphan in list(self._found.get(resource.group_kind, {}).items()):
            if key not in seen and orphan.version <= version and resource.holds(key.namespace):
                self._remove(key)

    def on_restored(self, resource: Resource) -> None:
        """The cluster's versions went back: a list comes next."""
        for key, orphan in self._found.get(resource.group_kind, {}).items():
            if resource.holds(key.namespace):
                orphan.version = 0

    def on_kind_gone(self, kind: GroupKind) -> None:
        """The kind is not served any more, so there are no objects of it."""
        self.kinds_gone.add(kind)
        for key in list(self._found.get(kind, ())):
            self._remove(key)
        self.wake()

    # --- What Git says ---

    def on_undeclared(self, key: ObjectKey) -> None:
        """Git does not declare an object any more that is there."""
        self.unread.add(key)
        self.wake()

    def on_declared(self, key: ObjectKey) -> None:
        """Git declares the object (again)."""
        self.unread.discard(key)
        self._copies.discard(key)
        self._remove(key)

    async def look(self, key: ObjectKey, resource: Resource, api: ApiClient) -> None:
        """Read an object of which only Git's word is known. Raises `ApiError` or `Unreachable`."""
        try:
            raw = await api.read_metadata(resource, key.namespace, key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            self.unread.discard(key)
            self._remove(key)
            return
        if key in self.unread:  # else Git has declared it in the meantime
            self.unread.discard(key)
            self._take(key, raw)

    def _take(self, key: ObjectKey, raw: bytes) -> None:
        now = read(key, raw, self._clock())
        if now is None or self._declared.mentions(key):
            self._remove(key)
            return
        before = self.get(key)
        if before is not None and before.version > now.version:
            return
        if before is not None and before.uid == now.uid:
            now.since, now.asked = before.since, before.asked
        elif before is not None:
            self._remove(key)
        self._copies.discard(key)
        self._found.setdefault(key.group_kind, {})[key] = now
        self.wake()

    def _remove(self, key: ObjectKey, version: int | None = None) -> None:
        found = self._found.get(key.group_kind, {})
        orphan = found.get(key)
        if orphan is None or (version is not None and version < orphan.version):
            return
        del found[key]
        self.gone(key, orphan)
        self.wake()
