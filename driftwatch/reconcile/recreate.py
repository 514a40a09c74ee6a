"""Objects that cannot become what Git declares: an immutable field is another one.

Such a refusal looks like that of any invalid manifest. What tells them apart is a dry run of creating the object: the
API server validates the manifest first, and only then says that there is one of the name. Only what is valid by itself
and allowed to is deleted and created anew; an otherwise invalid manifest deletes nothing.

A Service asks for what only one may have, and there the dry run errs both ways: it refuses ports that the Service has
itself, and passes an address that another has.
"""

from typing import Any

import orjson

from driftwatch.cluster.api import Applier
from driftwatch.cluster.errors import CONFLICT, UNPROCESSABLE, ApiError, Status
from driftwatch.drift.orphan import GUARDED
from driftwatch.model import RECREATE_ANNOTATION, GroupKind
from driftwatch.reconcile.interfaces import Patient

SERVICE = GroupKind("", "Service")
HEADLESS = "None"
_TAKEN = "provided port is already allocated"


class Recreation:
    """Deletes what has to be created anew. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier

    async def is_about_immutable(self, patient: Patient, refusal: ApiError) -> bool:
        """Whether the refusal is only about changing the object, which would be created as Git declares it."""
        if refusal.code != UNPROCESSABLE or not patient.record.live:
            return False
        body = patient.claim.manifest.body
        refused = await self._refused(patient, body)
        if refused is not None and patient.key.group_kind == SERVICE and _TAKEN in refused.message:
            live = await self._applier.read(patient.resource, *patient.place)
            refused = await self._refused(patient, _without_ports_of(body, live))
        return refused is not None and refused.code == CONFLICT  # None: it is gone meanwhile, an event will tell

    async def _refused(self, patient: Patient, body: bytes) -> ApiError | None:
        """What the API server says to creating the object."""
        try:
            await self._applier.dry_run_create(patient.resource, *patient.place, body)
        except ApiError as error:
            return error
        return None

    def is_allowed(self, patient: Patient) -> bool:
        """Whether the object may be deleted. What takes others, or data, with it must say so itself."""
        if patient.key.group_kind in GUARDED:
            return patient.claim.manifest.options.get(RECREATE_ANNOTATION) == "immutable"
        return patient.record.policy.replace

    async def delete(self, patient: Patient) -> None:
        """Delete the object as it is now; the event of that has it created. `ApiError` where it could not be."""
        if patient.key.group_kind == SERVICE:
            await self._check_address(patient)
        head = await self._applier.read_head(patient.resource, *patient.place)
        metadata = head.metadata
        await self._applier.delete(patient.resource, *patient.place, metadata.uid, head.version)

    async def _check_address(self, patient: Patient) -> None:
        """Fail where another Service has the address that Git wants: created anew, ours would be refused, and gone."""
        address = orjson.loads(patient.claim.manifest.body)["spec"].get("clusterIP")
        if not address or address == HEADLESS:
            return
        for head, _ in await self._applier.list_metadata(patient.resource, fields=f"spec.clusterIP={address}"):
            holder = head.metadata
            if (holder.namespace, holder.name) != patient.place:
                words = f"{address} is the address of Service {holder.namespace}/{holder.name}; nothing is deleted"
                raise ApiError(UNPROCESSABLE, Status(UNPROCESSABLE, "Invalid", words))


def _without_ports_of(body: bytes, live: bytes) -> bytes:
    """A Service's manifest without the node ports that the live one has; those of others stay."""
    declared, spec = orjson.loads(body), orjson.loads(live)["spec"]
    own = {port.get("nodePort") for port in spec.get("ports", [])} | {spec.get("healthCheckNodePort")}
    wanted: dict[str, Any] = declared["spec"]
    for place in (*wanted.get("ports", []), wanted):
        for field in ("nodePort", "healthCheckNodePort"):
            if place.get(field) in own:
                place.pop(field, None)
    return orjson.dumps(declared)
