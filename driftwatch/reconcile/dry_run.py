"""Observe mode: finds drift by a dry run of the apply. Nothing is written, not even a label.

Driftwatch owns no field of such an object, so field ownership cannot show what differs. The API server's dry run can.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.errors import ApiError
from driftwatch.drift.additions import Addition
from driftwatch.drift.detector import Detector
from driftwatch.drift.explain import explain_added, explain_difference
from driftwatch.drift.fieldset import MISSING, Document, FieldTree, Path, list_steps, merge, tree
from driftwatch.drift.ignore import effective
from driftwatch.drift.metadata import STATUS, Metadata, ObjectHead, decode_head, known
from driftwatch.drift.object_state import Verdict
from driftwatch.model import OUR_PREFIX, Drift, DriftType, Mode
from driftwatch.reconcile.interfaces import Reporter, Target
from driftwatch.reconcile.reconciler import Reconciler

LOOKS = 5  # reads of an object that others keep writing; the last read is used


class Comparison(msgspec.Struct):
    """A live object and the result of a dry-run apply, both as JSON.

    `differing` are the paths at which they differ. `added` are fields that people own and Git does not declare. An
    apply does not remove them. `torn`: the object was written between the read and the dry run, so the comparison is
    not valid. If the object is not healed, both lack driftwatch's labels and annotations, since only a write by
    driftwatch would update them.
    """

    live: bytes
    wanted: bytes
    head: ObjectHead
    differing: list[Path]
    added: list[Addition]
    torn: bool = False


class DryRunDiff:
    """Compares objects with Git. Writes nothing."""

    def __init__(self, detector: Detector, api: ApiClient, reporter: Reporter, reconciler: Reconciler) -> None:
        self._detector = detector
        self._api = api
        self._reporter = reporter
        self._reconciler = reconciler

    async def judge(self, target: Target) -> None:
        """Report whether the object differs from Git. Raises `ApiError` or `Unreachable`."""
        key, declaration = target.key, target.declaration
        drift, head = await self.difference(target)
        if head is None:
            self._detector.settle(key)
            target.state.last_applied = declaration.manifest.digest
        else:
            newer = target.state.observation
            self._detector.accept(key, head, declaration.manifest.digest)
            target.state.differs = drift is not None
            if drift is not None and newer is not None and newer.version > head.version:
                # `accept` has taken it as in sync. The newer event has queued the object, so it is judged again.
                target.state.accepted = None
        if drift is None:
            self._reporter.in_sync(key)
        else:
            self._reporter.drifted(drift)

    async def difference(self, target: Target) -> tuple[Drift | None, ObjectHead | None]:
        """What an apply would change, and the head of the live object. No state changes, and nothing is reported."""
        key, declaration = target.key, target.declaration
        found = await self._compared(target)
        if found is None:
            return Drift(key, declaration.source, DriftType.DELETED), None
        metadata = found.head.metadata
        if found.differing:
            return explain_difference(target.subject, found.wanted, found.live, metadata, found.differing), found.head
        if found.added:
            return explain_added(target.subject, found.live, metadata, found.added), found.head
        return None, found.head

    async def _compared(self, target: Target) -> Comparison | None:
        """Compare the object as it is now. None if it does not exist."""
        found = None
        for _ in range(LOOKS):
            seen = target.observation
            if seen is None or seen.verdict is not Verdict.DELETED:
                seen = await self._reconciler.look(target)
            if seen.head is None or seen.raw is None:
                return None
            adopted = not target.state.observed or is_tracked(seen.head.metadata)
            found = await compare(self._api, self._detector, target, seen.head, seen.raw, tracked=adopted)
            if not found.torn:
                break
        return found


async def compare(
    api: ApiClient, detector: Detector, target: Target, head: ObjectHead, raw: bytes, *, tracked: bool
) -> Comparison:
    """Compare a live object with the result of applying its manifest, with or without driftwatch's tracking fields."""
    key, policy = target.key, target.state.policy
    body = target.declaration.manifest.body
    if not tracked:
        body = without_ours(body)
    live = orjson.loads(raw)
    if policy.ignore:
        body, _ = effective(body, live, head.metadata, policy.ignore)
    wanted = await api.dry_run(target.resource, key.namespace, key.name, body)
    # The dry run shows which fields driftwatch would own, and so which fields people have added.
    would_be = decode_head(wanted).metadata
    added = detector.added(target.state, would_be, known(raw))
    if added and not tracked:
        added = await _without_defaults(api, target, body, live, added)
    if not tracked or policy.mode is not Mode.HEAL:
        raw, wanted = without_ours(raw), without_ours(wanted)
        live = orjson.loads(raw)
        found = Document(live)
        added = _only(added, lambda path: found.lookup(path) is not MISSING)
    differing = list(difference(compared(orjson.loads(wanted)), compared(live), owned_by_all(head.metadata, would_be)))
    return Comparison(raw, wanted, head, differing, added, would_be.resourceVersion != head.metadata.resourceVersion)


def _only(added: list[Addition], is_one: Callable[[Path], bool]) -> list[Addition]:
    """Keep only the added paths for which `is_one` holds."""
    kept = [Addition(each.entry, [path for path in each.paths if is_one(path)]) for each in added]
    return [each for each in kept if each.paths]


async def _without_defaults(
    api: ApiClient, target: Target, body: bytes, live: Any, added: list[Addition]
) -> list[Addition]:
    """Additions without the API server's defaults, which the creator of the object owns.

    A dry-run replace with the manifest restores the defaults and nothing else. If the replace is not allowed or not
    possible, every path counts as added.
    """
    declared = orjson.loads(body)
    declared["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"]
    key = target.key
    try:
        answer = await api.dry_run_replace(target.resource, key.namespace, key.name, orjson.dumps(declared))
    except ApiError as error:
        if error.passes:
            raise
        return added
    replaced, found = Document(orjson.loads(answer)), Document(live)
    return _only(added, lambda path: replaced.lookup(path) != found.lookup(path))


def is_tracked(metadata: Metadata) -> bool:
    """Whether driftwatch has managed a live object: it has driftwatch's label, annotation or managedFields entry."""
    label = metadata.labels is not None and bool(metadata.labels.source)
    notes = metadata.annotations
    annotated = notes is not None and bool(notes.id or notes.desired_hash)
    return label or annotated or any(entry.is_ours for entry in metadata.managedFields)


def without_ours(raw: bytes) -> bytes:
    """A manifest or live object without driftwatch's labels and annotations: tracking, and options set in Git."""
    found = orjson.loads(raw)
    metadata = found["metadata"]
    for field in ("labels", "annotations"):
        kept = {name: value for name, value in metadata.get(field, {}).items() if not name.startswith(OUR_PREFIX)}
        if kept:
            metadata[field] = kept
        else:
            metadata.pop(field, None)
    return orjson.dumps(found)


def compared(value: dict[str, Any]) -> dict[str, Any]:
    """An object without its status and the fields that every write changes."""
    metadata = {
        name: field
        for name, field in value["metadata"].items()
        if name not in ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
    }
    return {**{name: field for name, field in value.items() if name != "status"}, "metadata": metadata}


def owned_by_all(*states: Metadata) -> FieldTree:
    """The fields that any manager owns. The tree shows which keys identify the items of each list."""
    merged: FieldTree = {}
    for entry in (entry for metadata in states for entry in metadata.managedFields):
        if entry.subresource != STATUS:
            merge(merged, tree(entry.fieldsV1))
    return merged


def difference(wanted: Any, live: Any, owned: FieldTree, path: Path = ()) -> Iterator[Path]:
    """Paths at which two values differ, as deep as both have the same shape.

    `owned` are the fields of the value that any manager owns. Items of a keyed list and values of a set are matched as
    in the API server, regardless of their order. Items of other lists are matched by position.
    """
    if wanted == live:
        return
    steps = _steps(wanted, live, owned)
    if steps is None:
        yield path
        return
    left, right = Document(wanted), Document(live)
    for step in steps:
        here, there = left.lookup((step,)), right.lookup((step,))
        inner = owned.get(step) or {}
        if step[:2] == "f:" and inner:  # if a whole mapping or list is missing, name its fields
            here = _empty(there) if here is MISSING else here
            there = _empty(here) if there is MISSING else there
        if here is MISSING or there is MISSING:
            yield (*path, step)
        else:
            yield from difference(here, there, inner, (*path, step))


def _empty(value: Any) -> Any:
    """An empty value of the same shape, or `MISSING` for a scalar or an empty value."""
    if value and isinstance(value, dict | list):
        return {} if isinstance(value, dict) else []
    return MISSING


def _steps(wanted: Any, live: Any, owned: FieldTree) -> list[str] | None:
    """Steps to the fields or items of both values. None if they can only be compared as a whole."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        return [f"f:{name}" for name in sorted(wanted.keys() | live.keys())]
    if not isinstance(wanted, list) or not isinstance(live, list):
        return None
    steps = [*list_steps(owned, wanted), *list_steps(owned, live)]
    if any(step[:2] == "i:" for step in steps):
        return [f"i:{position}" for position in range(len(wanted))] if len(wanted) == len(live) else None
    return list(dict.fromkeys(steps))
