"""Converts a comparison into a `Difference`: fields with authors, both documents, secret values masked."""

from typing import Any

import orjson

from driftwatch.drift.additions import Addition
from driftwatch.drift.annotations import Additions
from driftwatch.drift.explain import Owners, Shown, last_writer, topmost
from driftwatch.drift.fieldset import MISSING, Document, Path, cut_all, text
from driftwatch.drift.ignore import ignored_paths
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata, decode_head
from driftwatch.model import DriftType, Mode
from driftwatch.oneshot.diff.masking import hidden_paths, mask, masked, scrub
from driftwatch.oneshot.diff.results import Author, Difference, Field
from driftwatch.reconcile.dry_run import Comparison, compared
from driftwatch.reconcile.interfaces import Target

_DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")


def deleted(target: Target, wanted: bytes, note: str = "") -> Difference:
    """Describe an object that does not exist. `wanted` is the object that an apply would create."""
    document = compared(orjson.loads(wanted))
    mask({}, document, _hidden(target, decode_head(wanted).metadata, document))
    return _difference(target, DriftType.DELETED, note, wanted=document)


def being_deleted(target: Target, raw: bytes) -> Difference:
    """Describe an object that has a deletionTimestamp and waits for its finalizers."""
    metadata = decode_head(raw).metadata
    live = compared(orjson.loads(raw))
    wanted: dict[str, Any] = {**live, "metadata": {**live["metadata"]}}
    for name in _DELETION:
        wanted["metadata"].pop(name, None)
    mask(live, wanted, _hidden(target, metadata, live))
    note = f"it is being deleted since {metadata.deletionTimestamp}; healing creates it anew when it is gone"
    return _difference(target, DriftType.DELETED, note, live=live, wanted=wanted)


def described(target: Target, found: Comparison, note: str) -> Difference:
    """Describe an object that differs from the result of a dry-run apply."""
    metadata, would_be = found.head.metadata, decode_head(found.wanted).metadata
    live, wanted = compared(orjson.loads(found.live)), compared(orjson.loads(found.wanted))
    shown = Shown(target.subject, wanted, live, metadata)
    owners, in_cluster, in_git = Owners(metadata), Document(live), Document(wanted)
    fields = [_field(shown, path, owners.of(path), in_cluster, in_git) for path in sorted(found.differing)]
    fields += _added(shown, found.added, live, wanted)
    if found.added and target.state.policy.additions is Additions.REPORT:
        note = "; ".join(filter(None, [note, "what was added is reported and stays"]))
    mask(live, wanted, [*_hidden(target, metadata, live), *_hidden(target, would_be, wanted)])
    return _difference(
        target,
        DriftType.MODIFIED if found.differing else DriftType.ADDED,
        note,
        fields=fields,
        last_writer=Author.of(last_writer(metadata)),
        live=live,
        wanted=wanted,
    )


def masked_message(target: Target, raw: bytes | None, message: str) -> str:
    """Mask the secret values that the API server quotes in an error message about the object."""
    documents = [orjson.loads(body) for body in (target.declaration.manifest.body, raw) if body]
    heads = [decode_head(raw).metadata] if raw else []
    paths = [path for document in documents for path in _hidden(target, heads[0] if heads else Metadata(), document)]
    return scrub(message, documents, paths)


def _added(shown: Shown, added: list[Addition], live: Any, wanted: Any) -> list[Field]:
    """Return the added fields and remove them from `wanted`. Healing removes them; an apply alone does not."""
    paths = [(path, addition.entry) for addition in added for path in topmost(addition.paths)]
    in_cluster, nothing = Document(live), Document({})
    cut_all(wanted, (path for path, _ in paths))
    return [_field(shown, path, entry, in_cluster, nothing) for path, entry in paths]


def _field(shown: Shown, path: Path, entry: ManagedFieldsEntry | None, live: Document, wanted: Document) -> Field:
    is_hidden = shown.is_hidden(path)
    before, after = live.lookup(path), wanted.lookup(path)
    if is_hidden:
        before, after = masked(before, after)
        path = path[: next((number for number, step in enumerate(path) if step[:2] == "v:"), len(path))]
    return Field(text(path), _or_none(after), _or_none(before), is_hidden, Author.of(entry))


def _or_none(value: Any) -> Any:
    return None if value is MISSING else value


def _hidden(target: Target, metadata: Metadata, document: Any) -> list[Path]:
    subject = target.subject
    entries = metadata.writers
    sensitive = ignored_paths(document, entries, subject.sensitive) if subject.sensitive else []
    return hidden_paths(document, sensitive, secret=subject.is_secret)


def _difference(
    target: Target, kind: DriftType, note: str, *, fields: list[Field] | None = None, **more: Any
) -> Difference:
    policy, manifest = target.state.policy, target.declaration.manifest
    if policy.mode is not Mode.HEAL:
        note = "; ".join(filter(None, [f"mode {policy.mode}", note]))
    return Difference(
        target.key,
        target.declaration.source,
        manifest.file,
        manifest.line,
        str(policy.mode),
        kind,
        tuple(fields or ()),
        note=note,
        **more,
    )
