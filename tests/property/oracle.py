"""What must be so of an object once it is quiet, found without any of driftwatch's own code.

In sync is what the API server says of it: a dry run of the manifest's server-side apply changes nothing. Beyond that
no person may own a field that Git does not declare; `managedFields` tell.
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.property.edits import PEOPLE, SPOOF
from tests.support.live import Live
from tests.support.strategies import GONE, Item, Manifest, Member, Step, written

TRACKING = ("driftwatch.io/source", "driftwatch.io/id", "driftwatch.io/desired-hash")
LEFT_ALONE = (
    ("f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt"),
    ("f:metadata", "f:annotations", "f:kubectl.kubernetes.io/last-applied-configuration"),
    ("f:metadata", "f:annotations", "f:kubernetes.io/change-cause"),
    ("f:spec", "f:replicas"),  # where Git says nothing of it, it is for others to say
)

FieldPath = tuple[str, ...]


def amiss(live: Live, manifest: Manifest, source: str) -> str:
    """What is not as it should be, "" where everything is."""
    found = live.get(manifest)
    if found is None:
        return "is not there"
    # Ownership first: an added field that was taken over in between is one that the dry run would remove.
    if left := undeclared(manifest, found):
        return f"{manifest['kind']} {manifest['metadata']['name']}: people own {left}"
    return live.difference(manifest, source)


def undeclared(manifest: Manifest, live: Manifest) -> list[tuple[str, FieldPath]]:
    """Fields that Git does not declare and that a person owns, and no controller with them."""
    entries = [entry for entry in live["metadata"].get("managedFields", []) if entry.get("subresource") != "status"]
    ours = [entry["fieldsV1"] for entry in entries if entry["manager"] == SPOOF and not _is_a_persons(entry)]
    others = [entry["fieldsV1"] for entry in entries if not _is_a_persons(entry) and entry["manager"] != SPOOF]
    return [
        (entry["manager"], path)
        for entry in entries
        if _is_a_persons(entry)
        for path in owned(entry["fieldsV1"])
        if not (
            _is_declared(manifest, path)
            or path in LEFT_ALONE
            or _co_owned(path, others)
            or any(_has(fields, path) for fields in ours)
        )
    ]


def owners(live: Manifest, path: str) -> set[str]:
    """Who owns a field."""
    entries = live["metadata"].get("managedFields", [])
    return {entry["manager"] for entry in entries if path in map(text, owned(entry["fieldsV1"]))}


def _is_a_persons(entry: dict[str, Any]) -> bool:
    """Whether a person wrote it; the daemon only applies, so an update under its name is a person's as well."""
    return entry["manager"] in PEOPLE or (entry["manager"] == SPOOF and entry["operation"] == "Update")


def owned(fields: dict[str, Any], above: FieldPath = ()) -> Iterator[FieldPath]:
    """Every path that a `fieldsV1` names."""
    for step, below in fields.items():
        if step == ".":
            yield above
        elif below:
            yield from owned(below, (*above, step))
        else:
            yield (*above, step)


def _co_owned(path: FieldPath, others: list[dict[str, Any]]) -> bool:
    """Whether somebody else owns the path too, or something in it, or a field above it as a whole."""
    return any(_reaches(fields, path) for fields in others)


def _has(fields: dict[str, Any], path: FieldPath) -> bool:
    """Whether a field set names the path or something in it; who owns an empty map owns no key of it."""
    for step in path:
        if step not in fields:
            return False
        fields = fields[step]
    return True


def _reaches(fields: dict[str, Any], path: FieldPath) -> bool:
    for step in path:
        if step not in fields:
            return False
        fields = fields[step]
        if not fields:  # a field that is owned as a whole
            return True
    return True


def _is_declared(manifest: Manifest, path: FieldPath) -> bool:
    """Whether a manifest says something of a path, or of something in it."""
    if path[-1].removeprefix("f:") in TRACKING or path in (
        (),
        ("f:metadata", "f:labels"),
        ("f:metadata", "f:annotations"),
    ):
        return True
    value: Any = manifest
    for step in path:
        value = _at(value, step)
        if value is GONE:
            return False
    return True


def _at(value: Any, step: str) -> Any:
    kind, name = step[:2], step[2:]
    if kind == "f:" and isinstance(value, dict):
        return value.get(name, GONE)
    if kind == "k:" and isinstance(value, list):
        keys = json.loads(name)
        fitting = [item for item in value if all(item.get(key, wanted) == wanted for key, wanted in keys.items())]
        return fitting[0] if fitting else GONE
    if kind == "v:" and isinstance(value, list):
        return name if json.loads(name) in value else GONE
    return GONE


def text(path: FieldPath) -> str:
    """A path as people write it."""
    return written(tuple(_step(step) for step in path))


def _step(step: str) -> Step:
    kind, name = step[:2], step[2:]
    if kind == "k:":
        return Item(tuple(json.loads(name).items()))
    return Member(json.loads(name)) if kind == "v:" else name
