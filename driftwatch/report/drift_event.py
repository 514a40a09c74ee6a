"""One event of one object, for Kubernetes Events, journal, notifications and status.

All of them get the same object, so they agree. It has no values of Secrets: `Drift` hides them when it is made, and
quoted values are removed from messages about Secrets.
"""

import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

import msgspec

from driftwatch.drift.annotations import expected
from driftwatch.model import SNOOZE_ANNOTATION, FieldDrift, ObjectKey

UNKNOWN = "unknown"


class EventType(StrEnum):
    """What happened to an object.

    `drifted`: drift was found. `healed`: driftwatch reverted it. `mended`: it ended without driftwatch. `failed`: the
    API server refused the manifest. `snoozed`: a snooze request is active. `unreadable`: a snooze request has no valid
    time. `contested`: a fight over the object began. `calm`: the fight is over.
    """

    DRIFTED = "drifted"
    HEALED = "healed"
    MENDED = "mended"
    FAILED = "failed"
    SNOOZED = "snoozed"
    UNREADABLE = "unreadable"
    CONTESTED = "contested"
    CALM = "calm"


class Severity(StrEnum):
    """How urgent the event is for people on call."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


SEVERITIES = {
    EventType.DRIFTED: Severity.WARNING,
    EventType.HEALED: Severity.INFO,
    EventType.MENDED: Severity.INFO,
    EventType.FAILED: Severity.ERROR,
    EventType.SNOOZED: Severity.INFO,
    EventType.UNREADABLE: Severity.WARNING,
    EventType.CONTESTED: Severity.ERROR,
    EventType.CALM: Severity.INFO,
}


def new_id() -> str:
    """A new id for one drift, valid until the drift is over."""
    return uuid.uuid4().hex


class DriftEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of one object.

    `id` names the drift: its detection and its heal have the same id. `time` and `since` are Unix seconds. `since` is
    when the drift was found. `seconds` is the time from the watch event to the end of the heal, None without a heal.
    `type` is the drift type, "" without drift, for example for a refused apply. `manager` is the field manager, "" if
    it is unknown; for a snooze, who set it. `error` is the API server's message. `until` is the end of a snooze
    (RFC 3339).
    """

    id: str
    what: EventType
    time: float
    since: float
    key: ObjectKey
    source: str
    type: str = ""
    manager: str = ""
    fields: tuple[FieldDrift, ...] = ()
    seconds: float | None = None
    error: str = ""
    until: str = ""
    commit: str = ""
    file: str = ""
    line: int = 0

    @property
    def severity(self) -> Severity:
        """The severity of the event's type."""
        return SEVERITIES[self.what]


class JournalObject(msgspec.Struct, frozen=True):
    """The object. `group` is "" for the core group, `namespace` is "" for cluster-scoped objects."""

    group: str
    kind: str
    namespace: str
    name: str


class JournalField(msgspec.Struct, frozen=True):
    """One drifted field: declared and live value as JSON text, field manager, operation and time of the live value."""

    path: str
    declared: str
    live: str
    manager: str
    operation: str
    subresource: str
    time: str


JOURNAL_SCHEMA: Literal["driftwatch.io/journal/v2"] = "driftwatch.io/journal/v2"


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the journal, the data of a CloudEvent, and an entry of the recent drifts in the status.

    Every key is always present. Within v2 keys may be added. They are never renamed or removed, and their meaning never
    changes.
    """

    schema: Literal["driftwatch.io/journal/v2"]
    id: str
    time: str
    event: Literal["drifted", "healed", "mended", "failed", "snoozed", "unreadable", "contested", "calm"]
    severity: Literal["info", "warning", "error"]
    source: str
    commit: str | None
    file: str | None
    line: int | None
    object: JournalObject
    type: str | None
    manager: str
    fields: list[JournalField]
    since: str
    seconds: float | None
    error: str | None
    until: str | None


def journal_line(seen: DriftEvent) -> JournalLine:
    """The event in the form of journal, notifications and status."""
    return JournalLine(
        schema=JOURNAL_SCHEMA,
        id=seen.id,
        time=timestamp(seen.time),
        event=seen.what.value,
        severity=seen.severity.value,
        source=seen.source,
        commit=seen.commit or None,
        file=seen.file or None,
        line=seen.line or None,
        object=JournalObject(*seen.key),
        type=seen.type or None,
        manager=seen.manager or UNKNOWN,
        fields=[
            JournalField(
                field.path, field.declared, field.live, field.manager, field.operation, field.subresource, field.time
            )
            for field in seen.fields
        ],
        since=timestamp(seen.since),
        seconds=None if seen.seconds is None else round(seen.seconds, 6),
        error=seen.error or None,
        until=seen.until or None,
    )


def timestamp(seconds: float) -> str:
    """Unix seconds as RFC 3339 in UTC with microseconds, like Kubernetes' MicroTime."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def changes(seen: DriftEvent, most: int = 3) -> str:
    """The changed fields as one line for people."""
    said = [f"{field.path}: {field.declared} → {field.live}" for field in seen.fields[:most]]
    if len(seen.fields) > most:
        said.append(f"and {len(seen.fields) - most} more")
    return "; ".join(said)


_DRIFTED = {
    "deleted": "was deleted{by}",
    "modified": "was modified{by}",
    "added": "has fields{by} that Git does not declare",
    "orphaned": "left Git and is still there",
}
_HEALED = {
    "deleted": "was deleted{by} and created again{took}",
    "modified": "was modified{by} and put back{took}",
    "added": "had fields{by} that Git does not declare, removed{took}",
}


def story(seen: DriftEvent, *, timed: bool = True) -> str:
    """The event as a sentence for people; `timed`: with the duration of the heal."""
    by = f" by {seen.manager}" if seen.manager else ""
    took = f" in {spent(seen.seconds or 0.0)}" if timed else ""
    what = f": {changes(seen)}" if seen.fields else ""
    match seen.what:
        case EventType.DRIFTED:
            said = f"{_DRIFTED.get(seen.type, seen.type).format(by=by)}{what}"
        case EventType.HEALED:
            said = f"{_HEALED.get(seen.type, seen.type).format(by=by, took=took)}{what}"
        case EventType.MENDED:
            said = "is as Git declares it again, and nothing had to be healed"
        case EventType.FAILED:
            said = f"cannot be made as Git declares it: {seen.error}"
        case EventType.SNOOZED:
            said = f"is not healed before {seen.until}: snoozed{by}"
        case EventType.UNREADABLE:
            said = f"is not snoozed{by}: {SNOOZE_ANNOTATION} must be {expected(SNOOZE_ANNOTATION)}"
        case EventType.CONTESTED:
            said = f"is changed again and again{by}, and put back each time"
        case EventType.CALM:
            said = "is not changed again and again any more"
    return f"{seen.key} {said}"


def spent(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
