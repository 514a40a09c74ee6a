"""What is kept of one managed object, and what was last seen of it."""

from enum import StrEnum

import msgspec

from driftwatch.drift.metadata import Fingerprint, ObjectHead
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import Mode

DEFAULT_POLICY = Policy()


class Verdict(StrEnum):
    """What an event says of an object."""

    IN_SYNC = "in sync"
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


class Record:
    """What is remembered of one managed object.

    `version` is the newest resourceVersion seen or written, `accepted` the ownership that is in order, `generation`
    with it. `last_applied` is the digest of the manifest that was last applied or found in sync: a difference under
    it is drift, a difference to another one is sync. `policy` is what operators allow. `yields` says that a rule left
    something of the object to others at our last look, `replaced` that we have deleted it because it could not be
    changed back, `reported` that an added field was reported and stays where it is, `differs` that any drift was and
    does: the next write, by whomever, may have mended it. `snooze` is what the live annotation says, and since when.
    `stamp` is the time of our own entry, and `left_at` the version at which the state on disk left the object before a
    restart.
    """

    __slots__ = (
        "accepted",
        "differs",
        "generation",
        "last_applied",
        "left_at",
        "live",
        "policy",
        "replaced",
        "reported",
        "snooze",
        "stamp",
        "terminating",
        "uid",
        "version",
        "written_at",
        "yields",
    )

    def __init__(self) -> None:
        self.version = 0
        self.uid = ""
        self.accepted: Fingerprint | None = None
        self.differs = False
        self.generation = 0
        self.last_applied = ""
        self.left_at = 0
        self.live = False
        self.policy = DEFAULT_POLICY
        self.replaced = False
        self.reported = False
        self.snooze: SnoozeRequest | None = None
        self.stamp = ""
        self.terminating = False
        self.written_at = float("-inf")
        self.yields = False

    @property
    def observed(self) -> bool:
        """Whether we own nothing of the object, so that a change by anybody is suspect."""
        return self.policy.mode is Mode.OBSERVE


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
