"""States of objects that Git declares, without the sources that would declare them."""

from collections.abc import Mapping

from driftwatch.drift.object_state import Declaration, ObjectStates
from driftwatch.model import Manifest, ObjectKey


def states_of(manifests: Mapping[ObjectKey, Manifest] | None = None, source: str = "apps") -> ObjectStates:
    """The state of each of these objects, declared by one source."""
    states = ObjectStates()
    for key, manifest in (manifests or {}).items():
        states.of(key).declaration = Declaration(source, manifest)
    return states
