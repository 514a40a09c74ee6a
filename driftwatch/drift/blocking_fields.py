"""What of an object makes Git's manifest invalid: it must go before the manifest can be applied.

An apply changes only what it declares and what we owned before. Beside what else is there the result can be invalid,
and then every apply is refused until that is gone: fields that exclude declared ones (`maxUnavailable` beside
`minAvailable`), and the rest of a list item that Git has dropped (a container without its image). Others own it, or
nobody does, once its owner was stripped from `managedFields`. And the API server itself makes null of a custom
resource's map that loses its last key.
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
"""The words of structured-merge-diff for the rest of a dropped item of a custom resource's list: it has lost its keys.

Of a built-in kind the same is refused by validation, with 422; here it is an internal error (500), for ever.
"""

NOT_NULL = 'must be of type object: "null"'  # the words of the API server's schema validation

_INDEX = re.compile(r"\[[^\]]*\]")


def of_dropped_items(metadata: Metadata, body: Any) -> list[Addition]:
    """What others own of list items that are ours and that the manifest does not declare any more."""
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
    """What the controller that wrote last added at the refused fields (`spec.template.spec.containers[1].image`).

    One controller at a time, so that no more goes than has to. Replicas that are set by the scale subresource, and
    metadata, are in nobody's way.
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
    """What is at the refused fields, is not declared and has no owner: stripped, or the API server's own default.

    `before-first-apply`, to whom an apply gives all fields of an object without owners, is nobody.
    """
    areas = [_area(field) for field in refused]
    owned: FieldTree = {}
    shape: FieldTree = {}  # lists are entered where somebody's fields tell by which keys
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
    """Of what was taken over, that which the manifest does not declare: it goes with the next apply."""
    declared = Document(body)
    found = []
    for addition in additions:
        paths = [path for path in addition.paths if declared.lookup(path) is MISSING]
        if paths:
            found.append(Addition(addition.entry, paths))
    return found


def emptied_maps(metadata: Metadata, body: Any, live: Any, refused: list[str]) -> list[str]:
    """JSON pointers to maps, refused as null, that are empty in the manifest and are not yet in the cluster."""
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
    """The fields that a refusal is about: down to the first list, whose positions are those of no object we know."""
    steps = tuple(f"f:{name}" for name in field.partition("[")[0].split(".") if name)
    return steps if steps[:1] != ("f:metadata",) else ()


def _is_in(path: Path, areas: list[Path]) -> bool:
    return any(area and path[: len(area)] == area for area in areas)


def _written(path: Path) -> str:
    """The path as a refusal writes it, without positions in lists."""
    return ".".join(step[2:] for step in path if step.startswith("f:"))


def _pointer(live: Any, path: Path) -> str:
    """The path as a JSON pointer (RFC 6901) into the object as it is."""
    pointer = ""
    for length, step in enumerate(path, start=1):
        if step.startswith("f:"):
            token = step[2:].replace("~", "~0").replace("/", "~1")
        else:
            token = str(lookup(live, path[: length - 1]).index(lookup(live, path[:length])))
        pointer += f"/{token}"
    return pointer
