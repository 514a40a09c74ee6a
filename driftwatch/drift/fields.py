"""Field sets as `managedFields` writes them (FieldsV1): walk, compare, look up, cut and join.

A path is a tuple of FieldsV1 steps: `f:spec`, `k:{"name":"nginx"}` for an item of a keyed list, `v:"x"` for a value
of a set, `i:0` for a position. The format is that of structured-merge-diff's `fieldpath` package.
"""

from itertools import pairwise
from typing import Any

import msgspec

Path = tuple[str, ...]
FieldTree = dict[str, Any]

SELF = "."  # the step that says "this map or item itself is owned"


class Missing:
    """The value of a field that is not there; its only instance is `MISSING`."""

    def __repr__(self) -> str:
        return "<none>"


MISSING = Missing()

_decode_tree = msgspec.json.Decoder(dict[str, Any]).decode
_decode_any = msgspec.json.Decoder().decode


def tree(raw: msgspec.Raw) -> FieldTree:
    """Decode a `fieldsV1`. An unreadable one owns nothing: the API server decides what that means, not we."""
    try:
        return _decode_tree(raw)
    except msgspec.MsgspecError:
        return {}


def leaves(node: FieldTree, prefix: Path = ()) -> list[Path]:
    """Every path that the field set owns; a map or item that is owned itself comes before what is in it."""
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

    An empty node is an atomic field, or a scalar: it owns all that is in it. List keys that the manifest leaves out
    have a default (`protocol: TCP` of a port), so a missing one fits any.
    """
    if not node or (len(node) == 1 and SELF in node):
        return not isinstance(value, dict | list) or not value or not node
    if isinstance(value, dict):
        return all(f"f:{key}" in node and covers(node[f"f:{key}"], child) for key, child in value.items())
    if isinstance(value, list):
        return all(_covers_item(node, item) for item in value)
    return False


def _covers_item(node: FieldTree, item: Any) -> bool:
    for step, child in node.items():
        if step.startswith("k:") and isinstance(item, dict):
            if _has_keys(item, _decode_any(step[2:])) and covers(child, item):
                return True
        elif step.startswith("v:") and not isinstance(item, dict | list) and _decode_any(step[2:]) == item:
            return True
    return False


def _has_keys(item: dict[str, Any], keys: dict[str, Any]) -> bool:
    return all(key not in item or item[key] == value for key, value in keys.items())


def lookup(value: Any, path: Path) -> Any:
    """The value at a path of an object, or `MISSING`."""
    for step in path:
        kind, name = step[:2], step[2:]
        if kind == "f:" and isinstance(value, dict):
            value = value.get(name, MISSING)
        elif kind == "k:" and isinstance(value, list):
            keys = _decode_any(name)
            value = next((item for item in value if isinstance(item, dict) and _has_keys(item, keys)), MISSING)
        elif kind == "v:" and isinstance(value, list):
            wanted = _decode_any(name)
            value = wanted if wanted in value else MISSING
        elif kind == "i:" and isinstance(value, list):
            value = value[int(name)] if int(name) < len(value) else MISSING
        else:
            return MISSING
    return value


def contains(node: FieldTree, path: Path) -> bool:
    """Whether the field set owns the path itself, or an atomic field above it."""
    if not node:
        return False  # an empty set owns nothing; an empty node in it owns all that is below
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
    """Take a path out of the field set, and the branches that own nothing afterwards."""
    if not path:
        node.pop(SELF, None)
        return
    child = node.get(path[0])
    if child is None:
        return
    if not child:  # owned as a whole: only that can be taken away
        if len(path) == 1:
            del node[path[0]]
        return
    remove(child, path[1:])
    if not child:
        del node[path[0]]


def merge(into: FieldTree, other: FieldTree) -> None:
    """Add what another field set owns."""
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


def list_step(node: FieldTree, item: Any, position: int) -> str:
    """The step to an item of a list: its keys where the field set knows them, its value in a set, else its position."""
    for step in node:
        if step.startswith("k:") and isinstance(item, dict) and _has_keys(item, _decode_any(step[2:])):
            return step
        if step.startswith("v:") and not isinstance(item, dict | list) and _decode_any(step[2:]) == item:
            return step
    return f"i:{position}"


def live_paths(value: Any, shape: FieldTree, prefix: Path = ()) -> list[Path]:
    """Every path in an object, a map, list or item before what is in it; `shape` is a field set that tells list keys.

    A list of which it tells nothing is one value.
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
    """What is known of another item of the list: it has lists by the same keys in it."""
    others: list[FieldTree] = [shape[other] for other in shape if other[:2] == step[:2] == "k:"]
    return others[0] if others else {}


def _item_step(shape: FieldTree, item: Any) -> str:
    """The step to an item by its keys or value, as other steps of the list have it; "" where none tells."""
    for step in shape:
        if step.startswith("v:") and not isinstance(item, dict | list):
            return "v:" + msgspec.json.encode(item).decode()
        if step.startswith("k:") and isinstance(item, dict):
            keys = {name: item[name] for name in _decode_any(step[2:]) if name in item}
            return "k:" + msgspec.json.encode(keys).decode() if keys else ""
    return ""


def item_keys(step: str) -> dict[str, Any]:
    """The keys that tell the item of a list, empty for a step to anything else."""
    return dict(_decode_any(step[2:])) if step.startswith("k:") else {}


def cut(value: Any, path: Path) -> None:
    """Take what is at the path out of a document, and the maps and lists that are empty without it."""
    found = lookup(value, path)
    if found is MISSING:
        return
    parent, step = lookup(value, path[:-1]), path[-1]
    if isinstance(parent, dict):
        del parent[step[2:]]
    else:
        parent.remove(found)
    if not parent and len(path) > 1:
        cut(value, path[:-1])


def put(value: Any, path: Path, new: Any) -> None:
    """Put a value at the path of a document; what is missing on the way is made."""
    for step, after in pairwise(path):
        value = _entered(value, step, [] if after[:2] in ("k:", "v:", "i:") else {})
    step, name = path[-1][:2], path[-1][2:]
    if step == "f:":
        value[name] = new
    elif (found := lookup(value, path[-1:])) is MISSING:
        value.append(new)
    elif found != new:
        value[value.index(found)] = new


def _entered(value: Any, step: str, empty: Any) -> Any:
    if step[:2] == "f:":
        return value.setdefault(step[2:], empty)
    found = lookup(value, (step,))
    if found is MISSING:
        found = item_keys(step) or empty
        value.append(found)
    return found


def text(path: Path) -> str:
    """The path as people of Kubernetes write it: `spec.template.spec.containers[name="nginx"].image`."""
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
