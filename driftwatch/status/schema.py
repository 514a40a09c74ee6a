"""The status document: what `GET /api/v1/status` answers. Within v2 keys and values are added, and none is changed.

In a module of its own, so that the command that shows it does not import the daemon.
"""

from typing import Literal

import msgspec

from driftwatch.report.drift_event import JournalField, JournalLine

STATUS_SCHEMA: Literal["driftwatch.io/status/v2"] = "driftwatch.io/status/v2"


class DaemonStatus(msgspec.Struct, frozen=True):
    """The daemon: since when it runs, and what keeps it from being ready."""

    version: str
    started: str
    ready: bool
    missing: list[str]
    cluster: str


class InvalidDocument(msgspec.Struct, frozen=True):
    """A document that cannot be read; its last good version stays in force."""

    file: str
    line: int
    reason: str


class SourceStatus(msgspec.Struct, frozen=True):
    """One source. `commit` is in force since `inForceSince`; Git last answered at `fetched`; `error`: why it fails."""

    name: str
    revision: str
    path: str
    mode: str
    commit: str | None
    inForceSince: str | None  # noqa: N815  keys are camelCase, as Kubernetes' are
    fetched: str | None
    error: str | None
    failingSince: str | None  # noqa: N815
    drifting: int
    invalid: list[InvalidDocument]


class ObjectStatus(msgspec.Struct, frozen=True):
    """An object that is not as Git declares it, or not to be healed.

    `state` is drifting, waiting (the next try is at `retryAt`, or when its namespace or kind is there), failed (the
    API server refuses the manifest), snoozed (until `until`, by `snoozedBy`) or contested (somebody changes it again
    and again, and it is in order now). One that has a `type` drifts as well. `contestedBy` is who changes it again
    and again, whatever its state.
    """

    source: str
    group: str
    kind: str
    namespace: str
    name: str
    state: Literal["drifting", "waiting", "failed", "snoozed", "contested"]
    type: str | None
    manager: str | None
    fields: list[JournalField]
    since: str | None
    error: str | None
    file: str | None
    retryAt: str | None  # noqa: N815
    until: str | None
    snoozedBy: str | None  # noqa: N815
    contestedBy: str | None  # noqa: N815


class AbsentObject(msgspec.Struct, frozen=True):
    """A declared object that driftwatch does not see in the cluster, and the place in Git that declares it.

    `reason` is kind_not_served (at the manifest's version), declared_twice (the manifest of source `owner` is in force
    instead), refused (the API server refuses the manifest), namespace (its namespace is not there), waiting (to be
    applied, or for the next try) or not_healed (its mode is observe, paused or ignore).
    """

    source: str
    group: str
    kind: str
    namespace: str
    name: str
    reason: Literal["kind_not_served", "declared_twice", "refused", "namespace", "waiting", "not_healed"]
    file: str
    owner: str | None


class WatchStatus(msgspec.Struct, frozen=True):
    """The watch of a kind; `error` is why it is down."""

    kind: str
    up: bool
    error: str | None


class Counts(msgspec.Struct, frozen=True):
    """How many objects are managed, and how many of them are in each list; a snoozed one may also drift.

    An absent one may also be in another list, and those of kinds that are not served are not among the managed ones.
    """

    managed: int
    drifting: int
    waiting: int
    failed: int
    snoozed: int
    contested: int
    absent: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The document. 200 objects of each state are listed, and 200 absent ones; `counts` are of all.

    `recent` has the newest last.
    """

    schema: Literal["driftwatch.io/status/v2"]
    time: str
    daemon: DaemonStatus
    counts: Counts
    sources: list[SourceStatus]
    objects: list[ObjectStatus]
    watches: list[WatchStatus]
    recent: list[JournalLine]
    absent: list[AbsentObject]

    @property
    def is_fine(self) -> bool:
        """Whether nothing drifts, fails or is missing."""
        return (
            self.daemon.ready
            and not (self.counts.drifting or self.counts.waiting or self.counts.failed or self.counts.contested)
            and not self.counts.absent
            and all(watch.up for watch in self.watches)
            and not any(source.error or source.invalid for source in self.sources)
        )
