"""Takes out of Git's way what makes its manifest invalid on an object as it is.

The API server refused an apply as invalid (422). What people own goes first, then what is left of list items that Git
has dropped; what a controller added goes only if the manifest is valid by itself, so that one which is invalid, or
asks for what cannot be changed, costs nobody anything.
"""

from collections.abc import Callable

import msgspec
import orjson

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.errors import ApiError
from driftwatch.drift import obstacles
from driftwatch.drift.additions import Addition, held, take_over
from driftwatch.drift.metadata import Metadata, decode_head
from driftwatch.drift.policy import Additions, Managers
from driftwatch.heal.patient import SECRET, Patient

CONFLICT = 409
UNPROCESSABLE = 422
GONE = 404


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
        nothing = Cleared(any=False, found=Metadata())
        if refusal.code != UNPROCESSABLE or patient.record.policy.additions is not Additions.REVERT:
            return nothing
        try:
            return await self._clear(patient, refusal, body)
        except ApiError as error:  # it is gone, or somebody wrote in between
            nothing.any = error.code in (GONE, CONFLICT, UNPROCESSABLE)
            return nothing

    async def _clear(self, patient: Patient, refusal: ApiError, body: bytes) -> Cleared:
        raw = await self._read(patient)
        found, declared = decode_head(raw).metadata, orjson.loads(body)
        maps = obstacles.emptied_maps(found, declared, orjson.loads(raw), refusal.fields_with(obstacles.NOT_NULL))
        if maps:
            await self._applier.empty_maps(patient.resource, *patient.place, found.resourceVersion, maps)
            return Cleared(any=True, found=found)
        taken = held(found, self._managers()) or obstacles.of_dropped_items(found, declared)
        if not taken and await self._is_valid_alone(patient, found, declared):
            taken = obstacles.of_last_controller(found, declared, refusal.fields_with(""), self._managers())
        if taken:
            await self.move(patient, found, taken)
        return Cleared(bool(taken), found, raw, obstacles.undeclared(taken, declared))

    async def _read(self, patient: Patient) -> bytes:
        """The live object; of a Secret the metadata alone."""
        read = self._applier.read_metadata if patient.key.group_kind == SECRET else self._applier.read
        return await read(patient.resource, *patient.place)

    async def _is_valid_alone(self, patient: Patient, found: Metadata, declared: dict[str, dict[str, str]]) -> bool:
        """Whether the API server would take the manifest for the whole object."""
        declared["metadata"]["resourceVersion"] = found.resourceVersion
        try:
            await self._applier.dry_run_replace(patient.resource, *patient.place, orjson.dumps(declared))
        except ApiError as error:
            if error.code == UNPROCESSABLE:
                return False
            raise
        finally:
            del declared["metadata"]["resourceVersion"]
        return True

    async def move(self, patient: Patient, metadata: Metadata, fields: list[Addition]) -> None:
        """Move fields from others' entries into ours, unless the object is newer than `metadata` (then `ApiError`)."""
        entries, version = take_over(metadata, fields), metadata.resourceVersion
        await self._applier.set_managed_fields(patient.resource, *patient.place, version, entries)
