"""Field sets in the format of `managedFields` (FieldsV1): walk, compare, look up, cut and merge.

A path is a tuple of FieldsV1 steps: `f:spec`, `k:{"name":"nginx"}` for an item of a keyed list, `v:"x"` for a value
of a set, `i:0` for a position. structured-merge-diff's `fieldpath` package defines the format.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec

from driftwatch.drift.items import ItemIndex, StepIndex

Path = tuple[str, ...]
FieldTree = dict[str, Any]

SELF = "."  # the step that marks the map or item itself as owned


class Missing:
    """The value of a missing field. `MISSING` is the only instance."""

    def __repr__(self) -> str:
        return "<none>"


MISSING = Missing()

_decode_tree = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode


def tree(raw: msgspec.Raw) -> FieldTree:
    """Decode a `fieldsV1`. An unreadable one owns nothing. The API server decides what it means."""
    try:
        return _decode_tree(raw)
    except msgspec.MsgspecError:
        return {}


def leaves(node: FieldTree, prefix: Path = ()) -> list[Path]:
    """Every path that the field set owns. An owned map or item comes before the paths in it."""
    found: list[Path] = []
    for step, child in node.items():
        if step == SELF:
            found.append(prefix)
        elif child:
            found += leaves(child, (*prefix, step))
        else:
            found.append((*prefix, step))
    return found


def covers(node: FieldTree, value: Any) -> bool:
    """Whether a field set owns every field of a declared value.

    An empty node is an atomic field or a scalar. It owns everything in it. List keys that the manifest leaves out
    have a default (`protocol: TCP` of a port), so a missing key matches any value.
    """
    if not node or (len(node) == 1 and SELF in node):
        return not isinstance(value, dict | list) or not value or not node
    if isinstance(value, dict):
        return all(f"f:{key}" in node and covers(node[f"f:{key}"], child) for key, child in value.items())
    if isinstance(value, list):
        index = StepIndex(node)
        return all(_covers_item(index, item) for item in value)
    return False


def _covers_item(index: StepIndex, item: Any) -> bool:
    return any(not isinstance(item, dict) or covers(index.node[step], item) for step in index.steps(item))


def _has_keys(item: dict[str, Any], keys: dict[str, Any]) -> bool:
    return all(key not in item or item[key] == value for key, value in keys.items())


def _scan(items: list[Any], step: str) -> int | None:
    """Position of the first item that a step selects. For a single lookup this is cheaper than an index."""
    wanted = _decode_any(step[2:])
    if step.startswith("v:"):
        return items.index(wanted) if wanted in items else None
    return next(
        (position for position, item in enumerate(items) if isinstance(item, dict) and _has_keys(item, wanted)), None
    )


def _enter(value: Any, step: str, find: Callable[[list[Any], str], int | None]) -> Any:
    kind, name = step[:2], step[2:]
    if kind == "f:" and isinstance(value, dict):
        return value.get(name, MISSING)
    if kind in ("k:", "v:") and isinstance(value, list):
        position = find(value, step)
        return MISSING if position is None else value[position]
    if kind == "i:" and isinstance(value, list):
        return value[int(name)] if int(name) < len(value) else MISSING
    return MISSING


def lookup(value: Any, path: Path) -> Any:
    """The value at a path of an object, or `MISSING`. Use a `Document` for many paths of one object."""
    for step in path:
        value = _enter(value, step, _scan)
    return value


class Document:
    """An object for the lookup of many paths. Each list is indexed once. Only `put` may change the object."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._indexes: dict[int, ItemIndex] = {}  # by id: an index keeps its list alive
        self._parents: dict[Path, Any] = {}  # parents of the values that were looked up

    def lookup(self, path: Path) -> Any:
        """The value at a path, or `MISSING`."""
        return _enter(self._parent(path[:-1]), path[-1], self._find) if path else self.value

    def _parent(self, path: Path) -> Any:
        if not path:
            return self.value
        value = self._parents.get(path, self)
        if value is self:
            value = self._parents[path] = _enter(self._parent(path[:-1]), path[-1], self._find)
        return value

    def put(self, path: Path, new: Any) -> None:
        """Put a value at a path. Creates missing parents."""
        self._parents.clear()
        value = self.value
        for step, after in pairwise(path):
            value = self._entered(value, step, [] if after[:2] in ("k:", "v:", "i:") else {})
        step, name = path[-1][:2], path[-1][2:]
        if step == "f:":
            value[name] = new
        elif (position := self.position(value, path[-1])) is None:
            self._append(value, new)
        elif value[position] != new:
            value[position] = new
            self._indexes.pop(id(value), None)

    def position(self, items: list[Any], step: str) -> int | None:
        """Position of the first item that a step selects in a list of the object. None without one."""
        if step.startswith("i:"):
            return int(step[2:]) if int(step[2:]) < len(items) else None
        return self._find(items, step)

    def _find(self, items: list[Any], step: str) -> int | None:
        index = self._indexes.get(id(items))
        if index is None:
            index = self._indexes[id(items)] = ItemIndex(items)
        return index.find(step)

    def _append(self, items: list[Any], new: Any) -> None:
        items.append(new)
        if (index := self._indexes.get(id(items))) is not None:
            index.added()

    def _entered(self, value: Any, step: str, empty: Any) -> Any:
        if step[:2] == "f:":
            return value.setdefault(step[2:], empty)
        found = _enter(value, step, self._find)
        if found is MISSING:
            found = item_keys(step) or empty
            self._append(value, found)
        return found


def contains(node: FieldTree, path: Path) -> bool:
    """Whether the field set owns the path itself, or an atomic field above it."""
    if not node:
        return False  # an empty set owns nothing, but an empty node in a set owns everything below
    for step in path:
        if not node:
            return True
        if step not in node:
            return False
        node = node[step]
    return not node or SELF in node


def owns_below(node: FieldTree, path: Path) -> bool:
    """Whether the field set owns the path or anything in it."""
    root = node
    for step in path:
        if step not in node:
            return not node and node is not root
        node = node[step]
    return True


def insert(node: FieldTree, path: Path) -> None:
    """Add a path to the field set."""
    for position, step in enumerate(path):
        last = position == len(path) - 1
        existing = node.get(step)
        if existing is None:
            existing = node[step] = {}
        elif not existing and not last:
            existing[SELF] = {}
        node = existing
    if node:
        node[SELF] = {}


def remove(node: FieldTree, path: Path) -> None:
    """Remove a path from the field set. Also removes branches that own nothing afterwards."""
    if not path:
        node.pop(SELF, None)
        return
    child = node.get(path[0])
    if child is None:
        return
    if not child:  # atomic: it can be removed only as a whole
        if len(path) == 1:
            del node[path[0]]
        return
    remove(child, path[1:])
    if not child:
        del node[path[0]]


def merge(into: FieldTree, other: FieldTree) -> None:
    """Add the paths of another field set."""
    for step, child in other.items():
        existing = into.get(step)
        if existing is None:
            into[step] = {}
            merge(into[step], child)
        elif child:
            if not existing:
                existing[SELF] = {}
            merge(existing, child)
        elif existing:
            existing[SELF] = {}


class Shape:
    """Finds the steps to list items by the keys in field sets. Each list of a field set is indexed once."""

    def __init__(self) -> None:
        self._indexes: dict[int, StepIndex] = {}  # by id: an index keeps its node alive

    def list_step(self, node: FieldTree, item: Any, position: int) -> str:
        """The step to a list item: by its keys if the node has them, by its value in a set, else by its position."""
        index = self._indexes.get(id(node))
        if index is None:
            index = self._indexes[id(node)] = StepIndex(node)
        return next(iter(index.steps(item)), f"i:{position}")


def list_steps(node: FieldTree, items: list[Any]) -> list[str]:
    """The step to each item of a list."""
    shape = Shape()
    return [shape.list_step(node, item, position) for position, item in enumerate(items)]


def live_paths(value: Any, shape: FieldTree, prefix: Path = ()) -> list[Path]:
    """Every path in an object. A map, list or item comes before the paths in it.

    `shape` is a field set that contains the list keys. A list without keys in `shape` is one value.
    """
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"f:{name}", child) for name, child in value.items()]
    elif isinstance(value, list):
        children = [(_item_step(shape, item), item) for item in value]
    found: list[Path] = []
    if all(step for step, _ in children):
        for step, child in children:
            path = (*prefix, step)
            found += [path, *live_paths(child, shape.get(step) or _of_another_item(shape, step), path)]
    return found


def _of_another_item(shape: FieldTree, step: str) -> FieldTree:
    """The field set of another item of the list. Nested lists have the same keys in every item."""
    return next((shape[other] for other in shape if other[:2] == step[:2] == "k:"), {})


def _item_step(shape: FieldTree, item: Any) -> str:
    """The step to an item by keys or by value, like the other steps of the list. "" if no step shows which."""
    for step in shape:
        if step.startswith("v:") and not isinstance(item, dict | list):
            return "v:" + msgspec.json.encode(item).decode()
        if step.startswith("k:") and isinstance(item, dict):
            keys = {name: item[name] for name in _decode_any(step[2:]) if name in item}
            return "k:" + msgspec.json.encode(keys).decode() if keys else ""
    return ""


def item_keys(step: str) -> dict[str, Any]:
    """The keys that identify a list item. Empty for any other step."""
    return dict(_decode_any(step[2:])) if step.startswith("k:") else {}


def cut(value: Any, path: Path) -> None:
    """Remove the value at the path from a document. Also removes maps and lists that become empty."""
    cut_all(value, [path])


def cut_all(value: Any, paths: Iterable[Path]) -> None:
    """Remove the values at the paths from a document. Also removes maps and lists that become empty."""
    wanted: FieldTree = {}
    for path in paths:
        node = wanted
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node.setdefault(path[-1], {})[SELF] = {}
    _cut(value, wanted)


def _cut(value: Any, wanted: FieldTree) -> bool:
    """Remove the wanted paths. Returns whether anything was removed and nothing is left."""
    document = Document(value)
    gone: list[str] = []
    for step, inner in wanted.items():
        found = MISSING if step == SELF else document.lookup((step,))
        if found is not MISSING and (SELF in inner or _cut(found, inner)):
            gone.append(step)
    if isinstance(value, dict):
        for step in gone:
            del value[step[2:]]
    elif gone:
        positions = {document.position(value, step) for step in gone}
        value[:] = [item for position, item in enumerate(value) if position not in positions]
    return bool(gone) and not value


def put(value: Any, path: Path, new: Any) -> None:
    """Put a value at the path of a document. Creates missing parents."""
    Document(value).put(path, new)


def text(path: Path) -> str:
    """The path in the usual Kubernetes notation: `spec.template.spec.containers[name="nginx"].image`."""
    written = ""
    for step in path:
        kind, name = step[:2], step[2:]
        if kind == "k:":
            keys = _decode_any(name)
            written += (
                "["
                + ",".join(
                    f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in keys.items()
                )
                + "]"
            )
        elif kind in ("v:", "i:"):
            written += f"[{name}]"
        elif name.replace("_", "").isalnum():
            written += f".{name}" if written else name
        else:
            written += f'["{name}"]'
    return written
