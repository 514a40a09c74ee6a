"""Observe mode: what an apply would change is drift, and nothing is written, not even a label.

We own nothing of such an object, so ownership cannot tell what differs; the API server's dry run of the apply can.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import orjson

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError
from driftwatch.drift.additions import additions
from driftwatch.drift.declared import Claim
from driftwatch.drift.explain import explain_added, explain_difference
from driftwatch.drift.fields import Path
from driftwatch.drift.metadata import decode_head
from driftwatch.drift.ownership import Detector, Evidence, Finding
from driftwatch.model import DESIRED_HASH_ANNOTATION, ID_ANNOTATION, SOURCE_LABEL, Drift, DriftType, ObjectKey


class Told(Protocol):
    """Who is told what was found."""

    def drifted(self, drift: Drift) -> None:
        """Drift was found."""

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it."""


class Judge:
    """Compares objects with Git without writing."""

    def __init__(self, detector: Detector, applier: Applier, reporter: Told) -> None:
        self._detector = detector
        self._applier = applier
        self._reporter = reporter

    async def judge(self, key: ObjectKey, claim: Claim, resource: Resource, evidence: Evidence | None) -> None:
        """Report whether the object differs from Git. Raises `ApiError` or `Unreachable`."""
        live = None
        if evidence is None or evidence.finding is not Finding.DELETED:
            try:
                live = await self._applier.read(resource, key.namespace, key.name)
            except ApiError as error:
                if error.code != 404:  # noqa: PLR2004
                    raise
        if live is None:
            self._detector.evidence.pop(key, None)
            self._detector.record(key).in_force = claim.manifest.digest
            self._reporter.drifted(Drift(key, claim.source, DriftType.DELETED))
            return
        would_be = await self._applier.dry_run(resource, key.namespace, key.name, untracked(claim.manifest.body))
        head = decode_head(live)
        self._detector.accept(key, head, claim.manifest.digest)
        differing = list(difference(_compared(orjson.loads(would_be)), _compared(orjson.loads(live))))
        added = additions(decode_head(would_be).metadata)
        if differing:
            self._reporter.drifted(explain_difference(key, claim.source, would_be, live, head.metadata, differing))
        elif added:
            self._reporter.drifted(explain_added(key, claim.source, live, added))
        else:
            self._reporter.in_sync(key)


def untracked(body: bytes) -> bytes:
    """The body without our label and annotations, which an object that we only observe does not carry."""
    manifest = orjson.loads(body)
    metadata = manifest["metadata"]
    for field, names in (
        ("labels", (SOURCE_LABEL,)),
        ("annotations", (ID_ANNOTATION, DESIRED_HASH_ANNOTATION)),
    ):
        kept = {name: value for name, value in metadata.get(field, {}).items() if name not in names}
        if kept:
            metadata[field] = kept
        else:
            metadata.pop(field, None)
    return orjson.dumps(manifest)


def _compared(value: dict[str, Any]) -> dict[str, Any]:
    """An object without what every write changes."""
    metadata = {
        name: field
        for name, field in value["metadata"].items()
        if name not in ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
    }
    return {**{name: field for name, field in value.items() if name != "status"}, "metadata": metadata}


def difference(wanted: Any, live: Any, path: Path = ()) -> Iterator[Path]:
    """Paths at which two values differ, as deep as both have the same shape."""
    if isinstance(wanted, dict) and isinstance(live, dict):
        for name in wanted.keys() | live.keys():
            if name not in wanted or name not in live:
                yield (*path, f"f:{name}")
            else:
                yield from difference(wanted[name], live[name], (*path, f"f:{name}"))
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for position, (one, other) in enumerate(zip(wanted, live, strict=True)):
            yield from difference(one, other, (*path, _item_step(one, position)))
    elif wanted != live:
        yield path


def _item_step(item: Any, position: int) -> str:
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return f"k:{orjson.dumps({'name': item['name']}).decode()}"
    return f"i:{position}"
