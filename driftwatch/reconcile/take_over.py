"""Takes over blocking fields: live fields that make the manifest invalid when it is applied.

The API server refused an apply as invalid (422), or could not compare its result. Fields that people own are taken over
first. Then come the remains of list items that Git has dropped. Then come driftwatch's fields that before-first-apply
owns as well, because a list that Git has dropped would stay as null.

Fields that a controller added, or that have no owner, are taken over only if the manifest is valid by itself. A
manifest that is invalid, or that changes an immutable field, therefore removes nothing.
"""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.errors import CONFLICT, NOT_FOUND, UNPROCESSABLE, ApiError
from driftwatch.drift import blocking_fields
from driftwatch.drift.additions import Addition, held, left_over, take_over
from driftwatch.drift.annotations import Additions
from driftwatch.drift.explain import topmost
from driftwatch.drift.fieldset import Path, lookup, put
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, decode_head
from driftwatch.model import SECRET
from driftwatch.reconcile.interfaces import Target

MOST_TRIED = 40  # dry runs to find the blocking fields


class TakenOver(msgspec.Struct):
    """Fields `taken` over from the live object (`found`, `raw`). `any`: whether a retry may succeed."""

    any: bool
    found: Metadata
    raw: bytes = b"{}"
    taken: list[Addition] = []


class _Case(msgspec.Struct):
    """One search for blocking fields: ownership, the declared object and the live object."""

    target: Target
    found: Metadata
    declared: dict[str, Any]
    live: dict[str, Any]
    tried: int = 0


class TakeOver:
    """Takes over the fields that block an apply."""

    def __init__(self, api: ApiClient, managers: Callable[[], Managers]) -> None:
        self._api = api
        self._managers = managers

    async def clear(self, target: Target, refusal: ApiError, body: bytes) -> TakenOver:
        """Take over the ownership of blocking fields. The next apply then removes them."""
        if not _is_about_what_is_there(refusal) or target.state.policy.additions is not Additions.REVERT:
            return TakenOver(any=False, found=Metadata())
        try:
            return await self._clear(target, refusal, body)
        except ApiError as error:  # it is deleted, or another client wrote in between
            return TakenOver(any=error.code in (NOT_FOUND, CONFLICT, UNPROCESSABLE), found=Metadata())

    async def _clear(self, target: Target, refusal: ApiError, body: bytes) -> TakenOver:
        raw = await self._read(target)
        case = _Case(target, decode_head(raw).metadata, orjson.loads(body), orjson.loads(raw))
        found = case.found
        maps = blocking_fields.emptied_maps(
            found, case.declared, case.live, refusal.fields_with(blocking_fields.NOT_NULL)
        )
        if maps:
            await self._api.empty_maps(target.resource, *target.place, found.resourceVersion, maps)
            return TakenOver(any=True, found=found)
        taken = (
            held(found, self._managers()) or blocking_fields.of_dropped_items(found, case.declared) or left_over(found)
        )
        if not taken and await self._is_valid(case, case.declared):
            taken = await self._to_blame(case, refusal.fields_with(""))
        if taken:
            await self.move(target, case.found, taken)
        return TakenOver(bool(taken), found, raw, blocking_fields.undeclared(taken, case.declared))

    async def _read(self, target: Target) -> bytes:
        """The live object. For a Secret, only its metadata."""
        read = self._api.read_metadata if target.key.group_kind == SECRET else self._api.read
        return await read(target.resource, *target.place)

    async def _to_blame(self, case: _Case, refused: list[str]) -> list[Addition]:
        """The blocking fields: first those without an owner, then those of the controller that wrote last.

        If no single field blocks by itself, all fields that the controller added are returned.
        """
        if not case.found.managedFields:
            await self._note_owners(case)
        managers = self._managers()
        nobodys = blocking_fields.of_nobody(case.found, case.declared, case.live, refused, managers)
        controllers = blocking_fields.of_last_controller(case.found, case.declared, case.live, refused, managers)
        for addition in (*nobodys, *controllers):
            case.tried = 0
            guilty = await self._narrowed(case, topmost(addition.paths))
            if guilty:
                kept = [path for path in addition.paths if any(path[: len(above)] == above for above in guilty)]
                return [Addition(addition.entry, kept)]
        return controllers

    async def _note_owners(self, case: _Case) -> None:
        """Read managedFields from a dry-run apply. It assigns all fields without an owner to before-first-apply."""
        target, declared = case.target, case.declared
        name = {"name": target.key.name, "namespace": target.key.namespace}
        least = {"apiVersion": declared["apiVersion"], "kind": declared["kind"], "metadata": name}
        raw = await self._api.dry_run(target.resource, *target.place, orjson.dumps(least))
        entries = [entry for entry in decode_head(raw).metadata.managedFields if not entry.is_ours]
        case.found = msgspec.structs.replace(case.found, managedFields=entries)

    async def _narrowed(self, case: _Case, paths: list[Path]) -> list[Path]:
        """The fewest of these fields that are invalid with the manifest, by bisection. Empty if all are valid."""
        case.tried += 1
        beside = copy.deepcopy(case.declared)
        for path in paths:
            put(beside, path, lookup(case.live, path))
        if await self._is_valid(case, beside):
            return []
        if len(paths) == 1 or case.tried >= MOST_TRIED:
            return paths
        middle = len(paths) // 2
        guilty = [await self._narrowed(case, half) for half in (paths[:middle], paths[middle:])]
        return guilty[0] + guilty[1] or paths

    async def _is_valid(self, case: _Case, declared: dict[str, Any]) -> bool:
        """Whether the API server would accept this as the whole object, by a dry-run replace."""
        version = case.found.resourceVersion
        body = {**declared, "metadata": {**declared["metadata"], "resourceVersion": version}}
        try:
            await self._api.dry_run_replace(case.target.resource, *case.target.place, orjson.dumps(body))
        except ApiError as error:
            if error.code == UNPROCESSABLE:
                return False
            raise
        return True

    async def move(self, target: Target, metadata: Metadata, fields: list[Addition]) -> None:
        """Move fields into driftwatch's managedFields entry. `ApiError` if the object is newer than `metadata`."""
        entries, version = take_over(metadata, fields), metadata.resourceVersion
        await self._api.set_managed_fields(target.resource, *target.place, version, entries)


def _is_about_what_is_there(refusal: ApiError) -> bool:
    return refusal.code == UNPROCESSABLE or blocking_fields.HALF_AN_ITEM in str(refusal)
