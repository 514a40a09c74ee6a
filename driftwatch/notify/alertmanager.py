"""Alerts for Alertmanager: a drift fires until it is over, for whatever reason.

Alertmanager forgets an alert that nobody repeats, as Prometheus repeats its own; so does this. What waits to be sent
is the newest state of each alert and not a list of what happened: nothing is lost while Alertmanager is away.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from driftwatch.model import ObjectKey
from driftwatch.notify.messages import JSON, Message, said
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, EventType, timestamp

REPEAT = 60.0  # seconds; Prometheus' resend delay
FIRING = 4 * REPEAT  # seconds for which an alert holds without being repeated, as Prometheus sets it
TOLD = 300.0  # seconds for which something that is over already is shown

_NAMES = {
    EventType.DRIFTED: "DriftwatchDrift",
    EventType.FAILED: "DriftwatchHealFailed",
    EventType.HEALED: "DriftwatchHealed",
    EventType.SNOOZED: "DriftwatchSnoozed",
    EventType.CONTESTED: "DriftwatchContested",
}
_LASTING = (EventType.DRIFTED, EventType.FAILED, EventType.CONTESTED)
# What resolves which alerts of an object.
_ENDS = {
    EventType.HEALED: ("DriftwatchDrift", "DriftwatchHealFailed"),
    EventType.MENDED: ("DriftwatchDrift", "DriftwatchHealFailed"),
    EventType.CALM: ("DriftwatchContested",),
}

AlertId = tuple[ObjectKey, str]
IsOpen = Callable[[ObjectKey, EventType], bool]


class Alert(msgspec.Struct):
    """One alert as the API takes it, with its end, None while it lasts. Unix seconds."""

    labels: dict[str, str]
    annotations: dict[str, str]
    what: EventType
    starts: float
    ends: float | None


class Alerts:
    """The alerts of one receiver. `is_open` says whether the reported state of an object still holds."""

    def __init__(self, template: str | None, is_open: IsOpen, now: Callable[[], float]) -> None:
        self._template = template
        self._is_open = is_open
        self._now = now
        self._firing: dict[AlertId, Alert] = {}
        self._waiting: dict[AlertId, Alert] = {}
        self._repeated = now()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, seen: DriftEvent) -> int:
        """Update the alerts by an event. Returns how many events were dropped: none."""
        over = [ident for name in _ENDS.get(seen.what, ()) if (ident := (seen.key, name)) in self._firing]
        for ident in over:
            self._end(ident, seen.time)
        # A heal of what was never firing is worth a word of its own; what was firing is resolved by it.
        if seen.what in _NAMES and not (seen.what is EventType.HEALED and over):
            self._begin(seen)
        return 0

    def _begin(self, seen: DriftEvent) -> None:
        ident = (seen.key, _NAMES[seen.what])
        lasting = seen.what in _LASTING
        known = self._firing.get(ident)
        # Labels are an alert's identity: they stay as they were while it fires.
        alert = Alert(
            known.labels if known else _labels(seen),
            {"summary": said(seen, self._template), "source": f"{seen.file}:{seen.line}" if seen.file else ""},
            seen.what,
            known.starts if known else (seen.since if lasting else seen.time),
            None if lasting else seen.time + TOLD,
        )
        if lasting:
            self._firing[ident] = alert
        self._waiting[ident] = alert

    def _end(self, ident: AlertId, when: float) -> None:
        alert = self._firing.pop(ident)
        self._waiting[ident] = msgspec.structs.replace(alert, ends=when)

    def due(self) -> float:
        """Seconds until what fires has to be repeated."""
        return max(self._repeated + REPEAT - self._now(), 0.0)

    def repeat(self) -> None:
        """Send everything that fires again, and resolve what is over, also without an event."""
        now = self._repeated = self._now()
        for ident, alert in list(self._firing.items()):
            if self._is_open(ident[0], alert.what):
                self._waiting.setdefault(ident, alert)
            else:
                self._end(ident, now)

    def take(self, most: int) -> list[tuple[AlertId, Alert]]:
        """The next batch."""
        batch = list(self._waiting.items())[:most]
        for ident, _ in batch:
            del self._waiting[ident]
        return batch

    def message(self, batch: list[tuple[AlertId, Alert]]) -> Message:
        """The request body for a batch, by version 2 of Alertmanager's API."""
        now = self._now()
        alerts: list[dict[str, Any]] = [
            {
                "labels": alert.labels,
                "annotations": {name: text for name, text in alert.annotations.items() if text},
                "startsAt": timestamp(alert.starts),
                "endsAt": timestamp(now + FIRING if alert.ends is None else max(alert.ends, alert.starts)),
            }
            for _, alert in batch
        ]
        return Message(msgspec.json.encode(alerts), JSON)


def _labels(seen: DriftEvent) -> dict[str, str]:
    labels = {
        "alertname": _NAMES[seen.what],
        "severity": str(seen.severity),
        "source": seen.source,
        "kind": str(seen.key.group_kind),
        "namespace": seen.key.namespace,
        "name": seen.key.name,
        "type": seen.type,
        "manager": seen.manager or UNKNOWN,
    }
    return {name: value for name, value in labels.items() if value}  # an empty label is none
