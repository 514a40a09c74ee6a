"""Fields that a rule takes out of the fight: Git's value when the object is created, the live value ever after.

Server-side apply needs care for that. A field that somebody else owns is left out of what we apply. One that we own
must be sent with its live value: leaving it out would delete it.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import orjson

from driftwatch.drift.additions import Addition
from driftwatch.drift.fields import (
    MISSING,
    FieldTree,
    Path,
    contains,
    cut,
    leaves,
    list_step,
    lookup,
    merge,
    owns_below,
    put,
    tree,
)
from driftwatch.drift.metadata import STATUS, ManagedFieldsEntry, Metadata
from driftwatch.drift.policy import Rule

Location = tuple[str | int, ...]


def effective(body: bytes, live: Any, metadata: Metadata, rules: Iterable[Rule]) -> tuple[bytes, list[Path]]:
    """The body to apply to an object that is there, and the paths of it that are not ours to fight over."""
    declared = orjson.loads(body)
    entries = [entry for entry in metadata.managedFields if entry.subresource != STATUS]
    ignored = ignored_paths(declared, entries, rules)
    if not ignored:
        return body, []
    ours: FieldTree = next((tree(entry.fieldsV1) for entry in entries if entry.is_ours), {})
    owned = leaves(ours)
    for path in ignored:
        cut(declared, path)
        for leaf in owned:
            if leaf[: len(path)] == path and (value := lookup(live, leaf)) is not MISSING:
                put(declared, leaf, value)
    return orjson.dumps(declared), ignored


def ignored_paths(document: Any, entries: list[ManagedFieldsEntry], rules: Iterable[Rule]) -> list[Path]:
    """The paths of a document that the rules ignore, given who owns what in the live object."""
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
        for entry in owners:
            yield from (path for path in leaves(tree(entry.fieldsV1)) if lookup(document, path) is not MISSING)
        return
    paths = [_resolve(location, document, merged) for location in _locations(rule, document)]
    # Of a Secret there is no document, but a plain pointer needs none.
    paths += [path for pointer in rule.pointers if owns_below(merged, path := tuple(f"f:{step}" for step in pointer))]
    for path in paths:
        if not rule.owners or any(owns_below(tree(entry.fieldsV1), path) for entry in owners):
            yield path


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


def _resolve(location: Location, document: Any, owned: FieldTree) -> Path:
    """The FieldsV1 path of a place in a document. Within an atomic field it is that field."""
    path: list[str] = []
    node: FieldTree | None = owned
    for step in location:
        if node is not None and path and not node:
            break  # atomic: nobody can own less than all of it
        taken = f"f:{step}" if isinstance(step, str) else list_step(node or {}, document[step], step)
        path.append(taken)
        node = node.get(taken) if node else None
        document = document[step]
    return tuple(path)


def without_ignored(added: list[Addition], live: Any, metadata: Metadata, rules: tuple[Rule, ...]) -> list[Addition]:
    """Additions but for what the rules ignore."""
    if not rules or not added:
        return added
    entries = [entry for entry in metadata.managedFields if entry.subresource != STATUS]
    ignored: FieldTree = {}
    for path in ignored_paths(live, entries, rules):
        put_path(ignored, path)
    kept = []
    for addition in added:
        paths = [path for path in addition.paths if not _is_below(ignored, path)]
        if paths:
            kept.append(Addition(addition.entry, paths))
    return kept


def put_path(node: FieldTree, path: Path) -> None:
    """Mark a path, and with it all that is below."""
    for step in path:
        node = node.setdefault(step, {})


def _is_below(ignored: FieldTree, path: Path) -> bool:
    return bool(ignored) and contains(ignored, path)
