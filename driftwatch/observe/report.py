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
from driftwatch.drift.declared import Claim, Declared
from driftwatch.drift.explain import HIDDEN
from driftwatch.heal.outcome import Outcome
from driftwatch.heal.reporter import named
from driftwatch.model import RECREATE_ANNOTATION, Drift, DriftType, GroupKind, ObjectKey
from driftwatch.observe.labels import UNKNOWN, ManagerLabels
from driftwatch.observe.metrics import Metrics

NAMED_FIELDS = 5  # fields with both values in one log line
LATEST = 100  # objects whose last drift is remembered
EXEMPLAR = 100  # characters; OpenMetrics allows 128 for all labels of one
PERSON, CONTROLLER = "person", "controller"
SECRET = GroupKind("", "Secret")
GIVEN_UP = (Outcome.FAILED, Outcome.IMMUTABLE)

# In a refusal a schema error quotes a Go value that can hold anything, to the end; a validation error a text or word.
_QUOTED_VALUES = re.compile(r"(?<=, got ).*(?= \(HTTP)|(?<=Invalid value: )(?:\"(?:[^\"\\]|\\.)*\"|[^:]*)", re.DOTALL)

log = structlog.get_logger()


class Contested(NamedTuple):
    """An object that is changed again and again: by whom, and how many seconds lie between its heals by now."""

    source: str
    manager: str
    wait: float


class Seen(NamedTuple):
    """A drift that was counted: when, in Unix seconds, and what kind of actor made it."""

    time: float
    drift: Drift
    actor: str


class Refusal(NamedTuple):
    """What the API server keeps refusing: `since` in Unix seconds."""

    source: str
    outcome: Outcome
    since: float


class Report:
    """Implements the healer's `Reporter`. Knows which objects differ from Git now.

    `is_person` says of a field manager whether people write under it, `clock` gives Unix seconds.
    """

    def __init__(
        self,
        metrics: Metrics,
        is_person: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._is_person = is_person
        self._clock = clock
        self._labels = ManagerLabels()
        self.drifting: dict[ObjectKey, Drift] = {}
        self.drifting_since: dict[ObjectKey, float] = {}
        self.latest: dict[ObjectKey, Seen] = {}  # the latest last
        self.refused_now: dict[ObjectKey, Refusal] = {}
        self.snoozing: dict[ObjectKey, str] = {}  # with its source
        self.refusals: dict[ObjectKey, str] = {}
        self.fights: dict[ObjectKey, Contested] = {}
        self.watch_trouble: dict[GroupKind, str] = {}
        self._known_conflicts: set[tuple[ObjectKey, str]] = set()

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet); told once, and again when it becomes another drift."""
        known = self.drifting.get(drift.key)
        self.drifting[drift.key] = drift
        if known is not None and _timeless(known) == _timeless(drift):
            return
        self.drifting_since.setdefault(drift.key, self._clock())
        self._count(drift, self._clock())
        log.warning("drift", **_described(drift))

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed."""
        known = self.drifting.get(drift.key)
        if known is None or known.type is not drift.type:  # else it was counted when it was found
            self._count(drift, self._clock() - seconds)
        self.refused_now.pop(drift.key, None)
        self.snoozing.pop(drift.key, None)
        if known is None or known.type is not DriftType.ADDED or drift.type is DriftType.ADDED:
            self._clear(drift.key)  # else fields that somebody added are still there, as far as is known
        kind = str(drift.key.group_kind)
        self._metrics.heals.labels(drift.source, kind, drift.key.namespace, "success").inc()
        self._metrics.heal_duration.observe(seconds, _exemplar(drift.key))
        log.warning("drift healed", **_described(drift), seconds=round(seconds, 4))

    def synced(self, key: ObjectKey, claim: Claim, *, created: bool) -> None:
        """A new or changed manifest was applied."""
        self._clear(key)
        log.info("synced", source=claim.source, **named(key), created=created, file=claim.manifest.file)

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or not ours to judge any more."""
        if (drift := self._clear(key)) is not None:
            log.info("in sync again", source=drift.source, **named(key))

    def forget(self, key: ObjectKey) -> None:
        """The object is no drift any more, and whoever calls says why."""
        self._clear(key)

    def snoozed(self, key: ObjectKey, claim: Claim, until: str, by: str) -> None:
        """The object asks not to be healed before then; said once for each time asked for."""
        self.snoozing[key] = claim.source
        words = f"snoozed until {until}"
        if self.refusals.get(key) == words:
            return
        self.refusals[key] = words
        self._metrics.snoozes.labels(claim.source, str(key.group_kind), key.namespace).inc()
        log.warning("snoozed", source=claim.source, **named(key), until=until, manager=by or UNKNOWN)

    def contested(self, key: ObjectKey, claim: Claim, opponent: str, wait: float) -> None:
        """Somebody changes the object again and again; said once for each time that healing slows down."""
        known = self.fights.get(key)
        self.fights[key] = Contested(claim.source, opponent or UNKNOWN, wait)
        if known is not None and known.wait == wait:
            return
        pace = f"put back every {wait:g} s at most" if wait else "put back at once, as often as it takes"
        log.warning("contested", source=claim.source, **named(key), manager=opponent or UNKNOWN, next=pace)

    def calm(self, key: ObjectKey) -> None:
        """The object is not contested any more."""
        if (fight := self.fights.pop(key, None)) is not None:
            log.info("calm again", source=fight.source, **named(key))

    def recreating(self, key: ObjectKey, claim: Claim, error: ClusterError) -> None:
        """The object could not be changed, and was deleted to be created anew."""
        words = without_values(str(error)) if key.group_kind == SECRET else str(error)
        log.warning(
            "deleted to be created anew",
            source=claim.source,
            **named(key),
            file=f"{claim.manifest.file}:{claim.manifest.line}",
            error=words,
        )

    def refused(self, key: ObjectKey, claim: Claim, outcome: Outcome, error: ClusterError, retry: float | None) -> None:
        """The API server refused; said again only when its words change."""
        self._metrics.heals.labels(
            claim.source,
            str(key.group_kind),
            key.namespace,
            "failed" if outcome in GIVEN_UP else "deferred",
        ).inc()
        if retry is not None:
            self._metrics.retries.labels(claim.source, str(key.group_kind), verdict(outcome)).inc()
        before = self.refused_now.get(key)
        since = before.since if before is not None and before.outcome is outcome else self._clock()
        self.refused_now[key] = Refusal(claim.source, outcome, since)
        self.snoozing.pop(key, None)
        words = without_values(str(error)) if key.group_kind == SECRET else str(error)
        if self.refusals.get(key) == words:
            return
        self.refusals[key] = words
        say: Callable[..., Any] = log.error if outcome in GIVEN_UP else log.warning
        say(
            "not applied",
            source=claim.source,
            **named(key),
            file=f"{claim.manifest.file}:{claim.manifest.line}",
            verdict=str(outcome),
            error=words,
            next=_next_after(outcome, retry),
        )

    def audited(self, key: ObjectKey, source: str, found: Drift | None) -> None:
        """The audit has checked an object; what it found no event had told of."""
        self._metrics.audited.labels(source).inc()
        if found is not None:
            self._metrics.audit_findings.labels(source, str(key.group_kind)).inc()
            log.error("audit found drift that no event had told of", **_described(found))

    def declared(self, declared: Declared) -> None:
        """What Git declares has changed: count it, and name what two sources declare."""
        self._metrics.set_managed(declared.places())
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
            actor = PERSON if self._is_person(drift.manager) else CONTROLLER
        self._metrics.drift.labels(
            drift.source, str(key.group_kind), key.namespace, str(drift.type), self.manager_label(drift.manager), actor
        ).inc()
        self.latest.pop(key, None)
        self.latest[key] = Seen(seen, drift, actor)
        if len(self.latest) > LATEST:
            del self.latest[next(iter(self.latest))]
        changed = max((field.time for field in drift.fields), default="")
        with suppress(ValueError):  # no time, as of a removed field
            lag = seen - datetime.fromisoformat(changed).timestamp()
            self._metrics.detection_lag.observe(max(lag, 0.0), _exemplar(key))

    def _clear(self, key: ObjectKey) -> Drift | None:
        self.refusals.pop(key, None)
        self.refused_now.pop(key, None)
        self.snoozing.pop(key, None)
        self.drifting_since.pop(key, None)
        return self.drifting.pop(key, None)


def verdict(outcome: Outcome) -> str:
    """What a refusal means, as a label value."""
    return str(outcome).replace(" ", "_")


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
