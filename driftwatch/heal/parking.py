"""Keys that cannot be worked on before something else happens: a namespace is gone and back, a kind is served."""

from driftwatch.model import GroupKind, ObjectKey


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

    def namespace_ready(self, namespace: str) -> set[ObjectKey]:
        """Release what waited for the namespace."""
        return self._namespaces.pop(namespace, set())

    def kind_ready(self, kind: GroupKind) -> set[ObjectKey]:
        """Release what waited for the kind."""
        return self._kinds.pop(kind, set())

    def forget(self, key: ObjectKey) -> None:
        """The object is not declared any more."""
        for parked in (self._namespaces, self._kinds):
            for waited_for, keys in list(parked.items()):
                keys.discard(key)
                if not keys:
                    del parked[waited_for]  # type: ignore[attr-defined]
