"""What Git declares, merged over the sources: which object is declared by which manifest.

An object that two sources declare belongs to the one that stands first in the configuration, whatever the order in
which snapshots arrive, so that a restart decides as before. The other source's claim waits, and takes over when the
first drops its own.

Whether a kind has namespaces is known to the API server alone. Manifests of a kind that it does not serve (yet) wait
under `unknown_kinds` until `resolve`. A claim keeps the key under which it was filed: the kind may not be served, or in
another scope, when the claim is withdrawn.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from driftwatch.model import GroupKind, Manifest, ManifestId, ObjectKey

Namespaced = Callable[[GroupKind], bool | None]
Place = tuple[str, ManifestId]
"""Where a claim comes from: its source, and the manifest in it."""


class Declaration(msgspec.Struct, frozen=True, gc=False):
    """A source's declaration of an object."""

    source: str
    manifest: Manifest

    @property
    def place(self) -> Place:
        """Source and manifest."""
        manifest = self.manifest
        return self.source, ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)


class Conflict(msgspec.Struct, frozen=True):
    """An object that is declared twice, mostly by two sources: who keeps it and who is refused."""

    key: ObjectKey
    owner: Declaration
    refused: Declaration


def within(manifests: Sequence[Manifest], namespace: str | None) -> tuple[Sequence[Manifest], list[Manifest]]:
    """Manifests that a daemon which is confined to `namespace` keeps, and those that it refuses."""
    if not namespace:
        return manifests, []
    kept = [manifest for manifest in manifests if manifest.namespace == namespace]
    return kept, [manifest for manifest in manifests if manifest.namespace != namespace]


class Declared:
    """The claims of all sources. `namespaced` says of a kind whether it has namespaces, None where nobody knows."""

    def __init__(self, sources: Iterable[str], namespaced: Namespaced) -> None:
        self._order = {name: position for position, name in enumerate(sources)}
        self._namespaced = namespaced
        self._snapshots: dict[str, dict[ManifestId, Manifest]] = {name: {} for name in self._order}
        self._owned: dict[GroupKind, dict[ObjectKey, Declaration]] = {}
        self._waiting: dict[ObjectKey, dict[Place, Declaration]] = {}
        self._unknown: dict[GroupKind, set[Place]] = {}
        # The keys of filed claims, where they are not the manifest's id itself: those of kinds without namespaces whose
        # manifests name one. All others would cost memory for nothing.
        self._filed: dict[Place, ObjectKey] = {}

    def follow(self, sources: Iterable[str]) -> set[ObjectKey]:
        """Take claims of these sources, in this order, and of no others. Returns the objects that are affected."""
        order = {name: position for position, name in enumerate(sources)}
        affected: set[ObjectKey] = set()
        for gone in self._order.keys() - order.keys():
            affected |= self.replace(gone, [])
            del self._snapshots[gone]
        self._order = order
        for name in order:
            self._snapshots.setdefault(name, {})
        for key, waiting in list(self._waiting.items()):
            owner = self._owned[key.group_kind][key]
            first = min((owner.place, *waiting), key=self._rank)
            if first != owner.place:
                self._owned[key.group_kind][key] = waiting.pop(first)
                waiting[owner.place] = owner
                affected.add(key)
        return affected

    def get(self, key: ObjectKey) -> Declaration | None:
        """Who declares the object, and how."""
        kind = self._owned.get(key.group_kind)
        return kind.get(key) if kind else None

    def mentions(self, key: ObjectKey) -> bool:
        """Whether any source declares the object, also one of a kind that the API server is not known to serve."""
        if self.get(key) is not None:
            return True
        waiting = self._unknown.get(key.group_kind, ())
        return any(found.name == key.name and key.namespace in ("", found.namespace) for _, found in waiting)

    def manifest(self, key: ObjectKey) -> Manifest | None:
        """The manifest in force for the object."""
        declaration = self.get(key)
        return declaration.manifest if declaration else None

    def keys(self, kind: GroupKind) -> list[ObjectKey]:
        """Every declared object of the kind."""
        return list(self._owned.get(kind, ()))

    def declarations(self, kind: GroupKind) -> Iterator[Declaration]:
        """The claim in force of every declared object of the kind."""
        yield from self._owned.get(kind, {}).values()

    def places(self) -> Counter[tuple[str, GroupKind, str]]:
        """How many objects each source declares of each kind in each namespace."""
        return Counter(
            (declaration.source, kind, key.namespace)
            for kind, owned in self._owned.items()
            for key, declaration in owned.items()
        )

    @property
    def kinds(self) -> list[GroupKind]:
        """Every kind of which an object is declared and that is known to the API server."""
        return [kind for kind, owned in self._owned.items() if owned]

    @property
    def unknown_kinds(self) -> dict[GroupKind, list[tuple[str, Manifest]]]:
        """Kinds that the API server did not know when they were last looked for, with who declares them."""
        return {
            kind: [(source, self._snapshots[source][found]) for source, found in sorted(waiting)]
            for kind, waiting in self._unknown.items()
            if waiting
        }

    def manifests(self, source: str) -> dict[ManifestId, Manifest]:
        """The whole snapshot of a source, contested and unknown included."""
        return self._snapshots[source]

    def conflicts(self) -> list[Conflict]:
        """Every object that is declared more than once."""
        found = []
        for key, waiting in self._waiting.items():
            owner = self.get(key)
            if owner is not None:
                found += [Conflict(key, owner, refused) for refused in waiting.values()]
        return found

    def change(self, source: str, upserts: Iterable[Manifest], removed: Iterable[ManifestId]) -> set[ObjectKey]:
        """Take a source's change in. Returns the objects whose manifest in force may be another one now, or gone."""
        affected: set[ObjectKey] = set()
        snapshot = self._snapshots[source]
        for gone in removed:
            if snapshot.pop(gone, None) is not None:
                self._withdraw(source, gone, affected)
        for manifest in upserts:
            found = ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)
            filed = self._key_filed(source, found) if found in snapshot else None
            snapshot[found] = manifest
            self._file(source, found, filed, affected)
        return affected

    def replace(self, source: str, manifests: Iterable[Manifest]) -> set[ObjectKey]:
        """Take a source's whole snapshot in: what is not in it is removed."""
        new = list(manifests)
        kept = {ManifestId(m.group, m.kind, m.namespace, m.name) for m in new}
        return self.change(source, new, [found for found in self._snapshots[source] if found not in kept])

    def resolve(self, kind: GroupKind) -> set[ObjectKey]:
        """The API server serves this kind now. Returns the objects that became known, or have another key now."""
        affected: set[ObjectKey] = set()
        namespaced = self._namespaced(kind)
        if namespaced is None:
            return affected
        places = self._unknown.get(kind, set()) | {declaration.place for declaration in self.declarations(kind)}
        for key, waiting in self._waiting.items():
            if key.group_kind == kind:
                places |= waiting.keys()
        for source, found in sorted(places):
            filed = self._key_filed(source, found)
            if filed is None or filed != self._key(found):
                self._file(source, found, filed, affected)
        return affected

    def _key(self, found: ManifestId) -> ObjectKey | None:
        namespaced = self._namespaced(GroupKind(found.group, found.kind))
        if namespaced is None:
            return None
        if namespaced or not found.namespace:
            return found  # the same tuple, for memory's sake
        return ObjectKey(found.group, found.kind, "", found.name)

    def _key_filed(self, source: str, found: ManifestId) -> ObjectKey | None:
        """The key under which a source's manifest counts; None while its kind is unknown."""
        if (source, found) in self._unknown.get(GroupKind(found.group, found.kind), ()):
            return None
        return self._filed.get((source, found), found)

    def _rank(self, place: Place) -> tuple[int, ManifestId]:
        source, found = place
        return self._order[source], found

    def _file(self, source: str, found: ManifestId, filed: ObjectKey | None, affected: set[ObjectKey]) -> None:
        """Have the source's manifest count under its key. `filed` is the key under which it counted before."""
        key = self._key(found) or filed
        place = source, found
        kind = GroupKind(found.group, found.kind)
        if key is None:
            self._unknown.setdefault(kind, set()).add(place)
            return
        if filed is None:
            self._leave_unknown(kind, place)
        elif filed != key:
            self._withdraw(source, found, affected)
        if key != found:
            self._filed[place] = key
        declaration = Declaration(source, self._snapshots[source][found])
        owned = self._owned.setdefault(kind, {})
        owner = owned.get(key)
        if owner is None or owner.place == place:
            owned[key] = declaration
        elif self._rank(place) < self._rank(owner.place):
            self._waiting.setdefault(key, {})[owner.place] = owner
            owned[key] = declaration
        else:
            self._waiting.setdefault(key, {})[place] = declaration
            return
        affected.add(key)

    def _withdraw(self, source: str, found: ManifestId, affected: set[ObjectKey]) -> None:
        place = source, found
        kind = GroupKind(found.group, found.kind)
        if self._leave_unknown(kind, place):
            return
        key = self._filed.pop(place, found)
        waiting = self._waiting.get(key, {})
        if waiting.pop(place, None) is None:
            owned = self._owned[kind]
            if waiting:
                owned[key] = waiting.pop(min(waiting, key=self._rank))
            else:
                del owned[key]
            affected.add(key)
        if not waiting:
            self._waiting.pop(key, None)

    def _leave_unknown(self, kind: GroupKind, place: Place) -> bool:
        unknown = self._unknown.get(kind)
        if unknown is None or place not in unknown:
            return False
        unknown.discard(place)
        if not unknown:
            del self._unknown[kind]
        return True
