"""Additions: live fields that Git does not declare.

Server-side apply does not remove them, because driftwatch does not own them. Fields that people add by hand are
reverted in two steps. First, their ownership moves into our entry. Then the next apply does not declare them, and so
removes exactly these fields. Fields that controllers add stay: an injected sidecar, an allocated clusterIP, a status.
"""

import msgspec

from driftwatch.drift.fieldset import FieldTree, Path, insert, leaves, remove, tree
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import STATUS, ManagedFieldsEntry, Metadata, ours
from driftwatch.model import FIELD_MANAGER, SNOOZE_ANNOTATION

SNOOZE: Path = ("f:metadata", "f:annotations", f"f:{SNOOZE_ANNOTATION}")

NOBODY = "before-first-apply"  # the API server's manager name for fields that had no owner before an apply


class Addition(msgspec.Struct, frozen=True):
    """Fields that one entry of managedFields owns and Git does not declare."""

    entry: ManagedFieldsEntry
    paths: list[Path]


def additions(metadata: Metadata, managers: Managers) -> list[Addition]:
    """Fields that only interactive managers own, by entry. Neither driftwatch nor a controller owns them."""
    suspects = [entry for entry in metadata.managedFields if is_persons(entry, managers)]
    if not suspects:
        return []
    kept = [
        tree(entry.fieldsV1)
        for entry in metadata.managedFields
        if entry.subresource != STATUS and not is_persons(entry, managers)
    ]
    owned = [(entry, leaves(tree(entry.fieldsV1))) for entry in suspects]
    protected: FieldTree = {}
    for _, paths in owned:
        for path in paths:
            if is_protected(path, managers):
                insert(protected, path)
    kept.append(protected)
    found = []
    for entry, paths in owned:
        added = [path for path in paths if _is_addition(path, kept)]
        if added:
            found.append(Addition(entry, added))
    return found


def is_persons(entry: ManagedFieldsEntry, managers: Managers) -> bool:
    """Whether people wrote the entry. An update under our name is not ours: driftwatch only applies."""
    if entry.subresource == STATUS or entry.is_ours:
        return False
    return entry.manager == FIELD_MANAGER or managers.is_interactive(entry.manager)


def left_over(metadata: Metadata) -> list[Addition]:
    """Our fields that `before-first-apply` owns too, after all ownership was stripped. This is not shared ownership."""
    our_fields = ours(metadata.managedFields)
    found = []
    for entry in metadata.managedFields:
        if entry.manager == NOBODY:
            paths = [path for path in leaves(tree(entry.fieldsV1)) if path and is_inside(our_fields, path)]
            if paths:
                found.append(Addition(entry, paths))
    return found


def held(metadata: Metadata, managers: Managers) -> list[Addition]:
    """All fields of interactive managers, including shared ones, without those that are never reverted."""
    found = []
    for entry in metadata.managedFields:
        if is_persons(entry, managers):
            paths = [path for path in leaves(tree(entry.fieldsV1)) if path and not is_protected(path, managers)]
            if paths:
                found.append(Addition(entry, paths))
    return found


def is_protected(path: Path, managers: Managers) -> bool:
    """Whether the field is never removed, regardless of who added it."""
    # A snooze is an instruction to driftwatch. A finalizer or an owner reference guards something outside the object.
    # Its removal is a decision for people, not a repair.
    if path[:2] in (("f:metadata", "f:finalizers"), ("f:metadata", "f:ownerReferences")):
        return True
    return path == SNOOZE or managers.keeps(path)


def _is_addition(path: Path, kept: list[FieldTree]) -> bool:
    """Whether no kept field set owns the path or a field below it.

    A kept field above the path does not count. An atomic field has no paths below it, so a kept field above the path
    can only be an empty map or list.
    """
    return bool(path) and not any(is_inside(owned, path) for owned in kept)


def is_inside(owned: FieldTree, path: Path) -> bool:
    """Whether the field set contains the path. Then the path is a kept field or a parent (`f:annotations`)."""
    node = owned
    for step in path:
        if step not in node:
            return False
        node = node[step]
    return True


def take_over(metadata: Metadata, added: list[Addition]) -> list[object]:
    """`managedFields` for the API, with the added fields moved from their owners' entries into ours."""
    taken = {id(addition.entry): addition.paths for addition in added}
    our_fields: FieldTree = {}
    entries: list[object] = []
    for entry in metadata.managedFields:
        fields = tree(entry.fieldsV1)
        paths = taken.get(id(entry))
        if paths is not None:
            for path in paths:
                remove(fields, path)
            if not fields:
                continue
        elif entry.is_ours:
            our_fields = fields
        entries.append({**msgspec.json.decode(msgspec.json.encode(entry)), "fieldsV1": fields})
    if added and not any(entry.is_ours for entry in metadata.managedFields):
        version = added[0].entry.apiVersion
        ownership = {"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1"}
        entries.append({**ownership, "fieldsV1": our_fields})
    for addition in added:
        for path in addition.paths:
            insert(our_fields, path)
    return entries
