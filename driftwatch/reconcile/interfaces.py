"""Interfaces of the reconcilers: reports, kinds and the target of one reconcile.

`report.drift_report` implements `Reporter`, so reconcilers do not depend on metrics.
"""

from typing import Protocol

import msgspec

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.explain import Subject
from driftwatch.drift.object_state import Declaration, ObjectState, Observation
from driftwatch.model import Drift, GroupKind, Manifest, ObjectKey
from driftwatch.reconcile.outcome import Outcome


class Reporter(Protocol):
    """Receives the results of reconciles. Calls are made on the event loop and must not block."""

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet)."""

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed, `seconds` after its event arrived."""

    def synced(self, key: ObjectKey, declaration: Declaration, *, created: bool) -> None:
        """A new or changed manifest was applied."""

    def in_sync(self, key: ObjectKey) -> None:
        """The object matches Git, or driftwatch no longer manages it."""

    def snoozed(self, key: ObjectKey, declaration: Declaration, until: str, by: str) -> None:
        """The object has a snooze request and is not healed before `until`."""

    def snooze_unreadable(self, key: ObjectKey, declaration: Declaration, wish: str, by: str) -> None:
        """The snooze request of the object has no valid time. The object is healed as usual."""

    def contested(self, key: ObjectKey, declaration: Declaration, opponent: str, wait: float) -> None:
        """There is a fight over the object. Its next heal waits `wait` seconds. 0 means at once."""

    def calm(self, key: ObjectKey) -> None:
        """The fight over the object has ended."""

    def recreating(self, key: ObjectKey, declaration: Declaration, error: ClusterError) -> None:
        """The object could not be changed. It was deleted and will be created again."""

    def refused(
        self, key: ObjectKey, declaration: Declaration, outcome: Outcome, error: ClusterError, retry: float | None
    ) -> None:
        """The API server refused the apply. The retry comes in `retry` seconds, or after an event if None."""


class Target(msgspec.Struct):
    """Inputs of one reconcile: declaration, API resource, object state and last observation."""

    key: ObjectKey
    declaration: Declaration
    resource: Resource
    state: ObjectState
    observation: Observation | None

    @property
    def subject(self) -> Subject:
        """The subject of drift explanations."""
        return Subject(self.key, self.declaration.source, self.state.policy.sensitive)

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name, for the path of a request."""
        return self.key.namespace, self.key.name


class Kinds(Protocol):
    """The part of the REST mapper that reconcilers use."""

    def resource(self, manifest: Manifest) -> Resource | None:
        """The API resource of the manifest's kind and version. None if it is not served."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """The API resource of the kind at the API server's preferred version. None if the kind is not served."""

    def served(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served."""

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version. Start discovery."""

    def expected(self) -> None:
        """A CRD was applied. Its kind will be served soon."""
