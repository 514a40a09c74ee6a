"""Recreates objects that cannot be changed into the manifest because an immutable field differs.

The API server's error looks like that for any invalid manifest. A dry run of a create tells the two apart: the API
server validates the manifest first, and reports that the name exists only afterwards. An object is deleted and created
again only if its manifest is valid and its policy allows it. An invalid manifest deletes nothing.

The dry run is wrong about a Service in two cases, since a port or an address can belong to one Service only. It refuses
ports that the Service itself holds. It accepts an address that another Service holds.
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
    """Deletes objects that must be created again. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def is_about_immutable(self, target: Target, refusal: ApiError) -> bool:
        """Whether only a change is refused, so that a create of the same manifest would succeed."""
        if refusal.code != UNPROCESSABLE or not target.state.live:
            return False
        body = target.declaration.manifest.body
        refused = await self._refused(target, body)
        if refused is not None and target.key.group_kind == SERVICE and _TAKEN in refused.message:
            live = await self._api.read(target.resource, *target.place)
            refused = await self._refused(target, _without_ports_of(body, live))
        return refused is not None and refused.code == CONFLICT  # None: the object is deleted; its event will follow

    async def _refused(self, target: Target, body: bytes) -> ApiError | None:
        """The API server's error for a dry-run create. None if it succeeds."""
        try:
            await self._api.dry_run_create(target.resource, *target.place, body)
        except ApiError as error:
            return error
        return None

    def is_allowed(self, target: Target) -> bool:
        """Whether the object may be deleted. A kind whose deletion removes others or data needs an annotation."""
        if target.key.group_kind in GUARDED:
            return target.declaration.manifest.options.get(RECREATE_ANNOTATION) == "immutable"
        return target.state.policy.replace

    async def delete(self, target: Target) -> None:
        """Delete the object as it is now. Its DELETED event triggers the create. `ApiError` if a create would fail."""
        if target.key.group_kind == SERVICE:
            await self._check_address(target)
        head = await self._api.read_head(target.resource, *target.place)
        metadata = head.metadata
        await self._api.delete(target.resource, *target.place, metadata.uid, head.version)

    async def _check_address(self, target: Target) -> None:
        """Raise `ApiError` if another Service holds the declared address. After a delete, the create would fail."""
        address = orjson.loads(target.declaration.manifest.body)["spec"].get("clusterIP")
        if not address or address == HEADLESS:
            return
        for head, _ in await self._api.list_metadata(target.resource, fields=f"spec.clusterIP={address}"):
            holder = head.metadata
            if (holder.namespace, holder.name) != target.place:
                words = f"{address} is the address of Service {holder.namespace}/{holder.name}; nothing is deleted"
                raise ApiError(UNPROCESSABLE, Status(UNPROCESSABLE, "Invalid", words))


def _without_ports_of(body: bytes, live: bytes) -> bytes:
    """A Service's manifest without the node ports that the live Service holds. Other node ports stay."""
    declared, spec = orjson.loads(body), orjson.loads(live)["spec"]
    own = {port.get("nodePort") for port in spec.get("ports", [])} | {spec.get("healthCheckNodePort")}
    wanted: dict[str, Any] = declared["spec"]
    for place in (*wanted.get("ports", []), wanted):
        for field in ("nodePort", "healthCheckNodePort"):
            if place.get(field) in own:
                place.pop(field, None)
    return orjson.dumps(declared)
