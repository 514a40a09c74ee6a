"""Alerts for Alertmanager: a drift fires until it is over, for any reason.

Alertmanager drops an alert that is not repeated, so driftwatch repeats its alerts like Prometheus does. The queue holds
the newest state of each alert, not a list of events. So nothing is lost while Alertmanager is away.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from driftwatch.model import ObjectKey
from driftwatch.notify.messages import JSON, Message, said
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, EventType, timestamp

REPEAT = 60.0  # seconds; Prometheus' resend delay
FIRING = 4 * REPEAT  # seconds that an alert fires without being repeated, as in Prometheus
TOLD = 300.0  # seconds that an alert fires for an event without a duration

_NAMES = {
    EventType.DRIFTED: "DriftwatchDrift",
    EventType.FAILED: "DriftwatchHealFailed",
    EventType.HEALED: "DriftwatchHealed",
    EventType.SNOOZED: "DriftwatchSnoozed",
    EventType.CONTESTED: "DriftwatchContested",
}
_LASTING = (EventType.DRIFTED, EventType.FAILED, EventType.CONTESTED)
# Events that resolve alerts of the same object.
_ENDS = {
    EventType.HEALED: ("DriftwatchDrift", "DriftwatchHealFailed"),
    EventType.MENDED: ("DriftwatchDrift", "DriftwatchHealFailed"),
    EventType.CALM: ("DriftwatchContested",),
}

AlertId = tuple[ObjectKey, str]
IsOpen = Callable[[ObjectKey, EventType], bool]


class Alert(msgspec.Struct):
    """One alert in the form of the API. `ends` is None while it fires. Times are Unix seconds."""

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
        # A heal resolves a firing alert. Without a firing alert, the heal gets its own.
        if seen.what in _NAMES and not (seen.what is EventType.HEALED and over):
            self._begin(seen)
        return 0

    def _begin(self, seen: DriftEvent) -> None:
        ident = (seen.key, _NAMES[seen.what])
        lasting = seen.what in _LASTING
        known = self._firing.get(ident)
        # Labels are the identity of an alert, so they must not change while it fires.
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
        """Seconds until the firing alerts have to be repeated."""
        return max(self._repeated + REPEAT - self._now(), 0.0)

    def repeat(self) -> None:
        """Queue every firing alert again, and resolve those that are over without an event."""
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
        """The request body for a batch, for version 2 of Alertmanager's API."""
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
    return {name: value for name, value in labels.items() if value}  # Prometheus: an empty label is a missing one
