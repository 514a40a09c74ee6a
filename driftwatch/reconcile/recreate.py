"""Objects that cannot become what Git declares: an immutable field is another one.

Such a refusal looks like that of any invalid manifest. What tells them apart is a dry run of creating the object: the
API server validates the manifest first, and only then says that there is one of the name. Only what is valid by itself
and allowed to is deleted and created anew; an otherwise invalid manifest deletes nothing.

A Service asks for what only one may have, and there the dry run errs both ways: it refuses ports that the Service has
itself, and passes an address that another has.
"""

from typing import Any

import orjson

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.errors import CONFLICT, UNPROCESSABLE, ApiError, Status
from driftwatch.drift.orphan import GUARDED
from driftwatch.model import RECREATE_ANNOTATION, GroupKind
from driftwatch.reconcile.interfaces import Target

SERVICE = GroupKind("", "Service")
HEADLESS = "None"
_TAKEN = "provided port is already allocated"


class RecreateObject:
    """Deletes what has to be created anew. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def is_about_immutable(self, target: Target, refusal: ApiError) -> bool:
        """Whether the refusal is only about changing the object, which would be created as Git declares it."""
        if refusal.code != UNPROCESSABLE or not target.state.live:
            return False
        body = target.declaration.manifest.body
        refused = await self._refused(target, body)
        if refused is not None and target.key.group_kind == SERVICE and _TAKEN in refused.message:
            live = await self._api.read(target.resource, *target.place)
            refused = await self._refused(target, _without_ports_of(body, live))
        return refused is not None and refused.code == CONFLICT  # None: it is gone meanwhile, an event will tell

    async def _refused(self, target: Target, body: bytes) -> ApiError | None:
        """What the API server says to creating the object."""
        try:
            await self._api.dry_run_create(target.resource, *target.place, body)
        except ApiError as error:
            return error
        return None

    def is_allowed(self, target: Target) -> bool:
        """Whether the object may be deleted. What takes others, or data, with it must say so itself."""
        if target.key.group_kind in GUARDED:
            return target.declaration.manifest.options.get(RECREATE_ANNOTATION) == "immutable"
        return target.state.policy.replace

    async def delete(self, target: Target) -> None:
        """Delete the object as it is now; the event of that has it created. `ApiError` where it could not be."""
        if target.key.group_kind == SERVICE:
            await self._check_address(target)
        head = await self._api.read_head(target.resource, *target.place)
        metadata = head.metadata
        await self._api.delete(target.resource, *target.place, metadata.uid, head.version)

    async def _check_address(self, target: Target) -> None:
        """Fail where another Service has the address that Git wants: created anew, ours would be refused, and gone."""
        address = orjson.loads(target.declaration.manifest.body)["spec"].get("clusterIP")
        if not address or address == HEADLESS:
            return
        for head, _ in await self._api.list_metadata(target.resource, fields=f"spec.clusterIP={address}"):
            holder = head.metadata
            if (holder.namespace, holder.name) != target.place:
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
