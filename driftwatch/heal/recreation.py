"""Objects that cannot become what Git declares: an immutable field is another one.

Such a refusal looks like that of any invalid manifest. What tells them apart is a dry run of creating the object: the
API server validates the manifest first, and only then says that there is one of the name. Only what is valid by itself
and allowed to is deleted and created anew; an otherwise invalid manifest deletes nothing.
"""

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.errors import CONFLICT, UNPROCESSABLE, ApiError
from driftwatch.drift.orphans import GUARDED
from driftwatch.heal.patient import Patient
from driftwatch.model import RECREATE_ANNOTATION


class Recreation:
    """Deletes what has to be created anew. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier

    async def is_about_immutable(self, patient: Patient, refusal: ApiError) -> bool:
        """Whether the refusal is only about changing the object, which would be created as Git declares it."""
        if refusal.code != UNPROCESSABLE or not patient.record.live:
            return False
        try:
            await self._applier.dry_run_create(patient.resource, *patient.place, patient.claim.manifest.body)
        except ApiError as error:
            return error.code == CONFLICT
        return False  # it is gone meanwhile: an event will tell

    def is_allowed(self, patient: Patient) -> bool:
        """Whether the object may be deleted. What takes others, or data, with it must say so itself."""
        if patient.key.group_kind in GUARDED:
            return patient.claim.manifest.options.get(RECREATE_ANNOTATION) == "immutable"
        return patient.record.policy.replace

    async def delete(self, patient: Patient) -> None:
        """Delete the object as it is now; the event of that has it created."""
        head = await self._applier.read_head(patient.resource, *patient.place)
        metadata = head.metadata
        await self._applier.delete(patient.resource, *patient.place, metadata.uid, head.version)
