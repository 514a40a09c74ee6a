"""Reports drift and heals: one log line and one event for each, and the metrics."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.annotations import expected
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.explain import HIDDEN
from driftwatch.drift.object_state import Declaration
from driftwatch.metrics.labels import ManagerLabels
from driftwatch.metrics.registry import Metrics
from driftwatch.model import (
    RECREATE_ANNOTATION,
    SECRET,
    SNOOZE_ANNOTATION,
    Drift,
    DriftType,
    GroupKind,
    ObjectKey,
    named,
)
from driftwatch.reconcile.outcome import Outcome
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, EventType, new_id
from driftwatch.report.open_reports import (
    NOTHING,
    Contested,
    OpenDrift,
    OpenReport,
    OpenReports,
    Refusal,
    ReportedSnooze,
)
from driftwatch.report.recent import CONTROLLER, PERSON, Latest, Seen

NAMED_FIELDS = 5  # fields with both values in one log line
LONGEST_WISH = 60  # logged characters of an unreadable snooze request; an annotation may have 256 KiB
EXEMPLAR = 100  # characters; OpenMetrics allows 128 for all labels of an exemplar
GIVEN_UP = (Outcome.FAILED, Outcome.IMMUTABLE)

# A schema error quotes any Go value, up to the end of the message; a validation error quotes a string or a word.
_QUOTED_VALUES = re.compile(r"(?<=, got ).*(?= \(HTTP)|(?<=Invalid value: )(?:\"(?:[^\"\\]|\\.)*\"|[^:]*)", re.DOTALL)

log = structlog.get_logger()


class Report:
    """Implements the controller's `Reporter`. `open` has the open report of each object.

    `tell` is called with each event and must not block. `is_person` returns whether people use a field manager. `now`
    is the wall clock, in Unix seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        open_reports: OpenReports | None = None,
        tell: Callable[[DriftEvent], None] = lambda _event: None,
        is_person: Callable[[str], bool] = lambda _manager: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._now = now
        self._labels = ManagerLabels()
        self._tell_event = tell
        self._is_person = is_person
        self.open = OpenReports() if open_reports is None else open_reports
        self.latest = Latest()
        self.watch_trouble: dict[GroupKind, str] = {}
        self._known_conflicts: set[tuple[ObjectKey, str]] = set()

    def drifted(self, drift: Drift) -> None:
        """Drift was found and is not healed yet. Reported once, and again after a change of type, fields or manager."""
        report = self.open.get(drift.key)
        known = report.drift
        ident, since = (known.id, known.since) if known else (new_id(), self._now())
        opened = OpenDrift(drift, ident, since)
        self.open.put(drift.key, replace(report, drift=opened))
        if known is not None and _timeless(known.drift) == _timeless(drift):
            return
        self._count(drift, self._now())
        log.warning("drift", **_described(drift))
        self._tell(EventType.DRIFTED, opened)

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed."""
        report = self.open.get(drift.key)
        known = report.drift
        # A heal of another drift does not remove added fields, so their drift stays open.
        another = known is not None and known.drift.type is DriftType.ADDED and drift.type is not DriftType.ADDED
        if known is None or another:
            opened = OpenDrift(drift, new_id(), self._now() - seconds)
        else:
            opened = OpenDrift(drift, known.id, known.since)
        if known is None or known.drift.type is not drift.type:  # otherwise it was counted when it was found
            self._count(drift, self._now() - seconds)
        self.open.put(drift.key, OpenReport(drift=known if another else None, contested=report.contested))
        kind = str(drift.key.group_kind)
        self._metrics.heals.labels(drift.source, kind, drift.key.namespace, "success").inc()
        self._metrics.heal_duration.observe(seconds, _exemplar(drift.key))
        log.warning("drift healed", **_described(drift), seconds=round(seconds, 4))
        self._tell(EventType.HEALED, opened, seconds)

    def synced(self, key: ObjectKey, declaration: Declaration, *, created: bool) -> None:
        """A new or changed manifest was applied."""
        self._mended(key)
        log.info("synced", source=declaration.source, **named(key), created=created, file=declaration.manifest.file)

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or driftwatch no longer compares it."""
        if (drift := self._mended(key)) is not None:
            log.info("in sync again", source=drift.source, **named(key))

    def forget(self, key: ObjectKey) -> None:
        """The drift is over. The caller logs the reason."""
        self._mended(key)

    def snoozed(self, key: ObjectKey, declaration: Declaration, until: str, by: str) -> None:
        """The object is snoozed until `until`. Reported once for each end time."""
        report = self.open.get(key)
        known = report.snooze
        same = known is not None and known.until == until
        snooze = ReportedSnooze(declaration.source, until, known.by if known is not None and same else by)
        self.open.put(key, replace(report, snooze=snooze))
        if same:
            return
        self._metrics.snoozes.labels(declaration.source, str(key.group_kind), key.namespace).inc()
        log.warning("snoozed", source=declaration.source, **named(key), until=until, manager=by or UNKNOWN)
        self._tell_of(EventType.SNOOZED, key, declaration.source, by, until)

    def snooze_unreadable(self, key: ObjectKey, declaration: Declaration, wish: str, by: str) -> None:
        """The snooze annotation has no valid time. The object is healed as usual."""
        log.warning(
            "snooze cannot be read",
            source=declaration.source,
            **named(key),
            until=HIDDEN if key.group_kind == SECRET else wish[:LONGEST_WISH],
            manager=by or UNKNOWN,
            next=f"it is healed as ever; {SNOOZE_ANNOTATION} must be {expected(SNOOZE_ANNOTATION)}",
        )
        self._tell_of(EventType.UNREADABLE, key, declaration.source, by)

    def contested(self, key: ObjectKey, declaration: Declaration, opponent: str, wait: float) -> None:
        """Another writer changes the object repeatedly. Reported again each time the heals slow down."""
        report = self.open.get(key)
        known = report.contested
        fight = Contested(declaration.source, opponent or UNKNOWN, wait)
        self.open.put(key, replace(report, contested=fight))
        if known is not None and known.wait == wait:
            return
        pace = f"put back every {wait:g} s at most" if wait else "put back at once, as often as it takes"
        log.warning("contested", source=declaration.source, **named(key), manager=opponent or UNKNOWN, next=pace)
        self._tell_of(EventType.CONTESTED, key, declaration.source, opponent)

    def calm(self, key: ObjectKey) -> None:
        """The fight over the object is over."""
        report = self.open.get(key)
        if (fight := report.contested) is not None:
            self.open.put(key, replace(report, contested=None))
            log.info("calm again", source=fight.source, **named(key))
            self._tell_of(EventType.CALM, key, fight.source, fight.manager)

    def recreating(self, key: ObjectKey, declaration: Declaration, error: ClusterError) -> None:
        """The API server refused the change of an immutable field, and the object was deleted to be created again."""
        log.warning(
            "deleted to be created anew",
            source=declaration.source,
            **named(key),
            file=f"{declaration.manifest.file}:{declaration.manifest.line}",
            error=_words(key, error),
        )

    def refused(
        self, key: ObjectKey, declaration: Declaration, outcome: Outcome, error: ClusterError, retry: float | None
    ) -> None:
        """The API server refused the apply. Logged again only when message or outcome change."""
        self._metrics.heals.labels(
            declaration.source,
            str(key.group_kind),
            key.namespace,
            "failed" if outcome in GIVEN_UP else "deferred",
        ).inc()
        if retry is not None:
            self._metrics.retries.labels(declaration.source, str(key.group_kind), str(outcome)).inc()
        words = _words(key, error)
        report = self.open.get(key)
        known = report.refusal
        now = self._now()
        file = f"{declaration.manifest.file}:{declaration.manifest.line}"
        same = known is not None and (known.words, known.outcome) == (words, outcome)
        since = known.since if known is not None and same else now
        retry_at = None if retry is None else now + retry
        refusal = Refusal(words, outcome, declaration.source, file, since, retry_at)
        self.open.put(key, replace(report, refusal=refusal, snooze=_inactive(report.snooze)))
        if same:
            return
        say: Callable[..., Any] = log.error if outcome in GIVEN_UP else log.warning
        say(
            "not applied",
            source=declaration.source,
            **named(key),
            file=file,
            outcome=str(outcome),
            error=words,
            next=_next_after(outcome, retry),
        )
        if outcome in GIVEN_UP:
            self._tell_failed(key, declaration.source, words)

    def audited(self, key: ObjectKey, source: str, found: Drift | None) -> None:
        """The audit has checked an object. `found` is drift that no watch event has shown."""
        self._metrics.audited.labels(source).inc()
        if found is not None:
            self._metrics.audit_findings.labels(source, str(key.group_kind)).inc()
            log.error("audit found drift that no event had told of", **_described(found))

    def declared(self, declared: Declared) -> None:
        """The declared objects have changed. Counts them, and logs each object that two sources declare."""
        self._metrics.set_managed(declared.places())
        for key, report in list(self.open):
            if report.snooze is not None and declared.get(key) is None:
                self.open.put(key, replace(report, snooze=None))
        conflicts = {(conflict.key, conflict.refused.source): conflict for conflict in declared.conflicts()}
        for known, conflict in conflicts.items():
            if known not in self._known_conflicts:
                log.error(
                    "declared twice",
                    object=str(conflict.key),
                    owner=conflict.owner.source,
                    owner_file=conflict.owner.manifest.file,
                    refused=conflict.refused.source,
                    refused_file=conflict.refused.manifest.file,
                    next="the owner's manifest stays in force",
                )
        self._known_conflicts = set(conflicts)

    def watch_state(self, kind: GroupKind, *, up: bool, reason: str) -> None:
        """The watch of a kind came up or went down. Each new error is logged once."""
        self._metrics.watch_up.labels(str(kind)).set(int(up))
        if up:
            if self.watch_trouble.pop(kind, None) is not None:
                log.info("watch is up again", kind=str(kind))
        elif self.watch_trouble.get(kind) != reason:
            self.watch_trouble[kind] = reason
            log.warning("watch is down", kind=str(kind), error=reason, next="it is opened again")

    def watch_gone(self, kind: GroupKind) -> None:
        """The kind is no longer watched."""
        self.watch_trouble.pop(kind, None)
        self._metrics.watch_gone(kind)

    def restored(self, kind: GroupKind) -> None:
        """The cluster's resourceVersions went back, for example after a restore of etcd."""
        log.warning("the cluster's versions went back, as after a restore; everything is judged anew", kind=str(kind))

    def manager_label(self, manager: str) -> str:
        """The label value of a field manager."""
        return self._labels(manager)

    def _count(self, drift: Drift, seen: float) -> None:
        key = drift.key
        actor = UNKNOWN
        if drift.manager:
            actor = PERSON if self._is_person(drift.manager) else CONTROLLER
        self._metrics.drift.labels(
            drift.source, str(key.group_kind), key.namespace, str(drift.type), self.manager_label(drift.manager), actor
        ).inc()
        self.latest.add(Seen(seen, drift, actor))
        changed = max((field.time for field in drift.fields), default="")
        with suppress(ValueError):  # a removed field has no time
            lag = seen - datetime.fromisoformat(changed).timestamp()
            self._metrics.detection_lag.observe(max(lag, 0.0), _exemplar(key))

    def _tell(
        self, what: EventType, opened: OpenDrift, seconds: float | None = None, source: str = "", error: str = ""
    ) -> None:
        drift = opened.drift
        self._tell_event(
            DriftEvent(
                id=opened.id,
                what=what,
                time=self._now(),
                since=opened.since,
                key=drift.key,
                source=source or drift.source,
                type=str(drift.type),
                manager=drift.manager,
                fields=drift.fields,
                seconds=seconds,
                error=error,
            )
        )

    def _tell_of(
        self, what: EventType, key: ObjectKey, source: str, manager: str, until: str = "", error: str = ""
    ) -> None:
        """Send an event that is not about a drift."""
        now = self._now()
        self._tell_event(
            DriftEvent(
                id=new_id(),
                what=what,
                time=now,
                since=now,
                key=key,
                source=source,
                manager=manager,
                until=until,
                error=error,
            )
        )

    def _tell_failed(self, key: ObjectKey, source: str, words: str) -> None:
        """Send the event of a refused apply. It belongs to the open drift, if there is one."""
        opened = self.open.get(key).drift
        if opened is None:
            self._tell_of(EventType.FAILED, key, source, "", error=words)
        else:
            self._tell(EventType.FAILED, opened, source=source, error=words)

    def _mended(self, key: ObjectKey) -> Drift | None:
        """Close the drift without a heal: another writer reverted it, or a commit declares it. Returns the drift."""
        report = self.open.get(key)
        if report is NOTHING:
            return None
        self.open.put(key, OpenReport(contested=report.contested, snooze=_inactive(report.snooze)))
        if (opened := report.drift) is None:
            return None
        self._tell(EventType.MENDED, opened)
        return opened.drift


def _inactive(snooze: ReportedSnooze | None) -> ReportedSnooze | None:
    return None if snooze is None else replace(snooze, active=False)


def _words(key: ObjectKey, error: ClusterError) -> str:
    """The API server's message. For a Secret the quoted values are removed."""
    return without_values(str(error)) if key.group_kind == SECRET else str(error)


def _exemplar(key: ObjectKey) -> dict[str, str]:
    """The exemplar of an observation: the object."""
    return {"object": str(key)[:EXEMPLAR]}


def _timeless(drift: Drift) -> Drift:
    """The drift without times: a later write of other fields by the same manager is the same drift."""
    return replace(drift, fields=tuple(replace(field, time="") for field in drift.fields))


def without_values(words: str) -> str:
    """The API server's message about a Secret, without quoted values. Field and reason stay."""
    return _QUOTED_VALUES.sub(HIDDEN, words)


def _described(drift: Drift) -> dict[str, Any]:
    """Log keys of a drift. `fields` is one line for people. `changes` has every field, for programs."""
    fields = [f"{field.path}: {field.declared} → {field.live}" for field in drift.fields[:NAMED_FIELDS]]
    if len(drift.fields) > NAMED_FIELDS:
        fields.append(f"and {len(drift.fields) - NAMED_FIELDS} more")
    return {
        "source": drift.source,
        **named(drift.key),
        "type": str(drift.type),
        "manager": drift.manager or UNKNOWN,
        "fields": "; ".join(fields),
        "changes": [msgspec.to_builtins(field) for field in drift.fields],
    }


def _next_after(outcome: Outcome, retry: float | None) -> str:
    if retry is None:
        return "tried again when its namespace or kind is there"
    consent = f"; {RECREATE_ANNOTATION}: immutable would have it deleted and created anew"
    return f"tried again in {retry:.3g} s{consent if outcome is Outcome.IMMUTABLE else ''}"
