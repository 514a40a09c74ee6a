"""Makes the status of a running daemon, for `GET /api/v1/status` and `driftwatch status`.

The status is made for each request from the state of the other parts. Its size is bounded, because it is made on the
event loop, between two reconciles.
"""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from driftwatch import __version__
from driftwatch.config import Source
from driftwatch.model import GroupKind, ObjectKey
from driftwatch.reconcile.schedule import Schedule
from driftwatch.report.absent import Absent
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, JournalField, journal_line, timestamp
from driftwatch.report.drift_report import GIVEN_UP, Report
from driftwatch.report.object_lookup import ObjectLookup
from driftwatch.report.source_status import SourceStatusStore
from driftwatch.status.schema import (
    STATUS_SCHEMA,
    AbsentObject,
    Counts,
    DaemonStatus,
    InvalidDocument,
    ObjectStatus,
    SourceStatus,
    Status,
    WatchStatus,
)

MOST = 200  # most objects shown in each state; the counts include all


class WatchList(Protocol):
    """The watched kinds."""

    @property
    def kinds(self) -> set[GroupKind]:
        """The watched kinds."""

    def unsynced(self) -> list[GroupKind]:
        """Kinds that are not fully listed."""


class StatusBoard:
    """Makes the status. `now` is the wall clock, in Unix seconds."""

    def __init__(
        self,
        report: Report,
        book: SourceStatusStore,
        subjects: ObjectLookup,
        recent: Iterable[DriftEvent],
        modes: Schedule,
        watches: WatchList,
        missing: Callable[[], list[str]],
        absent: Iterable[Absent],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._report = report
        self._book = book
        self._subjects = subjects
        self._recent = recent
        self._schedule = modes
        self._watches = watches
        self._missing = missing
        self._absent = absent
        self._now = now
        self._started = now()
        self._sources: list[Source] = []
        self._server = ""

    def follow(self, sources: list[Source], server: str) -> None:
        """Set the sources to show, and the cluster's address."""
        self._sources = sources
        self._server = server

    def document(self) -> bytes:
        """The status as JSON."""
        return msgspec.json.encode(self.status())

    def status(self) -> Status:
        """The current status."""
        missing = self._missing()
        objects = self._objects()
        absent = list(self._absent)
        drifting = Counter(opened.drift.source for _, opened in self._report.open.drifts())
        return Status(
            schema=STATUS_SCHEMA,
            time=timestamp(self._now()),
            daemon=DaemonStatus(__version__, timestamp(self._started), not missing, missing, self._server),
            counts=self._counts(objects, drifting.total(), len(absent)),
            sources=[self._source(source, drifting[source.name]) for source in self._sources],
            objects=self._shown(objects),
            watches=self._watch_states(),
            recent=[journal_line(seen) for seen in self._recent],
            absent=[_absent(each) for each in heapq.nsmallest(MOST, absent, key=lambda each: each[:3])],
        )

    def _objects(self) -> dict[ObjectKey, str]:
        """The state of each object that is failed, waiting, drifting, contested or snoozed."""
        states: dict[ObjectKey, str] = {}
        for key, report in self._report.open:
            if report.refusal is not None:
                states[key] = "failed" if report.refusal.outcome in GIVEN_UP else "waiting"
            elif report.drift is not None:
                states[key] = "drifting"
            elif report.contested is not None:
                states[key] = "contested"
        for key in self._subjects.snoozed():
            if self._schedule.snoozed(self._subjects.wish(key)) is not None:
                states[key] = "snoozed"
        return states

    def _counts(self, states: dict[ObjectKey, str], drifting: int, absent: int) -> Counts:
        found = list(states.values())
        return Counts(
            self._subjects.count(),
            drifting,
            found.count("waiting"),
            found.count("failed"),
            found.count("snoozed"),
            sum(1 for _ in self._report.open.contested()),
            absent,
        )

    def _shown(self, states: dict[ObjectKey, str]) -> list[ObjectStatus]:
        """The first `MOST` objects of each state."""
        shown: list[ObjectStatus] = []
        for state in ("failed", "drifting", "contested", "waiting", "snoozed"):
            keys = heapq.nsmallest(MOST, (key for key, its in states.items() if its == state))
            shown += [self._object(key, state) for key in keys]
        return shown

    def _object(self, key: ObjectKey, state: str) -> ObjectStatus:
        report = self._report.open.get(key)
        opened, refusal = report.drift, report.refusal
        drift = opened.drift if opened else None
        since = opened.since if opened else refusal.since if refusal else None
        until = by = None
        if state == "snoozed" and (snooze := self._schedule.snoozed(self._subjects.wish(key))) is not None:
            until = snooze.until
            by = (report.snooze.by if report.snooze else "") or UNKNOWN
        file, line = self._subjects.declared_at(key)
        return ObjectStatus(
            source=drift.source if drift else refusal.source if refusal else self._subjects.source(key),
            group=key.group,
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            state=state,  # type: ignore[arg-type]
            type=str(drift.type) if drift else None,
            manager=(drift.manager or UNKNOWN) if drift else None,
            fields=[JournalField(**msgspec.to_builtins(field)) for field in drift.fields] if drift else [],
            since=timestamp(since) if since else None,
            error=refusal.words if refusal else None,
            file=f"{file}:{line}" if file else None,
            retryAt=timestamp(refusal.retry_at) if refusal and refusal.retry_at else None,
            until=until,
            snoozedBy=by,
            contestedBy=report.contested.manager if report.contested else None,
        )

    def _source(self, source: Source, drifting: int) -> SourceStatus:
        state = self._book.state(source.name)
        return SourceStatus(
            name=source.name,
            revision=source.revision,
            path=source.path,
            mode=str(source.mode),
            commit=state.commit or None,
            inForceSince=_maybe(state.in_force_since),
            fetched=_maybe(state.fetched),
            error=state.error or state.difference or None,
            failingSince=_maybe(state.failing_since or state.differs_since),
            drifting=drifting,
            invalid=[InvalidDocument(each.file, each.line, each.reason) for each in state.invalid[:MOST]],
        )

    def _watch_states(self) -> list[WatchStatus]:
        unsynced = set(self._watches.unsynced())
        trouble = self._report.watch_trouble
        return [
            WatchStatus(
                str(kind),
                kind not in unsynced and kind not in trouble,
                trouble.get(kind) or ("not listed yet" if kind in unsynced else None),
            )
            for kind in sorted(self._watches.kinds, key=str)
        ]


def _absent(each: Absent) -> AbsentObject:
    return AbsentObject(
        source=each.source,
        group=each.key.group,
        kind=each.key.kind,
        namespace=each.key.namespace,
        name=each.key.name,
        reason=each.reason.value,
        file=f"{each.manifest.file}:{each.manifest.line}",
        owner=each.owner or None,
    )


def _maybe(seconds: float) -> str | None:
    return timestamp(seconds) if seconds else None
