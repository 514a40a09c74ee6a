"""Open reports: the reported states of each object that still hold. Gauges, status and notifications read them."""

from collections.abc import Iterator

import msgspec

from driftwatch.model import Drift, ObjectKey
from driftwatch.reconcile.outcome import Outcome


class OpenDrift(msgspec.Struct, frozen=True):
    """A drift that is not over. `id` stays the same until then. `since` is when it was found (Unix seconds)."""

    drift: Drift
    id: str
    since: float


class Refusal(msgspec.Struct, frozen=True):
    """A refused apply: the API server's last message, since when (Unix seconds), and when the next try follows."""

    words: str
    outcome: Outcome
    source: str
    file: str
    since: float
    retry_at: float | None


class Contested(msgspec.Struct, frozen=True):
    """A fight over the object: the other field manager, and the current seconds between two heals."""

    source: str
    manager: str
    wait: float


class ReportedSnooze(msgspec.Struct, frozen=True):
    """A reported snooze: its end (RFC 3339), and who set it. `active`: it stops heals now.

    An inactive snooze is kept, so that the same snooze is not reported again.
    """

    source: str
    until: str
    by: str
    active: bool = True


class OpenReport(msgspec.Struct, frozen=True):
    """The open reports of one object. None: not reported, or over."""

    drift: OpenDrift | None = None
    refusal: Refusal | None = None
    contested: Contested | None = None
    snooze: ReportedSnooze | None = None


NOTHING = OpenReport()


class OpenReports:
    """The open report of each object that has one. Only `Report` writes it."""

    def __init__(self) -> None:
        self._reports: dict[ObjectKey, OpenReport] = {}

    def __iter__(self) -> Iterator[tuple[ObjectKey, OpenReport]]:
        return iter(self._reports.items())

    def get(self, key: ObjectKey) -> OpenReport:
        """The open report of the object, empty without one."""
        return self._reports.get(key, NOTHING)

    def drifting_of(self, source: str) -> set[ObjectKey]:
        """The objects of a source that differ from Git."""
        return {key for key, opened in self.drifts() if opened.drift.source == source}

    def put(self, key: ObjectKey, report: OpenReport) -> None:
        """Replace the open report of the object. An empty report is removed."""
        if report == NOTHING:
            self._reports.pop(key, None)
        else:
            self._reports[key] = report

    def drifts(self) -> Iterator[tuple[ObjectKey, OpenDrift]]:
        """Objects that differ from Git now."""
        return ((key, report.drift) for key, report in self._reports.items() if report.drift is not None)

    def refusals(self) -> Iterator[tuple[ObjectKey, Refusal]]:
        """Objects whose last apply the API server refused."""
        return ((key, report.refusal) for key, report in self._reports.items() if report.refusal is not None)

    def contested(self) -> Iterator[tuple[ObjectKey, Contested]]:
        """Objects with a fight now."""
        return ((key, report.contested) for key, report in self._reports.items() if report.contested is not None)

    def snoozes(self) -> Iterator[tuple[ObjectKey, ReportedSnooze]]:
        """Snoozes that are active now."""
        return (
            (key, report.snooze)
            for key, report in self._reports.items()
            if report.snooze is not None and report.snooze.active
        )
