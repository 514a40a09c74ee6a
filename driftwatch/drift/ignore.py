"""Ignored fields: Git's value on create, the live value afterwards.

Server-side apply handles ignored fields by owner. A field of another manager is left out of the apply. A field that
driftwatch owns is sent with its live value, because leaving it out would delete it. No rule applies to the fields that
identify an object or mark it as driftwatch's. A watch by our label would no longer show an object without the label.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import orjson

from driftwatch.drift.additions import Addition
from driftwatch.drift.fieldset import (
    MISSING,
    SELF,
    Document,
    FieldTree,
    Path,
    Shape,
    contains,
    covers,
    cut_all,
    item_keys,
    list_steps,
    lookup,
    merge,
    owns_below,
    tree,
)
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata, ours
from driftwatch.drift.rules import NEVER_IGNORED, Rule

_OURS_IN_ANY_CASE: tuple[Path, ...] = tuple(tuple(f"f:{step}" for step in place) for place in NEVER_IGNORED)

Location = tuple[str | int, ...]


def effective(body: bytes, live: Any, metadata: Metadata, rules: Iterable[Rule]) -> tuple[bytes, list[Path]]:
    """The body to apply to an existing object, and its ignored paths."""
    declared = orjson.loads(body)
    entries = metadata.writers
    ignored = yielded_paths(declared, entries, rules)
    if not ignored:
        return body, []
    our_fields = ours(entries)
    in_cluster = Document(live)
    kept: list[tuple[Path, Any]] = []
    dropped: list[Path] = []
    for path in ignored:
        owned, value = _below(our_fields, path), in_cluster.lookup(path)
        if owned is None or value is MISSING:
            dropped.append(path)
        else:
            kept.append((path, held(value, owned, path[-1])))
    cut_all(declared, dropped)
    applied = Document(declared)
    for path, value in kept:
        applied.put(path, value)
    return orjson.dumps(declared), ignored


def held(value: Any, owned: FieldTree, step: str) -> Any:
    """The part of a live value that a field set owns. `step` leads to the value. Lists keep their order."""
    if not owned:
        return value
    if isinstance(value, dict):
        kept = item_keys(step)
        for name, child in value.items():
            if (owned_child := owned.get(f"f:{name}")) is not None:
                kept[name] = held(child, owned_child, f"f:{name}")
        return kept
    if isinstance(value, list):
        steps = list_steps(owned, value)
        return [held(item, owned[at], at) for at, item in zip(steps, value, strict=True) if at in owned]
    return value


def _below(node: FieldTree, path: Path) -> FieldTree | None:
    """The part of a field set at a path. None if it owns nothing there."""
    found: FieldTree | None = node
    for step in path:
        found = found.get(step) if found else None
    return found


def yielded_paths(declared: Any, entries: list[ManagedFieldsEntry], rules: Iterable[Rule]) -> list[Path]:
    """The paths of a declared object that the rules leave to others, without those that are never ignored."""
    ignored = ignored_paths(declared, entries, rules)
    our_fields = ours(entries) if ignored else {}
    return list(dict.fromkeys(path for each in ignored for path in _but_for_ours(each, declared, our_fields)))


def _but_for_ours(path: Path, declared: Any, our_fields: FieldTree) -> Iterable[Path]:
    """The path without the fields in it that are never ignored.

    A path above such fields is split into its other declared or owned fields.
    """
    if path in _OURS_IN_ANY_CASE:
        return
    if not any(other[: len(path)] == path for other in _OURS_IN_ANY_CASE):
        yield path
        return
    inside = lookup(declared, path)
    steps = [f"f:{name}" for name in inside] if isinstance(inside, dict) else []
    steps += [step for step in _below(our_fields, path) or () if step != SELF]
    for step in dict.fromkeys(steps):
        yield from _but_for_ours((*path, step), declared, our_fields)


def ignored_paths(document: Any, entries: list[ManagedFieldsEntry], rules: Iterable[Rule]) -> list[Path]:
    """The paths of a document that the rules select, given the owners of the live fields."""
    merged: FieldTree = {}
    for entry in entries:
        merge(merged, tree(entry.fieldsV1))
    found: dict[Path, None] = {}
    for rule in rules:
        for path in _of_rule(rule, document, merged, entries):
            found[path] = None
    return list(found)


def _of_rule(rule: Rule, document: Any, merged: FieldTree, entries: list[ManagedFieldsEntry]) -> Iterable[Path]:
    owners = [entry for entry in entries if not entry.is_ours and _is_owner(rule, entry)] if rule.owners else []
    if not rule.pointers and not rule.paths:
        our_fields = ours(entries)
        for entry in owners:
            yield from _theirs(document, tree(entry.fieldsV1), our_fields, ())
        return
    shape = Shape()
    paths = [_resolve(location, document, merged, shape) for location in _locations(rule, document)]
    # A Secret has no document. A plain pointer does not need one.
    paths += [path for pointer in rule.pointers if (path := _owned_place(pointer, merged))]
    for path in paths:
        if not rule.owners or any(owns_below(tree(entry.fieldsV1), path) for entry in owners):
            yield path


def _owned_place(pointer: tuple[str, ...], owned: FieldTree) -> Path:
    """The FieldsV1 path of a pointer through maps, down to an atomic field. () if the field has no owner."""
    node = owned
    for position, step in enumerate(pointer):
        if position and not node:
            return tuple(f"f:{above}" for above in pointer[:position])
        if f"f:{step}" not in node:
            return ()
        node = node[f"f:{step}"]
    return tuple(f"f:{step}" for step in pointer)


def _theirs(value: Any, owned: FieldTree, beside: FieldTree | None, prefix: Path) -> Iterable[Path]:
    """The fields of a value that a field set owns.

    A manager that applies a part of a list item shares its keys with us. It does not own the item or its other fields.
    An item belongs to the manager as a whole only if driftwatch owns nothing of it.
    """
    keys = item_keys(prefix[-1]) if prefix else {}
    document = Document(value)
    for step, child in owned.items():
        found = MISSING if step == SELF else document.lookup((step,))
        if found is MISSING or step[2:] in keys:
            continue
        path, inner = (*prefix, step), beside.get(step) if beside else None
        if not child or (inner is None and covers(child, found)):
            yield path
        else:
            yield from _theirs(found, child, inner, path)


def _is_owner(rule: Rule, entry: ManagedFieldsEntry) -> bool:
    return any(
        fnmatchcase(entry.manager, owner.manager) and fnmatchcase(entry.subresource, owner.subresource)
        for owner in rule.owners
    )


def _locations(rule: Rule, document: Any) -> Iterable[Location]:
    for pointer in rule.pointers:
        location = _follow(pointer, document)
        if location is not None:
            yield location
    for path in rule.paths:
        for match in path.finditer(document):
            yield tuple(match.parts)


def _follow(pointer: tuple[str, ...], document: Any) -> Location | None:
    location: list[str | int] = []
    for step in pointer:
        if isinstance(document, dict) and step in document:
            location.append(step)
            document = document[step]
        elif isinstance(document, list) and step.isdigit() and int(step) < len(document):
            location.append(int(step))
            document = document[int(step)]
        else:
            return None
    return tuple(location)


def _resolve(location: Location, document: Any, owned: FieldTree, shape: Shape) -> Path:
    """The FieldsV1 path of a location in a document. A location within an atomic field gives the path of that field."""
    path: list[str] = []
    node: FieldTree | None = owned
    for step in location:
        if node is not None and path and not node:
            break  # atomic: it has an owner only as a whole
        taken = f"f:{step}" if isinstance(step, str) else _list_step(shape, node, document[step], step)
        path.append(taken)
        node = node.get(taken) if node else None
        document = document[step]
    return tuple(path)


def _list_step(shape: Shape, node: FieldTree | None, item: Any, position: int) -> str:
    return shape.list_step(node, item, position) if node else f"i:{position}"


def without_ignored(
    added: list[Addition], live: Any, declared: Any, metadata: Metadata, rules: tuple[Rule, ...]
) -> list[Addition]:
    """Additions without the paths that the rules ignore in the live or the declared object."""
    entries = metadata.writers
    ignored: FieldTree = {}
    for document in (live, declared):
        for path in ignored_paths(document, entries, rules):
            put_path(ignored, path)
    kept = []
    for addition in added:
        paths = [path for path in addition.paths if not _is_below(ignored, path)]
        if paths:
            kept.append(Addition(addition.entry, paths))
    return kept


def put_path(node: FieldTree, path: Path) -> None:
    """Mark a path and everything below it."""
    for step in path:
        node = node.setdefault(step, {})


def _is_below(ignored: FieldTree, path: Path) -> bool:
    return bool(ignored) and contains(ignored, path)
