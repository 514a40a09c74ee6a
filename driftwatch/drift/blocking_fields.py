"""Blocking fields: live fields that make Git's manifest invalid and must be removed before it can be applied.

An apply changes only fields that it declares or that driftwatch owned before. Together with the other live fields, the
result can be invalid. Then the API server refuses every apply until these fields are gone. There are two cases:

- A live field excludes a declared one (`maxUnavailable` beside `minAvailable`).
- Git has dropped a list item, and a part of it is left (a container without its image).

A blocking field belongs to another manager. It has no owner if its owner was stripped from `managedFields`. In
addition, the API server sets a custom resource's map to null when the map loses its last key.
"""

import re
from typing import Any

from driftwatch.drift.additions import NOBODY, Addition, is_inside, is_persons, is_protected
from driftwatch.drift.fieldset import (
    MISSING,
    Document,
    FieldTree,
    Path,
    leaves,
    live_paths,
    lookup,
    merge,
    owns_below,
    tree,
)
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata, ours

HALF_AN_ITEM = "associative list with keys has an element that omits"
"""The error text of structured-merge-diff for the rest of a dropped list item of a custom resource.

The rest of the item has lost its keys. For a built-in kind, validation refuses the apply with 422. For a custom
resource, every apply is an internal error (500).
"""

NOT_NULL = 'must be of type object: "null"'  # the error text of the API server's schema validation

_INDEX = re.compile(r"\[[^\]]*\]")


def of_dropped_items(metadata: Metadata, body: Any) -> list[Addition]:
    """Fields of other managers in our list items that the manifest no longer declares."""
    our_fields = ours(metadata.managedFields)
    declared = Document(body)
    found = []
    for entry in metadata.writers:
        if not entry.is_ours:
            paths = [path for path in leaves(tree(entry.fieldsV1)) if _is_of_dropped_item(path, our_fields, declared)]
            if paths:
                found.append(Addition(entry, paths))
    return found


def of_last_controller(
    metadata: Metadata, body: Any, live: Any, refused: list[str], managers: Managers
) -> list[Addition]:
    """Fields that the last controller added at the refused fields (`spec.template.spec.containers[1].image`).

    Selects one controller at a time, so that no more fields are removed than necessary. Replicas set by the scale
    subresource and metadata never block an apply.
    """
    areas = [_area(field) for field in refused]
    declared, in_cluster = Document(body), Document(live)
    writers = [
        entry for entry in metadata.writers if not (entry.subresource or entry.is_ours or entry.manager == NOBODY)
    ]
    for entry in sorted(writers, key=lambda entry: entry.time, reverse=True):
        if is_persons(entry, managers):
            continue
        paths = [
            path
            for path in leaves(tree(entry.fieldsV1))
            if _is_in(path, areas)
            and declared.lookup(path) is MISSING
            and in_cluster.lookup(path) is not MISSING
            and not is_protected(path, managers)
        ]
        if paths:
            return [Addition(entry, paths)]
    return []


def of_nobody(metadata: Metadata, body: Any, live: Any, refused: list[str], managers: Managers) -> list[Addition]:
    """Live fields at the refused fields that are not declared and have no owner.

    The owner was stripped, or the value is a default of the API server. `before-first-apply` does not count as an
    owner: an apply gives it all fields of an object without owners.
    """
    areas = [_area(field) for field in refused]
    owned: FieldTree = {}
    shape: FieldTree = {}  # owned fields of any manager show the keys of a list
    entry = ManagedFieldsEntry(NOBODY, "Update", live.get("apiVersion", ""))
    for found in metadata.writers:
        merge(shape, tree(found.fieldsV1))
        if found.manager == NOBODY:
            entry = found
        else:
            merge(owned, tree(found.fieldsV1))
    declared = Document(body)
    paths = [
        path
        for path in live_paths(live, shape)
        if _is_in(path, areas)
        and declared.lookup(path) is MISSING
        and not owns_below(owned, path)
        and not is_protected(path, managers)
    ]
    return [Addition(entry, paths)] if paths else []


def undeclared(additions: list[Addition], body: Any) -> list[Addition]:
    """The taken-over fields that the manifest does not declare. The next apply removes them."""
    declared = Document(body)
    found = []
    for addition in additions:
        paths = [path for path in addition.paths if declared.lookup(path) is MISSING]
        if paths:
            found.append(Addition(addition.entry, paths))
    return found


def emptied_maps(metadata: Metadata, body: Any, live: Any, refused: list[str]) -> list[str]:
    """JSON pointers to maps refused as null that are empty in the manifest but not in the cluster."""
    areas = {_INDEX.sub("", field) for field in refused}
    declared, in_cluster = Document(body), Document(live)
    found: dict[str, None] = {}
    for path in leaves(ours(metadata.managedFields)):
        for length in range(1, len(path)):
            above = path[:length]
            if declared.lookup(above) == {} and in_cluster.lookup(above) and _written(above) in areas:
                found[_pointer(live, above)] = None
    return list(found)


def _is_of_dropped_item(path: Path, our_fields: FieldTree, declared: Document) -> bool:
    items = (path[: position + 1] for position, step in enumerate(path) if step.startswith("k:"))
    return any(declared.lookup(item) is MISSING and is_inside(our_fields, item) for item in items)


def _area(field: str) -> Path:
    """The path of a refused field, up to the first list. List positions in a refusal match no object known here."""
    steps = tuple(f"f:{name}" for name in field.partition("[")[0].split(".") if name)
    return steps if steps[:1] != ("f:metadata",) else ()


def _is_in(path: Path, areas: list[Path]) -> bool:
    return any(area and path[: len(area)] == area for area in areas)


def _written(path: Path) -> str:
    """The path in the notation of a refusal, without list positions."""
    return ".".join(step[2:] for step in path if step.startswith("f:"))


def _pointer(live: Any, path: Path) -> str:
    """The path as a JSON pointer (RFC 6901) into the live object."""
    pointer = ""
    for length, step in enumerate(path, start=1):
        if step.startswith("f:"):
            token = step[2:].replace("~", "~0").replace("/", "~1")
        else:
            token = str(lookup(live, path[: length - 1]).index(lookup(live, path[:length])))
        pointer += f"/{token}"
    return pointer
