"""Tells of drift and healing: one log line a drift, and the metrics."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import structlog

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
from driftwatch.report.recent import CONTROLLER, PERSON, Latest, Seen

NAMED_FIELDS = 5  # fields with both values in one log line
LONGEST_WISH = 60  # characters of a snooze that cannot be read; an annotation may have 256 KiB
EXEMPLAR = 100  # characters; OpenMetrics allows 128 for all labels of one
GIVEN_UP = (Outcome.FAILED, Outcome.IMMUTABLE)

# In a refusal a schema error quotes a Go value that can hold anything, to the end; a validation error a text or word.
_QUOTED_VALUES = re.compile(r"(?<=, got ).*(?= \(HTTP)|(?<=Invalid value: )(?:\"(?:[^\"\\]|\\.)*\"|[^:]*)", re.DOTALL)

log = structlog.get_logger()


class Contested(NamedTuple):
    """An object that is changed again and again: by whom, and how many seconds lie between its heals by now."""

    source: str
    manager: str
    wait: float


class Opened(msgspec.Struct, frozen=True):
    """A drift that is not over: its id, and when it was found (Unix seconds)."""

    id: str
    since: float


class Refusal(msgspec.Struct, frozen=True):
    """What the API server last said against a manifest, and when (Unix seconds); the next try comes at `retry_at`."""

    words: str
    outcome: Outcome
    source: str
    file: str
    since: float
    retry_at: float | None


class Report:
    """Implements the healer's `Reporter`. Knows which objects differ from Git now.

    `tell` is called with all that happens; it must not block. `is_person` says of a field manager whether people write
    under it. `now` is the wall clock, in Unix seconds.
    """

    def __init__(self, metrics: Metrics, now: Callable[[], float] = time.time) -> None:
        self._metrics = metrics
        self._now = now
        self._labels = ManagerLabels()
        self.tell: Callable[[DriftEvent], None] = lambda _seen: None
        self.is_person: Callable[[str], bool] = lambda _manager: False
        self.drifting: dict[ObjectKey, Drift] = {}
        self.fights: dict[ObjectKey, Contested] = {}
        self.opened: dict[ObjectKey, Opened] = {}
        self.refusals: dict[ObjectKey, Refusal] = {}
        self.snoozes: dict[ObjectKey, tuple[str, str]] = {}  # until when, and who wishes so
        self.snoozing: dict[ObjectKey, str] = {}  # with its source
        self.latest = Latest()
        self.watch_trouble: dict[GroupKind, str] = {}
        self._known_conflicts: set[tuple[ObjectKey, str]] = set()

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet); told once, and again when it becomes another drift."""
        known = self.drifting.get(drift.key)
        self.drifting[drift.key] = drift
        if known is not None and _timeless(known) == _timeless(drift):
            return
        self._count(drift, self._now())
        log.warning("drift", **_described(drift))
        opened = self.opened.setdefault(drift.key, Opened(new_id(), self._now()))
        self._tell(EventType.DRIFTED, drift, opened)

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed."""
        known = self.drifting.get(drift.key)
        another = known is not None and known.type is DriftType.ADDED and drift.type is not DriftType.ADDED
        opened = (None if another else self.opened.get(drift.key)) or Opened(new_id(), self._now() - seconds)
        self.snoozes.pop(drift.key, None)
        self.snoozing.pop(drift.key, None)
        self.refusals.pop(drift.key, None)
        if known is None or known.type is not drift.type:  # else it was counted when it was found
            self._count(drift, self._now() - seconds)
        if not another:
            self._clear(drift.key)  # else fields that somebody added are still there, as far as is known
        kind = str(drift.key.group_kind)
        self._metrics.heals.labels(drift.source, kind, drift.key.namespace, "success").inc()
        self._metrics.heal_duration.observe(seconds, _exemplar(drift.key))
        log.warning("drift healed", **_described(drift), seconds=round(seconds, 4))
        self._tell(EventType.HEALED, drift, opened, seconds)

    def synced(self, key: ObjectKey, declaration: Declaration, *, created: bool) -> None:
        """A new or changed manifest was applied."""
        self._mended(key)
        log.info("synced", source=declaration.source, **named(key), created=created, file=declaration.manifest.file)

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or not ours to judge any more."""
        if (drift := self._mended(key)) is not None:
            log.info("in sync again", source=drift.source, **named(key))

    def forget(self, key: ObjectKey) -> None:
        """The object is no drift any more, and whoever calls says why."""
        self._mended(key)

    def snoozed(self, key: ObjectKey, declaration: Declaration, until: str, by: str) -> None:
        """The object asks not to be healed before then; said once for each time asked for."""
        self.snoozing[key] = declaration.source
        if self.snoozes.get(key, ("", ""))[0] == until:
            return
        self.snoozes[key] = (until, by)
        self._metrics.snoozes.labels(declaration.source, str(key.group_kind), key.namespace).inc()
        log.warning("snoozed", source=declaration.source, **named(key), until=until, manager=by or UNKNOWN)
        self._tell_of(EventType.SNOOZED, key, declaration.source, by, until)

    def snooze_unreadable(self, key: ObjectKey, declaration: Declaration, wish: str, by: str) -> None:
        """The object asks not to be healed, in words that name no time: it is healed as any other."""
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
        """Somebody changes the object again and again; said once for each time that healing slows down."""
        known = self.fights.get(key)
        self.fights[key] = Contested(declaration.source, opponent or UNKNOWN, wait)
        if known is not None and known.wait == wait:
            return
        pace = f"put back every {wait:g} s at most" if wait else "put back at once, as often as it takes"
        log.warning("contested", source=declaration.source, **named(key), manager=opponent or UNKNOWN, next=pace)
        self._tell_of(EventType.CONTESTED, key, declaration.source, opponent)

    def calm(self, key: ObjectKey) -> None:
        """The object is not contested any more."""
        if (fight := self.fights.pop(key, None)) is not None:
            log.info("calm again", source=fight.source, **named(key))
            self._tell_of(EventType.CALM, key, fight.source, fight.manager)

    def recreating(self, key: ObjectKey, declaration: Declaration, error: ClusterError) -> None:
        """The object could not be changed, and was deleted to be created anew."""
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
        """The API server refused; said again only when its words change."""
        self._metrics.heals.labels(
            declaration.source,
            str(key.group_kind),
            key.namespace,
            "failed" if outcome in GIVEN_UP else "deferred",
        ).inc()
        if retry is not None:
            self._metrics.retries.labels(declaration.source, str(key.group_kind), verdict(outcome)).inc()
        self.snoozing.pop(key, None)
        words = _words(key, error)
        known = self.refusals.get(key)
        now = self._now()
        file = f"{declaration.manifest.file}:{declaration.manifest.line}"
        same = known is not None and (known.words, known.outcome) == (words, outcome)
        since = known.since if known is not None and same else now
        retry_at = None if retry is None else now + retry
        self.refusals[key] = Refusal(words, outcome, declaration.source, file, since, retry_at)
        if same:
            return
        say: Callable[..., Any] = log.error if outcome in GIVEN_UP else log.warning
        say(
            "not applied",
            source=declaration.source,
            **named(key),
            file=file,
            verdict=str(outcome),
            error=words,
            next=_next_after(outcome, retry),
        )
        if outcome in GIVEN_UP:
            self._tell_failed(key, declaration.source, words)

    def audited(self, key: ObjectKey, source: str, found: Drift | None) -> None:
        """The audit has checked an object; what it found no event had told of."""
        self._metrics.audited.labels(source).inc()
        if found is not None:
            self._metrics.audit_findings.labels(source, str(key.group_kind)).inc()
            log.error("audit found drift that no event had told of", **_described(found))

    def declared(self, declared: Declared) -> None:
        """What Git declares has changed: count it, and name what two sources declare."""
        self._metrics.set_managed(declared.places())
        for key in [key for key in self.snoozes if declared.get(key) is None]:
            del self.snoozes[key]
            self.snoozing.pop(key, None)
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
        """The watch of a kind came up, or went down; each new trouble is said once."""
        self._metrics.watch_up.labels(str(kind)).set(int(up))
        if up:
            if self.watch_trouble.pop(kind, None) is not None:
                log.info("watch is up again", kind=str(kind))
        elif self.watch_trouble.get(kind) != reason:
            self.watch_trouble[kind] = reason
            log.warning("watch is down", kind=str(kind), error=reason, next="it is opened again")

    def watch_gone(self, kind: GroupKind) -> None:
        """The kind is not watched any more."""
        self.watch_trouble.pop(kind, None)
        self._metrics.watch_gone(kind)

    def restored(self, kind: GroupKind) -> None:
        """The cluster's resourceVersions went back, as after a restore of etcd."""
        log.warning("the cluster's versions went back, as after a restore; everything is judged anew", kind=str(kind))

    def manager_label(self, manager: str) -> str:
        """A field manager as metrics name it."""
        return self._labels(manager)

    def _count(self, drift: Drift, seen: float) -> None:
        key = drift.key
        actor = UNKNOWN
        if drift.manager:
            actor = PERSON if self.is_person(drift.manager) else CONTROLLER
        self._metrics.drift.labels(
            drift.source, str(key.group_kind), key.namespace, str(drift.type), self.manager_label(drift.manager), actor
        ).inc()
        self.latest.add(Seen(seen, drift, actor))
        changed = max((field.time for field in drift.fields), default="")
        with suppress(ValueError):  # no time, as of a removed field
            lag = seen - datetime.fromisoformat(changed).timestamp()
            self._metrics.detection_lag.observe(max(lag, 0.0), _exemplar(key))

    def _tell(self, what: EventType, drift: Drift, opened: Opened, seconds: float | None = None) -> None:
        self.tell(
            DriftEvent(
                id=opened.id,
                what=what,
                time=self._now(),
                since=opened.since,
                key=drift.key,
                source=drift.source,
                verdict=str(drift.type),
                manager=drift.manager,
                fields=drift.fields,
                seconds=seconds,
            )
        )

    def _tell_of(self, what: EventType, key: ObjectKey, source: str, manager: str, until: str = "") -> None:
        """Something that is no drift by itself."""
        now = self._now()
        self.tell(
            DriftEvent(
                id=new_id(), what=what, time=now, since=now, key=key, source=source, manager=manager, until=until
            )
        )

    def _tell_failed(self, key: ObjectKey, source: str, words: str) -> None:
        """A manifest was refused, whether or not there was drift before."""
        drift = self.drifting.get(key)
        opened = self.opened.get(key) or Opened(new_id(), self._now())
        self.tell(
            DriftEvent(
                id=opened.id,
                what=EventType.FAILED,
                time=self._now(),
                since=opened.since,
                key=key,
                source=source,
                verdict=str(drift.type) if drift else "",
                manager=drift.manager if drift else "",
                fields=drift.fields if drift else (),
                error=words,
            )
        )

    def _mended(self, key: ObjectKey) -> Drift | None:
        """What drifted is in order without a heal: by whoever did it, or by a commit."""
        opened = self.opened.get(key)
        drift = self._clear(key)
        if drift is not None and opened is not None:
            self._tell(EventType.MENDED, drift, opened)
        return drift

    def _clear(self, key: ObjectKey) -> Drift | None:
        self.refusals.pop(key, None)
        self.opened.pop(key, None)
        self.snoozing.pop(key, None)
        return self.drifting.pop(key, None)


def verdict(outcome: Outcome) -> str:
    """What a refusal means, as a label value."""
    return str(outcome).replace(" ", "_")


def _words(key: ObjectKey, error: ClusterError) -> str:
    """What the API server said of an object; of a Secret without the values that it quotes."""
    return without_values(str(error)) if key.group_kind == SECRET else str(error)


def _exemplar(key: ObjectKey) -> dict[str, str]:
    """Names the object of an observation to whoever looks at one in a graph."""
    return {"object": str(key)[:EXEMPLAR]}


def _timeless(drift: Drift) -> Drift:
    """A drift without when it was made: an author's later write of other fields makes no other drift of these."""
    return msgspec.structs.replace(
        drift, fields=tuple(msgspec.structs.replace(field, time="") for field in drift.fields)
    )


def without_values(words: str) -> str:
    """What the API server says of a Secret, without what it quotes: field and reason stay."""
    return _QUOTED_VALUES.sub(HIDDEN, words)


def _described(drift: Drift) -> dict[str, Any]:
    """`fields` is the line that people read, `changes` has all that is known of each field, for programs."""
    fields = [f"{field.path}: {field.declared} → {field.live}" for field in drift.fields[:NAMED_FIELDS]]
    if len(drift.fields) > NAMED_FIELDS:
        fields.append(f"and {len(drift.fields) - NAMED_FIELDS} more")
    return {
        "source": drift.source,
        **named(drift.key),
        "verdict": str(drift.type),
        "manager": drift.manager or UNKNOWN,
        "fields": "; ".join(fields),
        "changes": [msgspec.to_builtins(field) for field in drift.fields],
    }


def _next_after(outcome: Outcome, retry: float | None) -> str:
    if retry is None:
        return "tried again when its namespace or kind is there"
    consent = f"; {RECREATE_ANNOTATION}: immutable would have it deleted and created anew"
    return f"tried again in {retry:.3g} s{consent if outcome is Outcome.IMMUTABLE else ''}"
