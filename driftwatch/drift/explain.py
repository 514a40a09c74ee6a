"""Explains a drift: its fields, their declared and live values, and their managers.

It only explains. The API server has already decided that the object drifted.

The drifted fields are those that our apply entry owns after the heal and did not own before. A write under our own
name leaves no such trace. In that case, the declared values are compared with the live ones.
"""

from typing import Any

import msgspec
import orjson

from driftwatch.drift import quantity
from driftwatch.drift.additions import NOBODY, Addition
from driftwatch.drift.fieldset import MISSING, Document, Path, contains, leaves, owns_below, text, tree
from driftwatch.drift.ignore import ignored_paths
from driftwatch.drift.metadata import STATUS, ManagedFieldsEntry, Metadata, ours
from driftwatch.drift.rules import Rule
from driftwatch.model import (
    DESIRED_HASH_ANNOTATION,
    FIELD_MANAGER,
    ID_ANNOTATION,
    OPTION_ANNOTATIONS,
    PRUNE_ANNOTATION,
    SECRET,
    SNOOZE_ANNOTATION,
    Drift,
    DriftType,
    FieldDrift,
    ObjectKey,
)

MAX_FIELDS = 20  # fields named in one drift; a replaced object can have hundreds
MAX_VALUE = 120  # characters of a value

HIDDEN = "<hidden>"

ANNOTATIONS: Path = ("f:metadata", "f:annotations")
COPIES: tuple[Path, ...] = (
    (*ANNOTATIONS, "f:kubectl.kubernetes.io/last-applied-configuration"),
    (*ANNOTATIONS, f"f:{DESIRED_HASH_ANNOTATION}"),
)
"""Annotations made from the whole object: kubectl's copy and our digest. A digest can confirm a guessed value."""
BOOKKEEPING = OPTION_ANNOTATIONS | {ID_ANNOTATION, PRUNE_ANNOTATION, SNOOZE_ANNOTATION}
"""driftwatch's annotations that reveal nothing about the content of an object."""


class Subject(msgspec.Struct, frozen=True):
    """The object whose drift is explained, its source, and the rules that hide values."""

    key: ObjectKey
    source: str
    sensitive: tuple[Rule, ...] = ()

    @property
    def is_secret(self) -> bool:
        """Whether all values must be hidden."""
        return self.key.group_kind == SECRET


def explain_modified(
    subject: Subject, body: bytes, before: bytes, found: Metadata, healed: Metadata, *, others_wrote: bool = True
) -> Drift:
    """The drift of an object that a heal changed. `before` is the object as found, `healed` the metadata of the answer.

    `others_wrote` says whether another manager's entry changed since the object was in order. A manager that only
    removes fields leaves no trace. Then no manager is named, because the earlier writer would be a wrong guess.
    """
    declared, live = orjson.loads(body), orjson.loads(before)
    ours_before = ours(found.managedFields)
    ours_after = ours(healed.managedFields)
    lost = [path for path in leaves(ours_after) if not contains(ours_before, path)]
    secret = subject.is_secret
    # A field that our entry lost was changed. The change may be only one more key in an atomic map. If the whole entry
    # is gone, as with an object that was created again, lost fields show nothing.
    changed = _differing(lost, declared, live, exact=bool(ours_before)) if lost else []
    if not changed:
        # The values of a Secret are not available for a comparison.
        compared = [path for path in leaves(ours_after) if not (secret and path[:1] == ("f:data",))]
        changed = _differing(compared, declared, live)
    shown = Shown(subject, declared, live, found)
    fields = [shown.field(path) for path in topmost(changed, live)]
    guess = _last_writer(found) if others_wrote else ""
    if not ours_before:
        fields.append(FieldDrift("metadata.managedFields", "our entry", "<none>", guess))
    manager = next((field.manager for field in fields if field.manager), guess)
    return Drift(subject.key, subject.source, DriftType.MODIFIED, manager, tuple(fields[:MAX_FIELDS]))


def explain_added(subject: Subject, before: bytes, found: Metadata, added: list[Addition]) -> Drift:
    """The drift of an object with added fields that Git does not declare."""
    shown = Shown(subject, {}, orjson.loads(before), found)
    fields = [shown.described(path, addition.entry) for addition in added for path in topmost(addition.paths, None)]
    manager = added[0].entry.manager if added else ""
    return Drift(subject.key, subject.source, DriftType.ADDED, manager, tuple(fields[:MAX_FIELDS]))


def explain_difference(subject: Subject, wanted: bytes, before: bytes, found: Metadata, differing: list[Path]) -> Drift:
    """The drift of an object that is only observed: its differences from the result of a dry run."""
    shown = Shown(subject, orjson.loads(wanted), orjson.loads(before), found)
    fields = [shown.field(path) for path in sorted(differing)]
    manager = next((field.manager for field in fields if field.manager), _last_writer(found))
    return Drift(subject.key, subject.source, DriftType.MODIFIED, manager, tuple(fields[:MAX_FIELDS]))


def has_other_values(body: bytes, metadata: Metadata, live: bytes) -> bool:
    """Whether a field that our apply entry owns has another value than the manifest's body declares."""
    return bool(_differing(leaves(ours(metadata.managedFields)), orjson.loads(body), orjson.loads(live)))


def _differing(paths: list[Path], declared: Any, live: Any, *, exact: bool = False) -> list[Path]:
    """Owned fields with another value. A map or list item with owned fields in it differs only if it is missing.

    Unless `exact`, a live value may contain more than is declared, such as defaults.
    """
    parents = {path[:length] for path in paths for length in range(1, len(path))}
    in_git, in_cluster = Document(declared), Document(live)
    differing = []
    for path in paths:
        wanted, found = in_git.lookup(path), in_cluster.lookup(path)
        same = wanted == found if exact else _same(wanted, found)
        same = same or (quantity.is_quantity(path) and quantity.same(wanted, found))
        if found is MISSING or (path not in parents and not same):
            differing.append(path)
    return differing


def _same(declared: Any, live: Any) -> bool:
    """Whether a live value matches a declared one. The server only adds defaults within a declared value."""
    if isinstance(declared, dict) and isinstance(live, dict):
        return all(key in live and _same(value, live[key]) for key, value in declared.items())
    if isinstance(declared, list) and isinstance(live, list):
        return len(declared) == len(live) and all(map(_same, declared, live))
    return bool(declared == live)


def topmost(paths: list[Path], live: Any = None) -> list[Path]:
    """Leave out paths below another listed path that is missing or new as a whole."""
    listed = set(paths)
    document = Document(live)
    kept = []
    for path in paths:
        above = (path[:length] for length in range(1, len(path)))
        if not any(parent in listed and (live is None or document.lookup(parent) is MISSING) for parent in above):
            kept.append(path)
    return kept


class Shown:
    """Shows the declared and live values at the paths of one object. Hides sensitive values."""

    def __init__(self, subject: Subject, declared: Any, live: Any, found: Metadata) -> None:
        self._declared = Document(declared)
        self._live = Document(live)
        self._owners = Owners(found)
        self._secret = subject.is_secret
        entries = found.writers
        self.sensitive = (
            [path for document in (declared, live) for path in ignored_paths(document, entries, subject.sensitive)]
            if subject.sensitive
            else []
        )
        if self.sensitive:
            self.sensitive += COPIES

    def field(self, path: Path) -> FieldDrift:
        """A field, attributed to its current owner."""
        return self.described(path, self._owners.of(path))

    def described(self, path: Path, entry: ManagedFieldsEntry | None) -> FieldDrift:
        """A field, attributed to an entry of managedFields."""
        declared, live = self._declared.lookup(path), self._live.lookup(path)
        hidden = self.is_hidden(path)
        if hidden and live is MISSING and entry is not None:
            live = HIDDEN  # the watch of a Secret omits the value, but an owned field exists
        return FieldDrift(
            text(path),
            _shown(declared, hidden=hidden),
            _shown(live, hidden=hidden),
            entry.manager if entry else "",
            entry.operation if entry else "",
            entry.subresource if entry else "",
            entry.time if entry else "",
        )

    def is_hidden(self, path: Path) -> bool:
        """Whether the value at the path, or a value below it, must not be shown."""
        # Annotations of a Secret can hold a copy of it (`last-applied-configuration`).
        is_told = path[:2] == ANNOTATIONS and path[-1][2:] in BOOKKEEPING
        if self._secret and path[:1] != ("f:type",) and path[:2] != ("f:metadata", "f:labels") and not is_told:
            return True
        return any(path[: len(other)] == other[: len(path)] for other in self.sensitive)


def _shown(value: Any, *, hidden: bool) -> str:
    if value is MISSING:
        return "<none>"
    if hidden:
        return HIDDEN
    written = orjson.dumps(value).decode()
    return written if len(written) <= MAX_VALUE else written[: MAX_VALUE - 1] + "…"


class Owners:
    """The owners of the fields of an object. The field sets are decoded once for all paths."""

    def __init__(self, metadata: Metadata) -> None:
        fields = [(entry, tree(entry.fieldsV1)) for entry in metadata.managedFields]
        self._others = [each for each in fields if not each[0].is_ours and each[0].subresource != STATUS]
        self._under_our_name = [each for each in fields if each[0].manager == FIELD_MANAGER]

    def of(self, path: Path) -> ManagedFieldsEntry | None:
        """The current owner of a field other than our apply. If there are several, the one with the latest time."""
        owners = [entry for entry, fields in self._others if owns_below(fields, path)]
        return max(owners, key=lambda entry: entry.time, default=None) or self._parent_owner(path)

    def _parent_owner(self, path: Path) -> ManagedFieldsEntry | None:
        """The entry under our name that contains the path of a removed field.

        A removed field has no other owner. A forged apply under our name keeps the entry, and its time shows the apply.
        """
        return next((entry for entry, fields in self._under_our_name if contains(fields, path)), None)


def last_writer(metadata: Metadata) -> ManagedFieldsEntry | None:
    """The last writer since our own write, without status writers. The best guess at who removed a field."""
    ours = max((entry.time for entry in metadata.managedFields if entry.is_ours), default="")
    writers = [
        entry
        for entry in metadata.managedFields
        if entry.subresource != STATUS and not entry.is_ours and entry.manager != NOBODY and entry.time >= ours
    ]
    # Times have a resolution of one second. Among equal times, the server lists the latest entry last.
    return max(reversed(writers), key=lambda entry: entry.time, default=None)


def _last_writer(metadata: Metadata) -> str:
    entry = last_writer(metadata)
    return entry.manager if entry else ""
