"""Takes out of Git's way what makes its manifest invalid on an object as it is.

The API server refused an apply as invalid (422). What people own goes first, then what is left of list items that Git
has dropped; what a controller added goes only if the manifest is valid by itself, so that one which is invalid, or
asks for what cannot be changed, costs nobody anything.
"""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.errors import CONFLICT, NOT_FOUND, UNPROCESSABLE, ApiError
from driftwatch.drift import obstacles
from driftwatch.drift.additions import Addition, held, take_over
from driftwatch.drift.explain import topmost
from driftwatch.drift.fields import lookup, put
from driftwatch.drift.metadata import Metadata, decode_head
from driftwatch.drift.policy import Additions, Managers
from driftwatch.heal.patient import Patient
from driftwatch.model import SECRET

MOST_TRIED = 20  # fields of a controller that are tried one by one, each a dry run


class Cleared(msgspec.Struct):
    """What was taken out of the way, of the object as `found`, or `raw`; `any` says if another try may succeed."""

    any: bool
    found: Metadata
    raw: bytes = b"{}"
    taken: list[Addition] = []


class Clearing:
    """Clears what refusals are about."""

    def __init__(self, applier: Applier, managers: Callable[[], Managers]) -> None:
        self._applier = applier
        self._managers = managers

    async def clear(self, patient: Patient, refusal: ApiError, body: bytes) -> Cleared:
        """Make ours what others own and is in the way, which the next apply then removes."""
        if refusal.code != UNPROCESSABLE or patient.record.policy.additions is not Additions.REVERT:
            return Cleared(any=False, found=Metadata())
        try:
            return await self._clear(patient, refusal, body)
        except ApiError as error:  # it is gone, or somebody wrote in between
            return Cleared(any=error.code in (NOT_FOUND, CONFLICT, UNPROCESSABLE), found=Metadata())

    async def _clear(self, patient: Patient, refusal: ApiError, body: bytes) -> Cleared:
        raw = await self._read(patient)
        found, declared = decode_head(raw).metadata, orjson.loads(body)
        live = orjson.loads(raw)
        maps = obstacles.emptied_maps(found, declared, live, refusal.fields_with(obstacles.NOT_NULL))
        if maps:
            await self._applier.empty_maps(patient.resource, *patient.place, found.resourceVersion, maps)
            return Cleared(any=True, found=found)
        taken = held(found, self._managers()) or obstacles.of_dropped_items(found, declared)
        if not taken and await self._is_valid(patient, found, declared):
            taken = obstacles.of_last_controller(found, declared, live, refusal.fields_with(""), self._managers())
            taken = [await self._narrowed(patient, found, declared, live, addition) for addition in taken]
        if taken:
            await self.move(patient, found, taken)
        return Cleared(bool(taken), found, raw, obstacles.undeclared(taken, declared))

    async def _read(self, patient: Patient) -> bytes:
        """The live object; of a Secret the metadata alone."""
        read = self._applier.read_metadata if patient.key.group_kind == SECRET else self._applier.read
        return await read(patient.resource, *patient.place)

    async def _narrowed(
        self, patient: Patient, found: Metadata, declared: dict[str, Any], live: dict[str, Any], addition: Addition
    ) -> Addition:
        """Of what a controller added, the fields that are invalid beside the manifest; all where none is by itself."""
        paths = topmost(addition.paths)
        if len(paths) > MOST_TRIED:
            return addition
        guilty = []
        for path in paths:
            beside = copy.deepcopy(declared)
            put(beside, path, lookup(live, path))
            if not await self._is_valid(patient, found, beside):
                guilty.append(path)
        kept = [path for path in addition.paths if any(path[: len(above)] == above for above in guilty)]
        return Addition(addition.entry, kept or addition.paths)

    async def _is_valid(self, patient: Patient, found: Metadata, declared: dict[str, Any]) -> bool:
        """Whether the API server would take this for the whole object."""
        body = {**declared, "metadata": {**declared["metadata"], "resourceVersion": found.resourceVersion}}
        try:
            await self._applier.dry_run_replace(patient.resource, *patient.place, orjson.dumps(body))
        except ApiError as error:
            if error.code == UNPROCESSABLE:
                return False
            raise
        return True

    async def move(self, patient: Patient, metadata: Metadata, fields: list[Addition]) -> None:
        """Move fields from others' entries into ours, unless the object is newer than `metadata` (then `ApiError`)."""
        entries, version = take_over(metadata, fields), metadata.resourceVersion
        await self._applier.set_managed_fields(patient.resource, *patient.place, version, entries)
