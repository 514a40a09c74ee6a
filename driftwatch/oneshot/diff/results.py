"""Results of a comparison, which are printed as text or as JSON.

Values of Secrets and of sensitive fields have already been masked.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from driftwatch.desired.read_once import Failure
from driftwatch.drift.metadata import ManagedFieldsEntry
from driftwatch.model import DriftType, InvalidManifest, ObjectKey


class Author(msgspec.Struct, frozen=True):
    """Writer of a field: manager, operation, subresource and time (RFC 3339, whole seconds)."""

    manager: str
    operation: str = ""
    subresource: str = ""
    time: str = ""

    @classmethod
    def of(cls, entry: ManagedFieldsEntry | None) -> "Author | None":
        """Return the author of a managedFields entry, None for None."""
        return cls(entry.manager, entry.operation, entry.subresource, entry.time) if entry else None


class Field(msgspec.Struct, frozen=True):
    """A field that differs.

    `declared` and `live` are None if the field is absent, `author` is None if no manager owns it. For an object that
    exists, `declared` is the value after a dry-run apply.
    """

    path: str
    declared: Any
    live: Any
    hidden: bool
    author: Author | None


class Difference(msgspec.Struct, frozen=True):
    """An object that differs from Git.

    `live` and `wanted` are the whole object now and after healing, without the fields that every write changes. They
    are None if the object does not exist. `last_writer` is the most likely author of removed fields without an owner.
    `note` says what prevents healing, "" for nothing.
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
    """Reason why an object could not be compared. `key` is None and `file` "" if it concerns several objects."""

    message: str
    source: str
    file: str = ""
    line: int = 0
    key: ObjectKey | None = None


def unread(failures: Mapping[str, Failure]) -> list[Trouble]:
    """Convert read failures, by source name."""
    return [Trouble(failure.message, source, failure.file, failure.line) for source, failure in failures.items()]


def unfit(source: str, invalid: Iterable[InvalidManifest]) -> list[Trouble]:
    """Convert invalid manifests of a source."""
    return [Trouble(f"invalid manifest: {m.reason}", source, m.file, m.line) for m in invalid]


class Results(msgspec.Struct):
    """Results of a whole comparison. `left_out` counts objects whose mode is paused or ignore."""

    differences: list[Difference] = []
    troubles: list[Trouble] = []
    in_sync: int = 0
    left_out: int = 0

    def sort(self) -> None:
        """Sort for display. The order is deterministic."""
        self.differences.sort(key=lambda found: (found.source, found.key))
        self.troubles.sort(key=lambda found: (found.source, found.file, found.line, found.message))
