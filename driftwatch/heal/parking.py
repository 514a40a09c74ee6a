"""Keys that cannot be worked on before something else happens: a namespace is gone and back, a kind is served."""

from typing import TypeVar

from driftwatch.model import GroupKind, ObjectKey

Awaited = TypeVar("Awaited")


class Parking:
    """Parked keys by what they wait for. They are released by events, never by guessing."""

    def __init__(self) -> None:
        self._namespaces: dict[str, set[ObjectKey]] = {}
        self._kinds: dict[GroupKind, set[ObjectKey]] = {}

    def at_namespace(self, key: ObjectKey) -> None:
        """The key waits for its namespace."""
        self._namespaces.setdefault(key.namespace, set()).add(key)

    def at_kind(self, key: ObjectKey) -> None:
        """The key waits for its kind to be served."""
        self._kinds.setdefault(key.group_kind, set()).add(key)

    @property
    def namespaces(self) -> set[str]:
        """Namespaces that keys wait for."""
        return set(self._namespaces)

    @property
    def kinds(self) -> set[GroupKind]:
        """Kinds that keys wait for."""
        return set(self._kinds)

    @property
    def counts(self) -> dict[str, int]:
        """How many keys wait for their namespace, and how many for their kind."""
        return {
            "namespace": sum(map(len, self._namespaces.values())),
            "kind": sum(map(len, self._kinds.values())),
        }

    def namespace_ready(self, namespace: str) -> set[ObjectKey]:
        """Release what waited for the namespace."""
        return self._namespaces.pop(namespace, set())

    def kind_ready(self, kind: GroupKind) -> set[ObjectKey]:
        """Release what waited for the kind."""
        return self._kinds.pop(kind, set())

    def forget(self, key: ObjectKey) -> None:
        """The object is not declared any more."""
        _discard(self._namespaces, key.namespace, key)
        _discard(self._kinds, key.group_kind, key)


def _discard(parked: dict[Awaited, set[ObjectKey]], awaited: Awaited, key: ObjectKey) -> None:
    keys = parked.get(awaited, set())
    keys.discard(key)
    if not keys:
        parked.pop(awaited, None)
