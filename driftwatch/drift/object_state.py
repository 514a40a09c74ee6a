"""What is known of one object, in one value, and the values of all objects, in one dictionary.

Nothing else in the engine keeps anything by object. What only orders objects (the lines and alarms of the queue, the
indexes of what waits or is fought over) holds keys, and is checked against the state when it is used.
"""

from collections.abc import ItemsView, Iterator
from enum import StrEnum
from typing import Protocol

import msgspec

from driftwatch.drift.metadata import Fingerprint, ObjectHead
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import GroupKind, Manifest, ManifestId, Mode, ObjectKey, Priority

DEFAULT_POLICY = Policy()

Place = tuple[str, ManifestId]
"""Where a declaration comes from: its source, and the manifest in it."""


class Declaration(msgspec.Struct, frozen=True, gc=False):
    """A source's declaration of an object."""

    source: str
    manifest: Manifest

    @property
    def place(self) -> Place:
        """Source and manifest."""
        manifest = self.manifest
        return self.source, ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)


class Verdict(StrEnum):
    """What an event says of an object."""

    IN_SYNC = "in_sync"
    STALE = "stale"
    UNMANAGED = "unmanaged"
    DELETED = "deleted"
    TERMINATING = "terminating"
    SUSPECT = "suspect"
    ADDED = "added"
    MENDED = "mended"

    @property
    def needs_work(self) -> bool:
        """Whether the object goes to the healer."""
        return self in (Verdict.DELETED, Verdict.SUSPECT, Verdict.ADDED)


class Observation(msgspec.Struct):
    """What was last seen of an object that is to be worked on, at `version`. `arrived` is a monotonic time in seconds.

    `head` and `raw` are the object as it was found, None for one that is not there. `others_wrote` says that an entry
    of somebody else changed since the object was in order, or that nobody knows.
    """

    verdict: Verdict
    version: int
    arrived: float
    head: ObjectHead | None = None
    raw: bytes | None = None
    others_wrote: bool = True


class Delay(msgspec.Struct):
    """The object comes back into the queue at `due`, in monotonic seconds.

    `not_before` says that no event brings it forward. `alarm` is the number of its alarm in the queue.
    """

    due: float
    priority: Priority
    not_before: bool
    alarm: int


class Failures(msgspec.Struct):
    """Reconciles in a row that failed, with a backoff that begins with `first` seconds and lasts until `due`."""

    count: int
    first: float
    due: float


class Fight(msgspec.Struct):
    """What is known of an object that was healed lately. Times are monotonic, in seconds.

    `rate` is heals a minute, as of `healed_at`. `tokens` is what is left of the heals at full speed. `wait` is the
    time from one heal to the next once they are used up, and `due` when the next heal may begin.
    """

    tokens: float
    healed_at: float
    rate: float = 0.0
    drifted_at: float = -1.0
    wait: float = 0.0
    due: float = 0.0
    opponent: str = ""
    contested: bool = False


class BlockedOn(StrEnum):
    """What an object waits for before it can be applied."""

    NAMESPACE = "namespace"
    KIND = "kind"


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Do not ring."""


class ObjectState:
    """What is known of one object.

    What Git says: `declaration` is the manifest that counts, `contenders` are those of other places that name the same
    object, and `policy` is what operators allow.

    What the API server says: `version` is the newest resourceVersion seen or written. `accepted` is the ownership that
    is in order, and `generation` belongs to it. `last_applied` is the digest of the manifest that was last applied or
    found in sync: a difference to that manifest is drift, a difference to another one is sync. `yields` says that a
    rule left a field to others at our last read, `replaced` that driftwatch deleted the object because it could not be
    changed back, `reported` that an added field was reported and stays, `differs` that drift was reported and stays:
    the next write, by anybody, may have mended it. `snooze` is what the live annotation asks for, and since when.
    `stamp` is the time of our own entry, and `left_at` the version at which the state on disk left the object before a
    restart.

    What is to be done: `observation` is what was last seen of an object that needs work. `unanswered` is the
    observation of an apply whose answer was lost. `queued` and `queued_since` are its place in the queue, `in_flight`
    is the priority of the reconcile that runs. `delay` and `failures` are its backoff, `blocked_on` is what it waits
    for, `fight` is who changes it again and again, `wakeup` is its timer. `unreadable_snooze` is the snooze annotation
    that names no time, as it was reported.
    """

    __slots__ = (
        "accepted",
        "blocked_on",
        "contenders",
        "declaration",
        "delay",
        "differs",
        "failures",
        "fight",
        "generation",
        "in_flight",
        "last_applied",
        "left_at",
        "live",
        "observation",
        "policy",
        "queued",
        "queued_since",
        "replaced",
        "reported",
        "snooze",
        "stamp",
        "terminating",
        "uid",
        "unanswered",
        "unreadable_snooze",
        "version",
        "wakeup",
        "written_at",
        "yields",
    )

    def __init__(self) -> None:
        self.declaration: Declaration | None = None
        self.contenders: dict[Place, Declaration] | None = None
        self.policy = DEFAULT_POLICY

        self.version = 0
        self.uid = ""
        self.accepted: Fingerprint | None = None
        self.differs = False
        self.generation = 0
        self.last_applied = ""
        self.left_at = 0
        self.live = False
        self.replaced = False
        self.reported = False
        self.snooze: SnoozeRequest | None = None
        self.stamp = ""
        self.terminating = False
        self.written_at = float("-inf")
        self.yields = False

        self.observation: Observation | None = None
        self.unanswered: Observation | None = None
        self.queued: Priority | None = None
        self.queued_since = 0.0
        self.in_flight: Priority | None = None
        self.delay: Delay | None = None
        self.failures: Failures | None = None
        self.blocked_on: BlockedOn | None = None
        self.fight: Fight | None = None
        self.wakeup: Cancellable | None = None
        self.unreadable_snooze = ""

    @property
    def observed(self) -> bool:
        """Whether we own nothing of the object, so that a change by anybody is suspect."""
        return self.policy.mode is Mode.OBSERVE

    @property
    def manifest(self) -> Manifest | None:
        """The manifest that counts, None where Git does not declare the object."""
        return self.declaration.manifest if self.declaration is not None else None

    @property
    def has_work(self) -> bool:
        """Whether the queue has it: it waits there, is in flight, or comes back."""
        return self.queued is not None or self.in_flight is not None or self.delay is not None


class ObjectStates:
    """The state of every object that Git declares, and of those that the queue still has. By kind, then by key.

    `changes` counts how often a state came, went, had another manifest applied or another snooze.
    """

    def __init__(self) -> None:
        self._kinds: dict[GroupKind, dict[ObjectKey, ObjectState]] = {}
        self.changes = 0

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __iter__(self) -> Iterator[ObjectKey]:
        for states in self._kinds.values():
            yield from states

    def get(self, key: ObjectKey) -> ObjectState | None:
        """The state of an object, None for one of which nothing is known."""
        states = self._kinds.get(key.group_kind)
        return states.get(key) if states is not None else None

    def of(self, key: ObjectKey) -> ObjectState:
        """The state of an object, made at first use."""
        states = self._kinds.setdefault(key.group_kind, {})
        state = states.get(key)
        if state is None:
            state = states[key] = ObjectState()
            self.changes += 1
        return state

    def items(self) -> Iterator[tuple[ObjectKey, ObjectState]]:
        """Every key with its state."""
        for states in self._kinds.values():
            yield from states.items()

    def kinds(self) -> list[GroupKind]:
        """Every kind of which there is a state."""
        return list(self._kinds)

    def of_kind(self, kind: GroupKind) -> ItemsView[ObjectKey, ObjectState]:
        """Every key of a kind with its state."""
        return self._kinds.get(kind, {}).items()

    def forget(self, key: ObjectKey) -> None:
        """Git does not declare the object any more. Only its place in the queue is kept, if it has one."""
        state = self._pop(key)
        if state is None or not state.has_work:
            return
        left = self.of(key)
        left.queued, left.queued_since, left.in_flight = state.queued, state.queued_since, state.in_flight
        left.delay = state.delay

    def release(self, key: ObjectKey) -> None:
        """Drop the state of an object that nobody declares and that the queue does not have."""
        state = self.get(key)
        if state is not None and state.declaration is None and not state.has_work:
            self._pop(key)

    def _pop(self, key: ObjectKey) -> ObjectState | None:
        states = self._kinds.get(key.group_kind)
        if states is None or key not in states:
            return None
        self.changes += 1
        state = states.pop(key)
        if not states:
            del self._kinds[key.group_kind]
        return state
