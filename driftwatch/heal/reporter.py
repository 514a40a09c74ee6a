"""Who is told what healing sees and does; `observe` implements it, and healing knows nothing of metrics."""

from typing import Protocol

from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.declared import Claim
from driftwatch.heal.outcome import Outcome
from driftwatch.model import Drift, ObjectKey


class Reporter(Protocol):
    """Calls come on the event loop and must not block."""

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet)."""

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed, so many seconds after its event arrived."""

    def synced(self, key: ObjectKey, claim: Claim, *, created: bool) -> None:
        """A new or changed manifest was applied."""

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or not ours to judge any more."""

    def snoozed(self, key: ObjectKey, claim: Claim, until: str, by: str) -> None:
        """The object asks not to be healed before then."""

    def snooze_unreadable(self, key: ObjectKey, claim: Claim, wish: str, by: str) -> None:
        """The object asks not to be healed, in words that name no time: it is healed as any other."""

    def contested(self, key: ObjectKey, claim: Claim, opponent: str, wait: float) -> None:
        """Somebody changes the object again and again; its heals are `wait` seconds apart by now, 0 for at once."""

    def calm(self, key: ObjectKey) -> None:
        """The object is not contested any more."""

    def recreating(self, key: ObjectKey, claim: Claim, error: ClusterError) -> None:
        """The object could not be changed, and was deleted to be created anew."""

    def refused(self, key: ObjectKey, claim: Claim, outcome: Outcome, error: ClusterError, retry: float | None) -> None:
        """The API server refused; the next try comes in `retry` seconds, None when an event must come first."""


def named(key: ObjectKey) -> dict[str, str]:
    """The object's name as every log line has it."""
    return {"kind": str(key.group_kind), "namespace": key.namespace, "name": key.name}
