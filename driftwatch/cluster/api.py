"""Client for objects of the API server: server-side apply, dry runs, reads, deletes and JSON patches."""

import time
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlencode

import msgspec
import orjson

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import CONFLICT, UNPROCESSABLE, ApiError, Status, Unreadable
from driftwatch.cluster.session import Session
from driftwatch.drift.metadata import ObjectHead, decode_head, decode_list
from driftwatch.model import FIELD_MANAGER

# Only the metadata of the answer is used. PartialObjectMetadata saves encoding, sending and decoding the rest.
# It also keeps the values of a Secret out of the answer.
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_APPLY_HEADERS = {"Content-Type": "application/apply-patch+yaml", "Accept": _METADATA_ONLY}
_METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_DELETE_HEADERS = {"Content-Type": "application/json", "Accept": _METADATA_ONLY}
_PAGE = 500  # objects a LIST page, client-go's default
_JSON_PATCH_HEADERS = {"Content-Type": "application/json-patch+json", "Accept": _METADATA_ONLY}
# Server-side apply rejects unknown fields by itself. By default the API server parses the body a second time as strict
# YAML, to warn about duplicate keys. Bodies that driftwatch serialises have no duplicate keys.
_QUERY = urlencode({"fieldManager": FIELD_MANAGER, "force": "true", "fieldValidation": "Ignore"})
_NO_OBJECT = (
    "the answer says that it is good, and is no object; something between driftwatch and the API server made it up"
)
_DRY_RUN = "dryRun=All"
_DRY_RUN_QUERY = f"{_QUERY}&dryRun=All"


class Applied(msgspec.Struct):
    """Result of an apply: the object's metadata after the apply, and whether the apply created the object."""

    head: ObjectHead
    created: bool


class Observer(Protocol):
    """Callback for the latency of applies."""

    def __call__(self, resource: Resource, namespace: str, name: str, seconds: float, *, dry_run: bool) -> None:
        """Record one successful apply of the object, which took `seconds`."""


class ApiClient:
    """Reads and writes objects of the cluster.

    Every method raises `ApiError` or `Unreachable`. Methods that decode an answer raise `Unreadable` too.
    `observer` is called after each successful apply and dry-run apply.
    """

    def __init__(self, session: Session, observer: Observer | None = None) -> None:
        self._session = session
        self._observer = observer

    async def apply(self, resource: Resource, namespace: str, name: str, body: bytes) -> Applied:
        """Apply the body with `force=true`. The API server creates the object if it does not exist."""
        url = self._session.url(resource.path(namespace, name), _QUERY)
        began = time.monotonic()
        answer = await self._session.request("PATCH", url, body=body, headers=_APPLY_HEADERS)
        if self._observer is not None:
            self._observer(resource, namespace, name, time.monotonic() - began, dry_run=False)
        return Applied(_head(answer.body), answer.code == 201)  # noqa: PLR2004

    async def dry_run(self, resource: Resource, namespace: str, name: str, body: bytes) -> bytes:
        """Dry-run an apply. Returns the object as it would be afterwards, as JSON."""
        url = self._session.url(resource.path(namespace, name), _DRY_RUN_QUERY)
        headers = {"Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}
        began = time.monotonic()
        answer = await self._session.request("PATCH", url, body=body, headers=headers)
        if self._observer is not None:
            self._observer(resource, namespace, name, time.monotonic() - began, dry_run=True)
        return _object(answer.body)

    async def dry_run_replace(self, resource: Resource, namespace: str, name: str, body: bytes) -> bytes:
        """Dry-run a PUT. Returns the object as it would be with these fields and no others, as JSON."""
        url = self._session.url(resource.path(namespace, name), _DRY_RUN)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        return _object((await self._session.request("PUT", url, body=body, headers=headers)).body)

    async def dry_run_create(self, resource: Resource, namespace: str, name: str, body: bytes) -> None:
        """Dry-run a create. Raises `ApiError`; the code is 409 if the body is valid and the object already exists."""
        url = self._session.url(resource.path(namespace, name).rpartition("/")[0], _DRY_RUN)
        headers = {"Content-Type": "application/json", "Accept": _METADATA_ONLY}
        await self._session.request("POST", url, body=body, headers=headers)

    async def read(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return the live object as JSON."""
        url = self._session.url(resource.path(namespace, name))
        return _object((await self._session.request("GET", url, headers={"Accept": "application/json"})).body)

    async def read_head(self, resource: Resource, namespace: str, name: str) -> ObjectHead:
        """Return the live object's metadata, decoded."""
        return _head(await self.read_metadata(resource, namespace, name))

    async def read_metadata(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Return the live object's metadata as JSON (PartialObjectMetadata)."""
        url = self._session.url(resource.path(namespace, name))
        return _object((await self._session.request("GET", url, headers={"Accept": _METADATA_ONLY})).body)

    async def list_metadata(
        self, resource: Resource, *, labels: str = "", fields: str = ""
    ) -> list[tuple[ObjectHead, bytes]]:
        """List the metadata of every object that the selectors match, decoded and as JSON, in pages of 500."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        found: list[tuple[ObjectHead, bytes]] = []
        while True:
            url = self._session.url(resource.collection, urlencode(query))
            answer = await self._session.request("GET", url, headers={"Accept": _METADATA_LIST})
            try:
                page = decode_list(answer.body)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise Unreadable(_NO_OBJECT) from error
            found += [(_head(bytes(raw)), bytes(raw)) for raw in page.items or ()]
            if not page.metadata.continue_:
                return found
            query["continue"] = page.metadata.continue_

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str, version: int) -> None:
        """Delete the object and, in the background, its dependents.

        The preconditions are `uid` and `resourceVersion`. Raises `ApiError` 409 if either has changed.
        """
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": str(version)},
            "propagationPolicy": "Background",
        }
        url = self._session.url(resource.path(namespace, name))
        await self._session.request("DELETE", url, body=orjson.dumps(options), headers=_DELETE_HEADERS)

    async def set_managed_fields(
        self, resource: Resource, namespace: str, name: str, resource_version: str, entries: list[object]
    ) -> None:
        """Replace `metadata.managedFields`. Raises `ApiError` 409 if the object is newer than `resource_version`."""
        await self._replace(resource, namespace, name, resource_version, {"/metadata/managedFields": entries})

    async def empty_maps(
        self, resource: Resource, namespace: str, name: str, resource_version: str, pointers: list[str]
    ) -> None:
        """Empty the maps at the JSON pointers. Raises `ApiError` 409 if the object is newer than `resource_version`."""
        await self._replace(resource, namespace, name, resource_version, {pointer: {} for pointer in pointers})

    async def _replace(
        self, resource: Resource, namespace: str, name: str, resource_version: str, values: Mapping[str, object]
    ) -> None:
        patch: list[dict[str, object]] = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}
        ]
        patch += [{"op": "replace", "path": pointer, "value": value} for pointer, value in values.items()]
        url = self._session.url(resource.path(namespace, name), urlencode({"fieldManager": FIELD_MANAGER}))
        try:
            await self._session.request("PATCH", url, body=orjson.dumps(patch), headers=_JSON_PATCH_HEADERS)
        except ApiError as error:
            if error.code != UNPROCESSABLE or error.details != Status().details:
                raise
            # The API server reports a failed JSON patch `test` with 422, like an invalid object, but without `details`.
            # Treated as an invalid object, it would look like an immutable field, and the object might be recreated.
            words = f"{name} is newer than version {resource_version}"
            raise ApiError(CONFLICT, Status(CONFLICT, "Conflict", words)) from error


def _object(body: bytes) -> bytes:
    """Return the body if it is an object. Raises `Unreadable`, which does not quote the body: it may be a Secret."""
    try:
        decode_head(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreadable(_NO_OBJECT) from error
    return body


def _head(body: bytes) -> ObjectHead:
    """Decode the metadata of a stored object. Raises `Unreadable`, also if it has no resourceVersion."""
    try:
        head = decode_head(body)
        is_there = head.version > 0
    except (msgspec.MsgspecError, ValueError) as error:
        raise Unreadable(_NO_OBJECT) from error
    if not is_there:
        raise Unreadable(_NO_OBJECT)
    return head
