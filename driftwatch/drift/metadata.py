"""The part of an object that the hot path reads: its metadata, decoded straight from the bytes of the watch line.

The spec stays undecoded bytes until a drift has to be explained, and labels and annotations other than ours are
skipped by the decoder: an object may carry a copy of itself in `last-applied-configuration`.
"""

import struct
from collections.abc import Callable, Iterable
from typing import NewType

import msgspec

from driftwatch.drift.fieldset import FieldTree, tree
from driftwatch.model import DESIRED_HASH_ANNOTATION, FIELD_MANAGER, ID_ANNOTATION, SNOOZE_ANNOTATION, SOURCE_LABEL

STATUS = "status"


class ManagedFieldsEntry(msgspec.Struct, gc=False, omit_defaults=True):
    """One entry of `metadata.managedFields`: who owns which fields. `fieldsV1` stays as it came."""

    manager: str = ""
    operation: str = ""
    apiVersion: str = ""  # noqa: N815  the API's name
    time: str = ""
    fieldsType: str = "FieldsV1"  # noqa: N815  the API's name
    fieldsV1: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815  the API's name
    subresource: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this is the entry that our server-side apply leaves."""
        return self.manager == FIELD_MANAGER and self.operation == "Apply" and not self.subresource


def ours(entries: Iterable[ManagedFieldsEntry]) -> FieldTree:
    """What our apply entry owns, nothing where there is none."""
    return next((tree(entry.fieldsV1) for entry in entries if entry.is_ours), {})


class Labels(msgspec.Struct, gc=False):
    """The label that is ours."""

    source: str = msgspec.field(name=SOURCE_LABEL, default="")


class Annotations(msgspec.Struct, gc=False):
    """The annotations that are ours."""

    id: str = msgspec.field(name=ID_ANNOTATION, default="")
    desired_hash: str = msgspec.field(name=DESIRED_HASH_ANNOTATION, default="")
    snooze_until: str = msgspec.field(name=SNOOZE_ANNOTATION, default="")


class Metadata(msgspec.Struct, gc=False):
    """`metadata` of an object. `deletionTimestamp` is "" for an object that is not being deleted."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resourceVersion: str = "0"  # noqa: N815  the API's name
    generation: int = 0
    deletionTimestamp: str = ""  # noqa: N815  the API's name
    labels: Labels | None = None
    annotations: Annotations | None = None
    managedFields: list[ManagedFieldsEntry] = []  # noqa: N815  the API's name

    @property
    def writers(self) -> list[ManagedFieldsEntry]:
        """The entries of those who write the object itself, and not its status."""
        return [entry for entry in self.managedFields if entry.subresource != STATUS]

    @property
    def snooze_until(self) -> str:
        """What the live snooze annotation says, "" without one."""
        return self.annotations.snooze_until if self.annotations else ""


class ObjectHead(msgspec.Struct, gc=False):
    """An object of which only the metadata was read."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)

    @property
    def version(self) -> int:
        """`resourceVersion` as the integer that it is (KEP-5504)."""
        return int(self.metadata.resourceVersion)


class WatchEvent(msgspec.Struct, gc=False):
    """A line of a watch: its type, and of the object the metadata alone. The rest is read when it is needed."""

    type: str
    object: ObjectHead


class _RawEvent(msgspec.Struct, gc=False):
    object: msgspec.Raw


_pack = struct.Struct("qqq").pack

Fingerprint = NewType("Fingerprint", bytes)
"""Hashes of `managedFields`, good within this process: our entries, everybody else's, the status writers'.

There is one for every managed object: in one piece they take a third of what three integers do.
"""


def own_part(found: Fingerprint) -> bytes:
    """The hash of the entries under our name."""
    return found[:8]


def others_part(found: Fingerprint) -> bytes:
    """The hash of the entries of others, status writers left out."""
    return found[8:16]


class ObjectList(msgspec.Struct):
    """A page of a LIST; items not yet decoded. A list of metadata that is empty has null for items."""

    class ListMeta(msgspec.Struct):
        """`metadata` of a list."""

        resourceVersion: str = "0"  # noqa: N815  the API's name
        continue_: str = msgspec.field(name="continue", default="")

    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


decode_head = msgspec.json.Decoder(ObjectHead).decode
decode_event = msgspec.json.Decoder(WatchEvent).decode
_decode_raw_event = msgspec.json.Decoder(_RawEvent).decode
decode_list = msgspec.json.Decoder(ObjectList).decode


Content = Callable[[], bytes]
"""Gives an object as JSON: it is taken out of its line or page only where somebody wants to read it."""


def object_of(line: bytes) -> bytes:
    """The object of a watch line as JSON."""
    return bytes(_decode_raw_event(line).object)


def known(raw: bytes) -> Content:
    """The content of an object that is at hand as JSON."""
    return lambda: raw


def fingerprint(metadata: Metadata) -> Fingerprint:
    """Hash who owns what. Times are part of it, so that a second write of the same fields shows, too.

    Any entry under our name counts as ours, whatever its operation: anybody can write with `fieldManager=driftwatch`,
    and what did not come from our last write must show as a change of our entries.
    """
    ours: list[object] = []
    others: list[object] = []
    status: list[object] = []
    for entry in metadata.managedFields:
        into = status if entry.subresource == STATUS else ours if entry.manager == FIELD_MANAGER else others
        into.append((entry.manager, entry.operation, entry.subresource, entry.time, hash(bytes(entry.fieldsV1))))
    return Fingerprint(_pack(hash(tuple(ours)), hash(tuple(others)), hash(tuple(status))))
