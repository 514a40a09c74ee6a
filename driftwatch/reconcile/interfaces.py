"""Who is told what healing sees and does; `observe` implements it, and healing knows nothing of metrics."""

from typing import Protocol

import msgspec

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.explain import Subject
from driftwatch.drift.object_state import Declaration, ObjectState, Observation
from driftwatch.model import Drift, GroupKind, Manifest, ObjectKey
from driftwatch.reconcile.outcome import Outcome


class Reporter(Protocol):
    """Calls come on the event loop and must not block."""

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet)."""

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed, so many seconds after its event arrived."""

    def synced(self, key: ObjectKey, declaration: Declaration, *, created: bool) -> None:
        """A new or changed manifest was applied."""

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or not ours to judge any more."""

    def snoozed(self, key: ObjectKey, declaration: Declaration, until: str, by: str) -> None:
        """The object asks not to be healed before then."""

    def snooze_unreadable(self, key: ObjectKey, declaration: Declaration, wish: str, by: str) -> None:
        """The object asks not to be healed, in words that name no time: it is healed as any other."""

    def contested(self, key: ObjectKey, declaration: Declaration, opponent: str, wait: float) -> None:
        """Somebody changes the object again and again; its heals are `wait` seconds apart by now, 0 for at once."""

    def calm(self, key: ObjectKey) -> None:
        """The object is not contested any more."""

    def recreating(self, key: ObjectKey, declaration: Declaration, error: ClusterError) -> None:
        """The object could not be changed, and was deleted to be created anew."""

    def refused(
        self, key: ObjectKey, declaration: Declaration, outcome: Outcome, error: ClusterError, retry: float | None
    ) -> None:
        """The API server refused; the next try comes in `retry` seconds, None when an event must come first."""


class Target(msgspec.Struct):
    """One object on the table: what Git declares, how it is served, what is remembered and what was seen of it."""

    key: ObjectKey
    declaration: Declaration
    resource: Resource
    state: ObjectState
    observation: Observation | None

    @property
    def subject(self) -> Subject:
        """Whose drift is explained."""
        return Subject(self.key, self.declaration.source, self.state.policy.sensitive)

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name, which complete the path of the resource."""
        return self.key.namespace, self.key.name


class Kinds(Protocol):
    """What healing asks of and tells to whoever keeps up with the API server's kinds."""

    def resource(self, manifest: Manifest) -> Resource | None:
        """How the manifest's kind is served, None where it is not."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served at the version that the API server prefers, None where it is not."""

    def served(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served."""

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version: look for it."""

    def expected(self) -> None:
        """A CRD was applied: its kind is about to be served."""
