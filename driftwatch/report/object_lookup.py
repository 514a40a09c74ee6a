"""Looks up an object for reports: where Git declares it, and its reference for Kubernetes Events."""

import msgspec

from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import Mode, ObjectKey


class Reference(msgspec.Struct, frozen=True):
    """The `regarding` reference of an Event."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str


class ObjectLookup:
    """Looks up objects in the declared state and in the detector's object states."""

    def __init__(self, declared: Declared, detector: Detector) -> None:
        self._declared = declared
        self._detector = detector

    def declared_at(self, key: ObjectKey) -> tuple[str, int]:
        """File and line of the manifest in force, "" and 0 without one."""
        declaration = self._declared.get(key)
        return (declaration.manifest.file, declaration.manifest.line) if declaration else ("", 0)

    def source(self, key: ObjectKey) -> str:
        """The source that declares the object, "" when none does."""
        declaration = self._declared.get(key)
        return declaration.source if declaration else ""

    def reference(self, key: ObjectKey) -> Reference | None:
        """The reference for Events about the object. None when no Event may be written.

        Observe mode writes nothing to the cluster. An object that Git does not declare gets no Events.
        """
        declaration, state = self._declared.get(key), self._detector.states.get(key)
        if declaration is None or state is None or state.policy.mode is Mode.OBSERVE:
            return None
        manifest = declaration.manifest
        version = f"{manifest.group}/{manifest.version}" if manifest.group else manifest.version
        return Reference(version, key.kind, key.namespace, key.name, state.uid)

    def wish(self, key: ObjectKey) -> SnoozeRequest | None:
        """The snooze request in the live object's annotation, None without one."""
        state = self._detector.states.get(key)
        return state.snooze if state else None

    def snoozed(self) -> list[ObjectKey]:
        """Objects that carry a snooze annotation."""
        return [key for key, state in self._detector.states.items() if state.snooze]

    def count(self) -> int:
        """Number of managed objects."""
        return len(self._detector.states)
