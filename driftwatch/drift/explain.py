"""Says what a drift was: which fields, declared and live value, and by whom. Explains only; the API server has judged.

The fields that drifted are those that our apply entry owns after the heal and did not own before it. A write under
our own name leaves no such trace; then the declared values are compared with the live ones.
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
"""Made from all of an object: kubectl's copy of it, and our digest, by which a guess at a short value can be tried."""
BOOKKEEPING = OPTION_ANNOTATIONS | {ID_ANNOTATION, PRUNE_ANNOTATION, SNOOZE_ANNOTATION}
"""Annotations of ours that say nothing of what is in an object."""


class Subject(msgspec.Struct, frozen=True):
    """Whose drift is explained: the object, its source, and the rules that hide values."""

    key: ObjectKey
    source: str
    sensitive: tuple[Rule, ...] = ()

    @property
    def is_secret(self) -> bool:
        """Whether all values are to be hidden."""
        return self.key.group_kind == SECRET


def explain_modified(
    subject: Subject, body: bytes, before: bytes, found: Metadata, healed: Metadata, *, others_wrote: bool = True
) -> Drift:
    """The drift of an object that a heal changed: `before` is the object as found, `healed` what the answer says.

    `others_wrote` says whether anybody else's entry changed since all was in order. Who only removes fields leaves no
    trace, and then nobody is named rather than whoever wrote before.
    """
    declared, live = orjson.loads(body), orjson.loads(before)
    ours_before = ours(found.managedFields)
    ours_after = ours(healed.managedFields)
    lost = [path for path in leaves(ours_after) if not contains(ours_before, path)]
    secret = subject.is_secret
    # A field that our entry lost was changed, if only by a key more in a map that is owned as a whole. Where the whole
    # entry is gone, as of an object created anew, that says nothing.
    changed = _differing(lost, declared, live, exact=bool(ours_before)) if lost else []
    if not changed:
        # Of a Secret no value is at hand to compare.
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
    """The drift of an object to which somebody added fields that Git does not declare."""
    shown = Shown(subject, {}, orjson.loads(before), found)
    fields = [shown.described(path, addition.entry) for addition in added for path in topmost(addition.paths, None)]
    manager = added[0].entry.manager if added else ""
    return Drift(subject.key, subject.source, DriftType.ADDED, manager, tuple(fields[:MAX_FIELDS]))


def explain_difference(subject: Subject, wanted: bytes, before: bytes, found: Metadata, differing: list[Path]) -> Drift:
    """The drift of an object that is only looked at: where it differs from what an apply would make of it."""
    shown = Shown(subject, orjson.loads(wanted), orjson.loads(before), found)
    fields = [shown.field(path) for path in sorted(differing)]
    manager = next((field.manager for field in fields if field.manager), _last_writer(found))
    return Drift(subject.key, subject.source, DriftType.MODIFIED, manager, tuple(fields[:MAX_FIELDS]))


def has_other_values(body: bytes, metadata: Metadata, live: bytes) -> bool:
    """Whether a field that our apply entry owns has another value than the manifest's body declares."""
    return bool(_differing(leaves(ours(metadata.managedFields)), orjson.loads(body), orjson.loads(live)))


def _differing(paths: list[Path], declared: Any, live: Any, *, exact: bool = False) -> list[Path]:
    """Owned fields with another value; of a map or list item of which fields are owned, only its absence counts.

    Unless `exact`, a value may have more in it than is declared: defaults.
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
    """Whether a declared value can be what is live: the server only adds defaults within what is declared."""
    if isinstance(declared, dict) and isinstance(live, dict):
        return all(key in live and _same(value, live[key]) for key, value in declared.items())
    if isinstance(declared, list) and isinstance(live, list):
        return len(declared) == len(live) and all(map(_same, declared, live))
    return bool(declared == live)


def topmost(paths: list[Path], live: Any = None) -> list[Path]:
    """Leave out what lies below a path that is listed itself and is gone, or is new, as a whole."""
    listed = set(paths)
    document = Document(live)
    kept = []
    for path in paths:
        above = (path[:length] for length in range(1, len(path)))
        if not any(parent in listed and (live is None or document.lookup(parent) is MISSING) for parent in above):
            kept.append(path)
    return kept


class Shown:
    """Says of one object what stands at a path, declared and live, and hides what must not be shown."""

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
        """A field, by whoever owns it now."""
        return self.described(path, self._owners.of(path))

    def described(self, path: Path, entry: ManagedFieldsEntry | None) -> FieldDrift:
        """A field, by the entry of managedFields that is to blame."""
        declared, live = self._declared.lookup(path), self._live.lookup(path)
        hidden = self.is_hidden(path)
        if hidden and live is MISSING and entry is not None:
            live = HIDDEN  # what the watch of a Secret leaves out is there, if somebody owns it
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
        """Whether the value at the path, or one in it, must not be shown."""
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
    """Who owns the fields of an object; the field sets are decoded once for all paths."""

    def __init__(self, metadata: Metadata) -> None:
        fields = [(entry, tree(entry.fieldsV1)) for entry in metadata.managedFields]
        self._others = [each for each in fields if not each[0].is_ours and each[0].subresource != STATUS]
        self._under_our_name = [each for each in fields if each[0].manager == FIELD_MANAGER]

    def of(self, path: Path) -> ManagedFieldsEntry | None:
        """Who owns a field now, other than our apply: the latest, where there are several."""
        owners = [entry for entry, fields in self._others if owns_below(fields, path)]
        return max(owners, key=lambda entry: entry.time, default=None) or self._parent_owner(path)

    def _parent_owner(self, path: Path) -> ManagedFieldsEntry | None:
        """Nobody owns a removed field; a forged apply under our own name keeps the entry, whose time tells."""
        return next((entry for entry, fields in self._under_our_name if contains(fields, path)), None)


def last_writer(metadata: Metadata) -> ManagedFieldsEntry | None:
    """Who wrote last and not before us, other than status: the best guess at who removed a field."""
    ours = max((entry.time for entry in metadata.managedFields if entry.is_ours), default="")
    writers = [
        entry
        for entry in metadata.managedFields
        if entry.subresource != STATUS and not entry.is_ours and entry.manager != NOBODY and entry.time >= ours
    ]
    # Times have whole seconds; among equal ones the server lists the latest last.
    return max(reversed(writers), key=lambda entry: entry.time, default=None)


def _last_writer(metadata: Metadata) -> str:
    entry = last_writer(metadata)
    return entry.manager if entry else ""
