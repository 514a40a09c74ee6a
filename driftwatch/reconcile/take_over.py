"""Takes out of Git's way what makes its manifest invalid on an object as it is.

The API server refused an apply as invalid (422), or could not compare what came of it. What people own goes first, then
what is left of list items that Git has dropped, then what is ours and noted down as nobody's as well: a list that Git
has dropped would stay as null. What a controller added, or nobody owns, goes only if the manifest is valid by itself,
so that one which is invalid, or asks for what cannot be changed, costs nobody anything.
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

MOST_TRIED = 40  # dry runs to find out which of the fields are in the way


class TakenOver(msgspec.Struct):
    """What was taken out of the way, of the object as `found`, or `raw`; `any` says if another try may succeed."""

    any: bool
    found: Metadata
    raw: bytes = b"{}"
    taken: list[Addition] = []


class _Case(msgspec.Struct):
    """An object and what of it is invalid beside the manifest: who owns what, what is declared, what is there."""

    target: Target
    found: Metadata
    declared: dict[str, Any]
    live: dict[str, Any]
    tried: int = 0


class TakeOver:
    """Clears what refusals are about."""

    def __init__(self, api: ApiClient, managers: Callable[[], Managers]) -> None:
        self._api = api
        self._managers = managers

    async def clear(self, target: Target, refusal: ApiError, body: bytes) -> TakenOver:
        """Make ours what others own and is in the way, which the next apply then removes."""
        if not _is_about_what_is_there(refusal) or target.state.policy.additions is not Additions.REVERT:
            return TakenOver(any=False, found=Metadata())
        try:
            return await self._clear(target, refusal, body)
        except ApiError as error:  # it is gone, or somebody wrote in between
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
        """The live object; of a Secret the metadata alone."""
        read = self._api.read_metadata if target.key.group_kind == SECRET else self._api.read
        return await read(target.resource, *target.place)

    async def _to_blame(self, case: _Case, refused: list[str]) -> list[Addition]:
        """What is invalid beside the manifest: of nobody first, then of the controller that wrote last.

        Of the controller it is all that it added, where nothing is to blame by itself.
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
        """Have an object without owners as any apply would leave it: all fields are noted down as nobody's."""
        target, declared = case.target, case.declared
        name = {"name": target.key.name, "namespace": target.key.namespace}
        least = {"apiVersion": declared["apiVersion"], "kind": declared["kind"], "metadata": name}
        raw = await self._api.dry_run(target.resource, *target.place, orjson.dumps(least))
        entries = [entry for entry in decode_head(raw).metadata.managedFields if not entry.is_ours]
        case.found = msgspec.structs.replace(case.found, managedFields=entries)

    async def _narrowed(self, case: _Case, paths: list[Path]) -> list[Path]:
        """Of these fields the fewest that are invalid beside the manifest, by halving; none where all are valid."""
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
        """Whether the API server would take this for the whole object."""
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
        """Move fields from others' entries into ours, unless the object is newer than `metadata` (then `ApiError`)."""
        entries, version = take_over(metadata, fields), metadata.resourceVersion
        await self._api.set_managed_fields(target.resource, *target.place, version, entries)


def _is_about_what_is_there(refusal: ApiError) -> bool:
    return refusal.code == UNPROCESSABLE or blocking_fields.HALF_AN_ITEM in str(refusal)
