"""Random manifests of many kinds and random edits of them.

A kind is described by a shape: what its fields are, and how the API server merges them (as one value, by key, as a
set). From the shape come manifests, edits that the API server accepts more often than not, and, without a look at
what driftwatch does, the paths at which a live object differs from its manifest.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from hypothesis import strategies as st

Manifest = dict[str, Any]


class Absent(Enum):
    """`GONE` as a value means that nothing is there."""

    GONE = "gone"


GONE = Absent.GONE


class Item(NamedTuple):
    """The step to an item of a list that is merged by keys."""

    keys: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return "[" + ",".join(f"{name}={json.dumps(value)}" for name, value in self.keys) + "]"


class Member(NamedTuple):
    """The step to a value of a list that is a set."""

    value: Any

    def __str__(self) -> str:
        return f"[{json.dumps(self.value)}]"


Step = str | Item | Member
Path = tuple[Step, ...]


class Change(NamedTuple):
    """Set what is at a path, or take it away."""

    path: Path
    value: Any


def written(path: Path) -> str:
    """A path as people write it."""
    text = ""
    for step in path:
        if not isinstance(step, str):
            text += str(step)
        elif step.replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


Changes = Iterator[st.SearchStrategy[Change]]


class Leaf:
    """A field that is set as a whole: a scalar, or what the API server calls atomic."""

    def __init__(self, values: st.SearchStrategy[Any], canonical: Callable[[Any], Any] = lambda value: value) -> None:
        self.values = values
        self._canonical = canonical

    def changes(self, _declared: Any, path: Path, *, optional: bool) -> Changes:
        """Edits of a field that is declared."""
        yield self.values.map(lambda value: Change(path, value))
        if optional:
            yield st.just(Change(path, GONE))

    def differences(self, declared: Any, live: Any, path: Path) -> Iterator[Path]:
        """Topmost paths at which a live value is not the declared one."""
        if live is GONE or self._canonical(declared) != self._canonical(live):
            yield path


class Struct:
    """An object of named fields."""

    def __init__(self, required: dict[str, Any], optional: dict[str, Any] | None = None) -> None:
        self.required = required
        self.optional = optional or {}
        self._fields = {**required, **self.optional}
        self.values = st.fixed_dictionaries(
            {name: shape.values for name, shape in required.items()},
            optional={name: shape.values for name, shape in self.optional.items()},
        )

    def changes(self, declared: dict[str, Any], path: Path, *, optional: bool) -> Changes:
        """Edits of what is declared, and additions of fields that are not."""
        for name, shape in self._fields.items():
            at = (*path, name)
            if name in declared:
                yield from shape.changes(declared[name], at, optional=name in self.optional)
            else:
                yield shape.values.map(lambda value, at=at: Change(at, value))
        if optional:
            yield st.just(Change(path, GONE))

    def differences(self, declared: dict[str, Any], live: Any, path: Path) -> Iterator[Path]:
        """Topmost paths at which a live value is not the declared one."""
        for name, value in declared.items():
            found = live.get(name, GONE) if isinstance(live, dict) else GONE
            yield from self._fields[name].differences(value, found, (*path, name))


class Map:
    """Free keys with values of one shape."""

    def __init__(self, names: tuple[str, ...], others: tuple[str, ...], value: Any) -> None:
        self._others = others
        self._value = value
        self.values = st.dictionaries(st.sampled_from(names), value.values, min_size=1, max_size=len(names))

    def changes(self, declared: dict[str, Any], path: Path, *, optional: bool) -> Changes:
        """Edits of declared keys, and additions of others."""
        for name, value in declared.items():
            yield from self._value.changes(value, (*path, name), optional=True)
        for name in self._others:
            yield self._value.values.map(lambda value, at=(*path, name): Change(at, value))
        if optional:
            yield st.just(Change(path, GONE))

    def differences(self, declared: dict[str, Any], live: Any, path: Path) -> Iterator[Path]:
        """Topmost paths at which a live value is not the declared one."""
        for name, value in declared.items():
            found = live.get(name, GONE) if isinstance(live, dict) else GONE
            yield from self._value.differences(value, found, (*path, name))


class Keyed:
    """A list whose items are told apart by keys; `defaults` are of keys that a manifest may leave out."""

    def __init__(
        self,
        names: tuple[dict[str, Any], ...],
        others: tuple[dict[str, Any], ...],
        item: Struct,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        self._others = others
        self._item = item
        self._keys = sorted({*names[0], *(defaults or {})})
        self._defaults = defaults or {}
        chosen = st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique_by=self._identity)
        self.values = chosen.flatmap(self._items)

    def _items(self, chosen: list[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
        return st.tuples(*(self._item.values.map(lambda value, keys=keys: {**keys, **value}) for keys in chosen)).map(
            list
        )

    def _identity(self, item: dict[str, Any]) -> Item:
        return Item(tuple((key, item.get(key, self._defaults.get(key))) for key in self._keys))

    def changes(self, declared: list[dict[str, Any]], path: Path, *, optional: bool) -> Changes:
        """Edits of declared items, their removal, and additions of others."""
        for item in declared:
            at = (*path, self._identity(item))
            yield from self._item.changes(self._content(item), at, optional=optional or len(declared) > 1)
        for keys in self._others:
            at = (*path, self._identity(keys))
            yield self._item.values.map(lambda value, at=at, keys=keys: Change(at, {**keys, **value}))

    def _content(self, item: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in item.items() if name not in self._keys}

    def differences(self, declared: list[dict[str, Any]], live: Any, path: Path) -> Iterator[Path]:
        """Topmost paths at which a live value is not the declared one."""
        found = {self._identity(item): item for item in live} if isinstance(live, list) else {}
        for item in declared:
            identity = self._identity(item)
            if identity not in found:
                yield (*path, identity)
            else:
                yield from self._item.differences(self._content(item), found[identity], (*path, identity))


class Members:
    """A list that is a set."""

    def __init__(self, names: tuple[Any, ...], others: tuple[Any, ...]) -> None:
        self._others = others
        self.values = st.lists(st.sampled_from(names), min_size=1, unique=True)

    def changes(self, declared: list[Any], path: Path, *, optional: bool) -> Changes:
        """Removals of declared values, and additions of others."""
        for value in declared:
            yield st.just(Change((*path, Member(value)), GONE))
        for value in self._others:
            yield st.just(Change((*path, Member(value)), value))
        if optional:
            yield st.just(Change(path, GONE))

    def differences(self, declared: list[Any], live: Any, path: Path) -> Iterator[Path]:
        """Topmost paths at which a live value is not the declared one."""
        for value in declared:
            if not isinstance(live, list) or value not in live:
                yield (*path, Member(value))


def one_of(*values: Any) -> Leaf:
    """A field with one of these values."""
    return Leaf(st.sampled_from(values))


_SUFFIXES = {"m": Decimal("0.001"), "k": Decimal(1000), "Ki": Decimal(1024), "Mi": Decimal(2**20), "Gi": Decimal(2**30)}


def amount(quantity: Any) -> Decimal:
    """What a quantity of Kubernetes amounts to: `1000m` is 1."""
    text = str(quantity)
    for suffix, factor in _SUFFIXES.items():
        if text.endswith(suffix):
            return Decimal(text.removesuffix(suffix)) * factor
    return Decimal(text)


def quantity(*values: str) -> Leaf:
    """A field with one of these quantities; several can be the same amount."""
    return Leaf(st.sampled_from(values), amount)


words = st.text(alphabet='aZ9 é-"\n', max_size=8)
base64_words = words.map(lambda text: base64.b64encode(text.encode()).decode())
_SHORT = one_of("a", "b", "true", "1")

LABELS = Map(("team", "app.kubernetes.io/part-of", "tier"), ("x-added", "example.com/added"), _SHORT)
ANNOTATIONS = Map(("note", "example.com/owner"), ("x-note", "example.com/x-note"), Leaf(words))
METADATA = Struct({}, {"labels": LABELS, "annotations": ANNOTATIONS})


@dataclass(frozen=True, eq=False)
class KindOf:
    """A kind that manifests are made of. `swaps` are edits of several fields at once that exclude one another."""

    api_version: str
    kind: str
    fields: Struct
    swaps: tuple[tuple[Change, ...], ...] = ()
    scales: bool = False
    status: dict[str, Any] | None = None
    strategic: bool = True

    @property
    def shape(self) -> Struct:
        """The manifest without what names it."""
        return Struct({**self.fields.required, "metadata": METADATA}, self.fields.optional)

    def manifests(self, namespace: str, name: str) -> st.SearchStrategy[Manifest]:
        """Manifests of one object."""

        def named(body: dict[str, Any]) -> Manifest:
            metadata = {"name": name, "namespace": namespace, **body["metadata"]}
            return {"apiVersion": self.api_version, "kind": self.kind, **body, "metadata": metadata}

        return self.shape.values.map(named)

    def changes(self, manifest: Manifest) -> st.SearchStrategy[tuple[Change, ...]]:
        """Edits of an object that a manifest declares: mostly of one field, sometimes of what excludes one another."""
        single = st.one_of(*self.shape.changes(_body(manifest), (), optional=False)).map(lambda change: (change,))
        rare = [st.sampled_from(found) for found in (self.swaps, TRACKING) if found]
        return st.one_of(single, single, single, *rare)

    def differences(self, manifest: Manifest, live: Manifest) -> set[Path]:
        """Topmost paths at which a live object is not as its manifest says; label and annotations of ours aside."""
        return set(self.shape.differences(_body(manifest), live, ()))


def _body(manifest: Manifest) -> dict[str, Any]:
    body = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    return {**body, "metadata": {k: v for k, v in body["metadata"].items() if k not in ("name", "namespace")}}


SOURCE = ("metadata", "labels", "driftwatch.io/source")
IDENTITY = ("metadata", "annotations", "driftwatch.io/id")
DIGEST = ("metadata", "annotations", "driftwatch.io/desired-hash")
TRACKING = (
    (Change(SOURCE, GONE),),
    (Change(SOURCE, "other"),),
    (Change(IDENTITY, GONE),),
    (Change(DIGEST, "0123456789abcdef"),),
    (Change(("metadata", "labels"), GONE),),
    (Change(("metadata", "annotations"), GONE),),
)
