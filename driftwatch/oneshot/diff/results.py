"""What a comparison finds: the values that are printed, as text or as JSON.

Everything here is fit to be shown: values of Secrets and of sensitive fields have been replaced before.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from driftwatch.desired.read_once import Failure
from driftwatch.drift.metadata import ManagedFieldsEntry
from driftwatch.model import DriftType, InvalidManifest, ObjectKey


class Author(msgspec.Struct, frozen=True):
    """Who wrote a field, how, through which subresource and when (RFC 3339, whole seconds)."""

    manager: str
    operation: str = ""
    subresource: str = ""
    time: str = ""

    @classmethod
    def of(cls, entry: ManagedFieldsEntry | None) -> "Author | None":
        """The author that an entry of managedFields names."""
        return cls(entry.manager, entry.operation, entry.subresource, entry.time) if entry else None


class Field(msgspec.Struct, frozen=True):
    """A field that differs. `declared` and `live` are None where it is not there, `author` where nobody owns it.

    The declared value of an object that is there is what an apply would make of it.
    """

    path: str
    declared: Any
    live: Any
    hidden: bool
    author: Author | None


class Difference(msgspec.Struct, frozen=True):
    """An object that is not as Git declares it.

    `live` and `wanted` are the whole object as it is and as healing would make it, without what every write changes;
    None where it is not there. `last_writer` is the best guess at who removed what nobody owns any more. `note` says
    what keeps it from being healed, "" where nothing does.
    """

    key: ObjectKey
    source: str
    file: str
    line: int
    mode: str
    type: DriftType
    fields: tuple[Field, ...] = ()
    last_writer: Author | None = None
    note: str = ""
    live: Any = None
    wanted: Any = None


class Trouble(msgspec.Struct, frozen=True):
    """Why something could not be compared. `key` is None and `file` "" where it is about more than one object."""

    message: str
    source: str
    file: str = ""
    line: int = 0
    key: ObjectKey | None = None


def unread(failures: Mapping[str, Failure]) -> list[Trouble]:
    """Of sources that cannot be read, by name."""
    return [Trouble(failure.message, source, failure.file, failure.line) for source, failure in failures.items()]


def unfit(source: str, invalid: Iterable[InvalidManifest]) -> list[Trouble]:
    """Of manifests of a source that are no objects."""
    return [Trouble(f"invalid manifest: {m.reason}", source, m.file, m.line) for m in invalid]


class Findings(msgspec.Struct):
    """All that a comparison found. `left_out` counts objects whose mode says that nobody shall look at them."""

    differences: list[Difference] = []
    troubles: list[Trouble] = []
    in_sync: int = 0
    left_out: int = 0

    def sort(self) -> None:
        """Put everything in the order in which it is shown, the same each time."""
        self.differences.sort(key=lambda found: (found.source, found.key))
        self.troubles.sort(key=lambda found: (found.source, found.file, found.line, found.message))
