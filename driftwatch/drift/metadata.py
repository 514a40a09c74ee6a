"""The metadata of an object, decoded directly from the bytes of the watch line for the hot path.

The spec stays undecoded until a drift must be explained. The decoder skips the labels and annotations of others,
because an object may contain a copy of itself in `last-applied-configuration`.
"""

import struct
from collections.abc import Callable, Iterable
from typing import NewType

import msgspec

from driftwatch.drift.fieldset import FieldTree, tree
from driftwatch.model import DESIRED_HASH_ANNOTATION, FIELD_MANAGER, ID_ANNOTATION, SNOOZE_ANNOTATION, SOURCE_LABEL

STATUS = "status"


class ManagedFieldsEntry(msgspec.Struct, gc=False, omit_defaults=True):
    """One entry of `metadata.managedFields`: a manager and its fields. `fieldsV1` stays undecoded."""

    manager: str = ""
    operation: str = ""
    apiVersion: str = ""  # noqa: N815  the API's name
    time: str = ""
    fieldsType: str = "FieldsV1"  # noqa: N815  the API's name
    fieldsV1: msgspec.Raw = msgspec.Raw(b"{}")  # noqa: N815  the API's name
    subresource: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this is the entry of driftwatch's server-side apply."""
        return self.manager == FIELD_MANAGER and self.operation == "Apply" and not self.subresource


def ours(entries: Iterable[ManagedFieldsEntry]) -> FieldTree:
    """The field set of our apply entry. Empty without such an entry."""
    return next((tree(entry.fieldsV1) for entry in entries if entry.is_ours), {})


class Labels(msgspec.Struct, gc=False):
    """The label that driftwatch sets."""

    source: str = msgspec.field(name=SOURCE_LABEL, default="")


class Annotations(msgspec.Struct, gc=False):
    """The annotations that driftwatch reads."""

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
        """The entries of managers that write the object itself, without status entries."""
        return [entry for entry in self.managedFields if entry.subresource != STATUS]

    @property
    def snooze_until(self) -> str:
        """The value of the live snooze annotation. "" without one."""
        return self.annotations.snooze_until if self.annotations else ""


class ObjectHead(msgspec.Struct, gc=False):
    """An object with only its metadata decoded."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)

    @property
    def version(self) -> int:
        """`resourceVersion` as an integer (KEP-5504)."""
        return int(self.metadata.resourceVersion)


class WatchEvent(msgspec.Struct, gc=False):
    """A line of a watch: its type and the metadata of its object. The rest is decoded on demand."""

    type: str
    object: ObjectHead


class _RawEvent(msgspec.Struct, gc=False):
    object: msgspec.Raw


_pack = struct.Struct("qqq").pack

Fingerprint = NewType("Fingerprint", bytes)
"""Three hashes of `managedFields`: our entries, the entries of others, and the status entries.

It is valid only within this process. There is one for every managed object. One bytes value takes a third of the memory
of three integers.
"""


def own_part(found: Fingerprint) -> bytes:
    """The hash of the entries under our name."""
    return found[:8]


def others_part(found: Fingerprint) -> bytes:
    """The hash of the entries of others, without status entries."""
    return found[8:16]


class ObjectList(msgspec.Struct):
    """A page of a LIST with undecoded items. An empty list of metadata has null as `items`."""

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
"""Returns an object as JSON. The object is extracted from its line or page only on demand."""


def object_of(line: bytes) -> bytes:
    """The object of a watch line as JSON."""
    return bytes(_decode_raw_event(line).object)


def known(raw: bytes) -> Content:
    """The content of an object that is already available as JSON."""
    return lambda: raw


def fingerprint(metadata: Metadata) -> Fingerprint:
    """Hash the field ownership. The hash includes times, so that it also shows a second write of the same fields.

    Every entry under our name counts as ours, with any operation. Anybody can write with `fieldManager=driftwatch`. A
    write that is not our last one must show as a change of our entries.
    """
    ours: list[object] = []
    others: list[object] = []
    status: list[object] = []
    for entry in metadata.managedFields:
        into = status if entry.subresource == STATUS else ours if entry.manager == FIELD_MANAGER else others
        into.append((entry.manager, entry.operation, entry.subresource, entry.time, hash(bytes(entry.fieldsV1))))
    return Fingerprint(_pack(hash(tuple(ours)), hash(tuple(others)), hash(tuple(status))))
