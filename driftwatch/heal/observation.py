"""Observe mode: what an apply would change is drift, and nothing is written, not even a label.

We own nothing of such an object, so ownership cannot tell what differs; the API server's dry run of the apply can.
"""

from collections.abc import Iterator
from typing import Any

import orjson

from driftwatch.cluster.apply import Applier
from driftwatch.drift.explain import explain_added, explain_difference
from driftwatch.drift.fields import Path
from driftwatch.drift.ignore import effective
from driftwatch.drift.metadata import ObjectHead, decode_head, known
from driftwatch.drift.ownership import Detector, Finding
from driftwatch.heal.remedy import Patient, Remedy
from driftwatch.heal.reporter import Reporter
from driftwatch.model import DESIRED_HASH_ANNOTATION, ID_ANNOTATION, SOURCE_LABEL, Drift, DriftType


class Judge:
    """Compares objects with Git without writing."""

    def __init__(self, detector: Detector, applier: Applier, reporter: Reporter, remedy: Remedy) -> None:
        self._detector = detector
        self._applier = applier
        self._reporter = reporter
        self._remedy = remedy

    async def judge(self, patient: Patient) -> None:
        """Report whether the object differs from Git. Raises `ApiError` or `Unreachable`."""
        key, claim = patient.key, patient.claim
        drift, head = await self.difference(patient)
        if head is None:
            self._detector.settle(key)
            patient.record.in_force = claim.manifest.digest
        else:
            self._detector.accept(key, head, claim.manifest.digest)
        if drift is None:
            self._reporter.in_sync(key)
        else:
            self._reporter.drifted(drift)

    async def difference(self, patient: Patient) -> tuple[Drift | None, ObjectHead | None]:
        """What an apply would change, and the live object's metadata; nothing is remembered or reported."""
        key, claim = patient.key, patient.claim
        seen = patient.evidence
        if seen is None or seen.finding is not Finding.DELETED:
            seen = await self._remedy.look(patient)
        if seen.head is None or seen.raw is None:
            return Drift(key, claim.source, DriftType.DELETED), None
        policy, metadata = patient.record.policy, seen.head.metadata
        body = untracked(claim.manifest.body) if patient.record.observed else claim.manifest.body
        if policy.ignore:
            body, _ = effective(body, orjson.loads(seen.raw), metadata, policy.ignore)
        would_be = await self._applier.dry_run(patient.resource, key.namespace, key.name, body)
        differing = list(difference(_compared(orjson.loads(would_be)), _compared(orjson.loads(seen.raw))))
        if differing:
            return explain_difference(patient.subject, would_be, seen.raw, metadata, differing), seen.head
        # The dry run shows what would be ours, and with it what people own that is not.
        added = self._detector.added(patient.record, decode_head(would_be).metadata, known(seen.raw))
        if added:
            return explain_added(patient.subject, seen.raw, metadata, added), seen.head
        return None, seen.head


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
