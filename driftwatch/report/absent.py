"""Lists declared objects that driftwatch does not see in the cluster, or may not apply, with the reason.

The list is made on request and keeps no state. It follows from the declarations, the object states and the refused
applies. So it is also correct after a restart, when an object whose kind is not served has no refused apply and no
event.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.object_state import ObjectState
from driftwatch.model import GroupKind, Manifest, Mode, ObjectKey
from driftwatch.reconcile.apply_errors import Blocked
from driftwatch.reconcile.interfaces import Kinds
from driftwatch.reconcile.outcome import Outcome
from driftwatch.report.drift_report import GIVEN_UP, Report


class AbsentReason(StrEnum):
    """Why a declared object is not in the cluster. `not_healed`: its mode is observe, paused or ignore."""

    KIND_NOT_SERVED = "kind_not_served"
    DECLARED_TWICE = "declared_twice"
    REFUSED = "refused"
    NAMESPACE = "namespace"
    WAITING = "waiting"
    NOT_HEALED = "not_healed"


_BY_OUTCOME = {
    **dict.fromkeys(GIVEN_UP, AbsentReason.REFUSED),
    Outcome.NAMESPACE_MISSING: AbsentReason.NAMESPACE,
    Outcome.NAMESPACE_TERMINATING: AbsentReason.NAMESPACE,
    Outcome.KIND_MISSING: AbsentReason.KIND_NOT_SERVED,
}


class Absent(NamedTuple):
    """One absent object. For `declared_twice`, `owner` is the source whose manifest is in force, else ""."""

    reason: AbsentReason
    source: str
    key: ObjectKey
    manifest: Manifest
    owner: str = ""


class AbsentObjects:
    """Iterates over the absent objects.

    `unlisted` returns the kinds whose first LIST is not complete. Whether their objects exist is not known yet.
    """

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        kinds: Kinds,
        blocked: Blocked,
        report: Report,
        unlisted: Callable[[], Iterable[GroupKind]],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._kinds = kinds
        self._parking = blocked
        self._report = report
        self._unlisted = unlisted

    def __iter__(self) -> Iterator[Absent]:
        for kind, waiting in self._declared.unknown_kinds.items():
            for source, manifest in waiting:
                key = ObjectKey(*kind, manifest.namespace, manifest.name)
                yield Absent(AbsentReason.KIND_NOT_SERVED, source, key, manifest)
        for conflict in self._declared.conflicts():
            refused, owner = conflict.refused, conflict.owner
            yield Absent(AbsentReason.DECLARED_TWICE, refused.source, conflict.key, refused.manifest, owner.source)
        gone = {kind for kind in self._declared.kinds if self._kinds.preferred(kind) is None}
        unlisted = set(self._unlisted()) - gone
        namespaces = self._parking.namespaces
        for key, state in self._detector.states.items():
            if state.live and not (gone and key.group_kind in gone):
                continue
            declaration = self._declared.get(key)
            if declaration is None or key.group_kind in unlisted or _is_unknown(state):
                continue
            yield Absent(
                self._reason(key, declaration.manifest, state, namespaces),
                declaration.source,
                key,
                declaration.manifest,
            )

    def _reason(
        self, key: ObjectKey, manifest: Manifest, state: ObjectState, namespaces: Collection[str]
    ) -> AbsentReason:
        if self._kinds.resource(manifest) is None:
            return AbsentReason.KIND_NOT_SERVED
        if state.policy.mode is not Mode.HEAL:
            return AbsentReason.NOT_HEALED
        if key.namespace in namespaces:
            return AbsentReason.NAMESPACE
        refusal = self._report.open.get(key).refusal
        return _BY_OUTCOME.get(refusal.outcome, AbsentReason.WAITING) if refusal else AbsentReason.WAITING


def _is_unknown(state: ObjectState) -> bool:
    """Whether the object may exist without the source label, so that the watch does not show it."""
    return state.policy.mode is Mode.PAUSED and not state.last_applied
