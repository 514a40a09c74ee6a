"""Indexes the orphans: objects with a source's label that no snapshot declares. One `OrphanState` for each key.

A watch or LIST shows an orphan, or Git stops declaring an existing object. No watch event follows in the second case,
so driftwatch reads the object once. An orphan leaves the index when it is deleted, loses the label, or is declared
again.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import msgspec
import structlog

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import NOT_FOUND, ApiError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.metadata import Content, ObjectHead
from driftwatch.drift.orphan import Orphan, names_itself, read
from driftwatch.model import CRD, NAMESPACE, GroupKind, ObjectKey, named

Place = TypeVar("Place")

log = structlog.get_logger()


class GoneListener(Protocol):
    """Receives the orphans that leave the index."""

    def on_gone(self, key: ObjectKey, orphan: Orphan) -> None:
        """The object is deleted, declared again, or has lost its source label."""


class OrphanState(msgspec.Struct, eq=False):
    """The whole state of one key, so one `pop` removes it.

    `orphan` is the object as last seen, None before. `unread`: Git dropped the object, and it has not been read since.
    `copy`: it has a source's label and the id of another object. `retry_at` is in monotonic seconds. `kept` is the last
    reported reason why it stays, None before the first report. `along` is an object that its deletion would delete.
    """

    orphan: Orphan | None = None
    unread: bool = False
    copy: bool = False
    busy: bool = False
    failures: int = 0
    retry_at: float = 0.0
    released: bool = False
    kept: str | None = None
    along: ObjectKey | None = None


class SourceOrphans:
    """The orphans of one source. Its indexes limit the cost of a round to the orphans that have changed.

    `changed` has the orphans to judge again. `candidates` has those that may be pruned. `owners` has the namespaces and
    CRDs among the prunable ones. `unreleased` has the candidates that have not passed the deletion limit. `namespaces`
    and `kinds` count the candidates. `newest` is when the newest candidate was first seen, in monotonic seconds.
    """

    def __init__(self) -> None:
        self.keys: dict[ObjectKey, OrphanState] = {}
        self.changed: dict[ObjectKey, None] = {}
        self.candidates: dict[ObjectKey, Orphan] = {}
        self.owners: dict[ObjectKey, None] = {}
        self.unreleased: dict[ObjectKey, None] = {}
        self.namespaces: Counter[str] = Counter()
        self.kinds: Counter[GroupKind] = Counter()
        self.newest = 0.0

    def admit(self, key: ObjectKey) -> None:
        """Make the orphan a candidate: it may be pruned."""
        state = self.keys[key]
        orphan = state.orphan
        if orphan is None:
            return
        if key.group_kind in (NAMESPACE, CRD):
            self.owners[key] = None
        if key not in self.candidates:
            self.namespaces[key.namespace] += 1
            self.kinds[key.group_kind] += 1
        self.candidates[key] = orphan
        self.newest = max(self.newest, orphan.since)
        if not state.released:
            self.unreleased[key] = None

    def exclude(self, key: ObjectKey) -> None:
        """Remove the orphan from the candidates: it may not be pruned now."""
        if self.candidates.pop(key, None) is not None:
            self.namespaces[key.namespace] -= 1
            self.kinds[key.group_kind] -= 1
        self.unreleased.pop(key, None)

    def release(self) -> int:
        """Mark all candidates as past the deletion limit. Returns the number of new ones."""
        count = len(self.unreleased)
        for key in self.unreleased:
            self.keys[key].released = True
        self.unreleased.clear()
        return count

    def forget(self, key: ObjectKey) -> None:
        """Remove the orphan."""
        self.exclude(key)
        self.keys.pop(key, None)
        self.changed.pop(key, None)
        self.owners.pop(key, None)


class OrphanIndex:
    """The index of all orphans. `wake` is called after a change, `listener` with each orphan that leaves."""

    def __init__(
        self, declared: Declared, clock: Callable[[], float], wake: Callable[[], None], listener: GoneListener
    ) -> None:
        self._declared = declared
        self._clock = clock
        self._wake = wake
        self._listener = listener
        self._states: dict[ObjectKey, OrphanState] = {}
        self._of_kind: dict[GroupKind, dict[ObjectKey, OrphanState]] = {}  # indexes over `_states`
        self._of_source: dict[str, SourceOrphans] = {}
        self._in_namespace: dict[str, dict[ObjectKey, OrphanState]] = {}
        self._unread: dict[ObjectKey, OrphanState] = {}
        self._counts: Counter[GroupKind] = Counter()  # states with an orphan
        self.kinds_gone: dict[GroupKind, Resource] = {}
        """Kinds whose watch got a 404, with their former API resource."""

    @property
    def unread(self) -> dict[ObjectKey, OrphanState]:
        """Objects that Git dropped and that are not read yet."""
        return self._unread

    def source(self, name: str) -> SourceOrphans:
        """The orphans of a source."""
        found = self._of_source.get(name)
        if found is None:
            found = self._of_source[name] = SourceOrphans()
        return found

    def has(self, source: str, kind: GroupKind) -> bool:
        """Whether this source has an orphan of this kind, or may have one that is not read yet."""
        return any(
            state.unread or (state.orphan is not None and state.orphan.source == source)
            for state in self._of_kind.get(kind, {}).values()
        )

    def namespaces(self, kind: GroupKind) -> set[str]:
        """Namespaces with an orphan of the kind, or with an object that is not read yet."""
        return {
            key.namespace
            for key, state in self._of_kind.get(kind, {}).items()
            if state.unread or state.orphan is not None
        }

    def kinds(self) -> Iterable[GroupKind]:
        """Kinds with at least one state."""
        return self._of_kind.keys()

    def in_namespace(self, namespace: str) -> dict[ObjectKey, OrphanState]:
        """Every orphan in the namespace, of any source."""
        return self._in_namespace.get(namespace, {})

    def of_kind(self, kind: GroupKind) -> Iterator[ObjectKey]:
        """Every orphan of the kind, of any source."""
        return (key for key, state in self._of_kind.get(kind, {}).items() if state.orphan is not None)

    def count(self, kind: GroupKind) -> int:
        """Number of orphans of the kind, of any source."""
        return self._counts[kind]

    def get(self, key: ObjectKey) -> Orphan | None:
        """The orphan as last seen."""
        state = self._states.get(key)
        return state.orphan if state is not None else None

    def state(self, key: ObjectKey) -> OrphanState | None:
        """The state of the key."""
        return self._states.get(key)

    # --- Watches and LISTs ---

    def on_seen(self, key: ObjectKey, change: str, head: ObjectHead, content: Content) -> None:
        """A watch or LIST showed an object that Git does not declare."""
        metadata = head.metadata
        state = self._states.get(key)
        if change == "DELETED" or metadata.labels is None or not metadata.labels.source:
            if state is not None:
                state.copy = False
                self._remove(key, head.version)
            return
        identity = metadata.annotations.id if metadata.annotations else ""
        if names_itself(key, identity):
            self._take(key, content())
            return
        self._remove(key, head.version)
        if identity and not (state := self._ensure(key)).copy:
            state.copy = True
            log.info(
                "label of a source on an object that is not its own",
                **named(key),
                source=metadata.labels.source,
                id=identity,
                next="it is left alone",
            )

    def on_listed(self, resource: Resource, seen: set[ObjectKey], version: int) -> None:
        """A LIST is complete: the collection has only the objects in `seen`."""
        for key, state in list(self._of_kind.get(resource.group_kind, {}).items()):
            if key not in seen and resource.holds(key.namespace):
                state.copy = False
                self._remove(key, version)

    def on_restored(self, resource: Resource) -> None:
        """The cluster's resourceVersions went back. A LIST follows."""
        for key, state in self._of_kind.get(resource.group_kind, {}).items():
            if state.orphan is not None and resource.holds(key.namespace):
                state.orphan.version = 0

    def on_kind_gone(self, resource: Resource) -> None:
        """The kind is not served. Its objects may still exist: a CRD can stop serving a version."""
        kind = resource.group_kind
        self.kinds_gone[kind] = resource
        for key, state in list(self._of_kind.get(kind, {}).items()):
            state.copy = False
            if state.orphan is not None:
                state.orphan.asked = False  # whether it was deleted is unknown
            self._remove(key)
        self._wake()

    def on_unwatched(self, kind: GroupKind, namespace: str | None = None) -> None:
        """The kind is no longer watched, or not in this namespace. Copies there are dropped: no event would do it."""
        for key, state in list(self._of_kind.get(kind, {}).items()):
            if state.copy and namespace in (None, key.namespace):
                state.copy = False
                self._drop_empty(key, state)

    # --- Changes in Git ---

    def on_undeclared(self, key: ObjectKey) -> None:
        """Git no longer declares the object, and the object exists."""
        state = self._ensure(key)
        state.unread = True
        self._unread[key] = state
        self._wake()

    def on_declared(self, key: ObjectKey) -> None:
        """Git declares the object (again)."""
        if (state := self._states.get(key)) is not None:
            state.unread = state.copy = False
            self._remove(key)

    async def look(self, key: ObjectKey, resource: Resource, api: ApiClient) -> None:
        """Read an object that Git dropped. Raises `ApiError` or `Unreachable`."""
        try:
            raw = await api.read_metadata(resource, key.namespace, key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            self.leave_unread(key)
            self._remove(key)
            return
        if key in self._unread:  # otherwise Git declared it during the request
            self._take(key, raw)
            self.leave_unread(key)

    def leave_unread(self, key: ObjectKey) -> None:
        """Remove the object from `unread`: it was read, or it need not or cannot be read."""
        state = self._unread.pop(key, None)
        if state is not None:
            state.unread = False
            self._drop_empty(key, state)

    # --- States and indexes ---

    def _ensure(self, key: ObjectKey) -> OrphanState:
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = OrphanState()
            self._of_kind.setdefault(key.group_kind, {})[key] = state
        return state

    def _take(self, key: ObjectKey, raw: bytes) -> None:
        now = read(key, raw, self._clock())
        if now is None or self._declared.mentions(key):
            self._remove(key)
            return
        before = self.get(key)
        if before is not None and before.version > now.version:
            return
        if before is not None and before.uid != now.uid:
            self._remove(key)
            before = None
        state = self._ensure(key)
        if before is not None:
            now.since, now.asked = before.since, before.asked
            if before.source != now.source:
                self._leave_source(key, before.source)
                state.kept, state.released = None, False
        else:
            self._counts[key.group_kind] += 1
        state.copy = False
        state.orphan = now
        mine = self.source(now.source)
        mine.keys[key] = state
        mine.changed[key] = None
        self._in_namespace.setdefault(key.namespace, {})[key] = state
        self._wake()

    def _remove(self, key: ObjectKey, version: int | None = None) -> None:
        """Remove the orphan, unless a version newer than `version` was seen."""
        state = self._states.get(key)
        if state is None:
            return
        orphan = state.orphan
        if orphan is None or (version is not None and version < orphan.version):
            self._drop_empty(key, state)
            return
        self._forget(key, state)
        if state.unread:  # the object may still exist: keep only the request to read it
            self.on_undeclared(key)
        self._listener.on_gone(key, orphan)
        self._wake()

    def _drop_empty(self, key: ObjectKey, state: OrphanState) -> None:
        if not state.unread and not state.copy and state.orphan is None and self._states.get(key) is state:
            self._forget(key, state)

    def _forget(self, key: ObjectKey, state: OrphanState) -> None:
        del self._states[key]
        _discard(self._of_kind, key.group_kind, key)
        self._unread.pop(key, None)
        if state.orphan is not None:
            self._counts[key.group_kind] -= 1
            self._leave_source(key, state.orphan.source)
            _discard(self._in_namespace, key.namespace, key)

    def _leave_source(self, key: ObjectKey, source: str) -> None:
        mine = self._of_source[source]
        mine.forget(key)
        if not mine.keys:
            del self._of_source[source]


def _discard(index: dict[Place, dict[ObjectKey, OrphanState]], place: Place, key: ObjectKey) -> None:
    """Remove a key from an index, and its place when no key is left there."""
    del index[place][key]
    if not index[place]:
        del index[place]
