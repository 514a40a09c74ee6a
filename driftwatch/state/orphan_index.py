"""The orphans: objects that carry a source's label and that no snapshot declares, one `OrphanState` a key.

A watch or LIST shows an orphan, or Git stops declaring an object that exists. No event announces the latter, so the
object is read once. An orphan leaves the index when it is deleted, loses the label, or is declared again.
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
        """The object is deleted, declared again, or no longer ours."""


class OrphanState(msgspec.Struct, eq=False):
    """All that is known of one key: forgetting it is one `pop`.

    `orphan` is the object as last seen, None before that. `unread`: Git dropped it, and it has not been read since.
    `copy`: it carries a source's label and the id of another object. `retry_at` is in monotonic seconds. `kept` is why
    it stays as last reported, None before; `along` is an object that its deletion would delete.
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
    """The orphans of one source: indexes over the states, so that a round costs what has changed.

    `changed` has those to judge again, `candidates` those that may be pruned, `owners` the namespaces and definitions
    among the prunable ones, `unreleased` the candidates that the deletion limit has not let pass. `namespaces` and
    `kinds` count the candidates. `newest` is when the newest candidate was first seen, in monotonic seconds.
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
        """The orphan may be pruned."""
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
        """The orphan may not be pruned now."""
        if self.candidates.pop(key, None) is not None:
            self.namespaces[key.namespace] -= 1
            self.kinds[key.group_kind] -= 1
        self.unreleased.pop(key, None)

    def release(self) -> int:
        """All candidates have passed the deletion limit. Returns how many of them are new."""
        count = len(self.unreleased)
        for key in self.unreleased:
            self.keys[key].released = True
        self.unreleased.clear()
        return count

    def forget(self, key: ObjectKey) -> None:
        """The orphan is gone."""
        self.exclude(key)
        self.keys.pop(key, None)
        self.changed.pop(key, None)
        self.owners.pop(key, None)


class OrphanIndex:
    """`wake` is called when the index has changed, `listener` with each orphan that left it."""

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
        self._counts: Counter[GroupKind] = Counter()  # of those with an orphan
        self.kinds_gone: dict[GroupKind, Resource] = {}
        """Kinds whose watch was answered with 404, and how they were served."""

    @property
    def unread(self) -> dict[ObjectKey, OrphanState]:
        """Objects that Git dropped and that have not been read since."""
        return self._unread

    def source(self, name: str) -> SourceOrphans:
        """The orphans of a source."""
        found = self._of_source.get(name)
        if found is None:
            found = self._of_source[name] = SourceOrphans()
        return found

    def has(self, source: str, kind: GroupKind) -> bool:
        """Whether there is an orphan of this source and kind, or may be one."""
        return any(
            state.unread or (state.orphan is not None and state.orphan.source == source)
            for state in self._of_kind.get(kind, {}).values()
        )

    def namespaces(self, kind: GroupKind) -> set[str]:
        """Namespaces in which there is an orphan of the kind, or may be one."""
        return {
            key.namespace
            for key, state in self._of_kind.get(kind, {}).items()
            if state.unread or state.orphan is not None
        }

    def kinds(self) -> Iterable[GroupKind]:
        """Kinds of which anything is known."""
        return self._of_kind.keys()

    def in_namespace(self, namespace: str) -> dict[ObjectKey, OrphanState]:
        """Every orphan in the namespace, of any source."""
        return self._in_namespace.get(namespace, {})

    def of_kind(self, kind: GroupKind) -> Iterator[ObjectKey]:
        """Every orphan of the kind, of any source."""
        return (key for key, state in self._of_kind.get(kind, {}).items() if state.orphan is not None)

    def count(self, kind: GroupKind) -> int:
        """How many orphans there are of the kind, of any source."""
        return self._counts[kind]

    def get(self, key: ObjectKey) -> Orphan | None:
        """The orphan as last seen."""
        state = self._states.get(key)
        return state.orphan if state is not None else None

    def state(self, key: ObjectKey) -> OrphanState | None:
        """What is known of the key."""
        return self._states.get(key)

    # --- What is seen ---

    def on_seen(self, key: ObjectKey, change: str, head: ObjectHead, content: Content) -> None:
        """An object that Git does not declare was seen."""
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
        """The collection has no other objects than those seen."""
        for key, state in list(self._of_kind.get(resource.group_kind, {}).items()):
            if key not in seen and resource.holds(key.namespace):
                state.copy = False
                self._remove(key, version)

    def on_restored(self, resource: Resource) -> None:
        """The cluster's resourceVersions went back: a LIST comes next."""
        for key, state in self._of_kind.get(resource.group_kind, {}).items():
            if state.orphan is not None and resource.holds(key.namespace):
                state.orphan.version = 0

    def on_kind_gone(self, resource: Resource) -> None:
        """The kind is not served. Its objects cannot be seen, and may exist: a CRD can stop serving a version."""
        kind = resource.group_kind
        self.kinds_gone[kind] = resource
        for key, state in list(self._of_kind.get(kind, {}).items()):
            state.copy = False
            if state.orphan is not None:
                state.orphan.asked = False  # nobody saw whether it was deleted
            self._remove(key)
        self._wake()

    def on_unwatched(self, kind: GroupKind, namespace: str | None = None) -> None:
        """The kind is not watched any more, or not in this namespace: of copies there nothing is heard."""
        for key, state in list(self._of_kind.get(kind, {}).items()):
            if state.copy and namespace in (None, key.namespace):
                state.copy = False
                self._drop_empty(key, state)

    # --- What Git says ---

    def on_undeclared(self, key: ObjectKey) -> None:
        """Git does not declare the object any more, and it exists."""
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
        if key in self._unread:  # else Git has declared it in the meantime
            self._take(key, raw)
            self.leave_unread(key)

    def leave_unread(self, key: ObjectKey) -> None:
        """The object has been read, or need not or cannot be."""
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
        """Forget the orphan, unless something newer than `version` was seen of it."""
        state = self._states.get(key)
        if state is None:
            return
        orphan = state.orphan
        if orphan is None or (version is not None and version < orphan.version):
            self._drop_empty(key, state)
            return
        self._forget(key, state)
        if state.unread:  # what is to be read is not known to be gone; nothing else of it counts any more
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
    """Take a key out of an index, and its place with the last one."""
    del index[place][key]
    if not index[place]:
        del index[place]
