"""What is declared, compared with a plain model, while sources change and kinds come, go and change their scope."""

from driftwatch.drift.desired_state import Declared
from driftwatch.model import GroupKind, Manifest, ManifestId, ObjectKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

SOURCES = ("first", "second", "third")
KINDS = tuple(GroupKind("example.com", kind) for kind in ("Gadget", "Widget"))
NAMES = [ManifestId("example.com", kind.kind, namespace, "one") for kind in KINDS for namespace in ("", "a", "b")]

sources = st.sampled_from(SOURCES)
kinds = st.sampled_from(KINDS)
ids = st.sets(st.sampled_from(NAMES), max_size=4)
digests = st.sampled_from(["d1", "d2"])
Place = tuple[str, ManifestId]


def manifest(found: ManifestId, digest: str) -> Manifest:
    return Manifest(found.group, "v1", found.kind, found.namespace, found.name, b"{}", digest, "a.yaml", 1)


class DeclaredMachine(RuleBasedStateMachine):
    """The model knows of each declaration its manifest, and the key under which it counts, None for none yet."""

    def __init__(self) -> None:
        super().__init__()
        self.order = list(SOURCES[:2])
        self.scopes: dict[GroupKind, bool | None] = {KINDS[0]: True, KINDS[1]: None}
        self.model: dict[Place, Manifest] = {}
        self.keys: dict[Place, ObjectKey | None] = {}
        self.declared = Declared(self.order, lambda kind: self.scopes[kind])

    def key(self, found: ManifestId) -> ObjectKey | None:
        namespaced = self.scopes[GroupKind(found.group, found.kind)]
        if namespaced is None:
            return None
        return ObjectKey(found.group, found.kind, found.namespace if namespaced else "", found.name)

    def drop(self, place: Place) -> None:
        self.model.pop(place, None)
        self.keys.pop(place, None)

    def put(self, place: Place, digest: str) -> None:
        self.model[place] = manifest(place[1], digest)
        self.keys[place] = self.key(place[1]) or self.keys.get(place)

    def last_applied(self) -> dict[ObjectKey, tuple[str, str]]:
        """The source and the digest that each object has; the first source's first manifest wins."""
        found: dict[ObjectKey, tuple[str, str]] = {}
        for place in sorted(self.model, key=lambda place: (self.order.index(place[0]), place[1])):
            key = self.keys[place]
            if key is not None:
                found.setdefault(key, (place[0], self.model[place].digest))
        return found

    def check(self, before: dict[ObjectKey, tuple[str, str]], affected: set[ObjectKey]) -> None:
        after = self.last_applied()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        assert changed <= affected

    @rule(source=sources, upserts=ids, removed=ids, digest=digests)
    def change(self, source: str, upserts: set[ManifestId], removed: set[ManifestId], digest: str) -> None:
        """A commit changes some objects of a source."""
        if source not in self.order:
            return
        before = self.last_applied()
        for found in removed:
            self.drop((source, found))
        for found in upserts:
            self.put((source, found), digest)
        affected = self.declared.change(source, [manifest(found, digest) for found in upserts], removed)
        self.check(before, affected)

    @rule(source=sources, kept=ids, digest=digests)
    def replace(self, source: str, kept: set[ManifestId], digest: str) -> None:
        """A whole snapshot of a source arrives."""
        if source not in self.order:
            return
        before = self.last_applied()
        for found in NAMES:
            if found in kept:
                self.put((source, found), digest)
            else:
                self.drop((source, found))
        self.check(before, self.declared.replace(source, [manifest(found, digest) for found in kept]))

    @rule(order=st.lists(sources, unique=True))
    def follow(self, order: list[str]) -> None:
        """The configuration names other sources, or another order."""
        before = self.last_applied()
        for place in [place for place in self.model if place[0] not in order]:
            self.drop(place)
        self.order = order
        self.check(before, self.declared.follow(order))

    @rule(kind=kinds)
    def kind_gone(self, kind: GroupKind) -> None:
        """The API server does not serve the kind any more."""
        self.scopes[kind] = None

    @rule(kind=kinds, namespaced=st.booleans())
    def kind_served(self, kind: GroupKind, namespaced: bool) -> None:
        """The API server serves the kind, maybe in another scope than before."""
        before = self.last_applied()
        self.scopes[kind] = namespaced
        for place in self.model:
            if GroupKind(place[1].group, place[1].kind) == kind:
                self.keys[place] = self.key(place[1])
        self.check(before, self.declared.resolve(kind))

    @invariant()
    def agrees(self) -> None:
        """Every object, every refused declaration and every unknown kind is as the model has it."""
        expected = self.last_applied()
        found = {key: self.declared.get(key) for kind in self.declared.kinds for key in self.declared.keys(kind)}
        assert {
            key: (declaration.source, declaration.manifest.digest) for key, declaration in found.items() if declaration
        } == expected
        assert sum(self.declared.places().values()) == len(expected)
        filed = sum(key is not None for key in self.keys.values())
        assert len(self.declared.conflicts()) == filed - len(expected)
        unknown = sorted(place for place, key in self.keys.items() if key is None)
        told = [
            (source, ManifestId(each.group, each.kind, each.namespace, each.name))
            for waiting in self.declared.unknown_kinds.values()
            for source, each in waiting
        ]
        assert sorted(told) == unknown


TestDeclaredMachine = DeclaredMachine.TestCase
TestDeclaredMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
