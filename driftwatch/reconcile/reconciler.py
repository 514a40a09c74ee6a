"""The requests that heal one object, and what their answers say of the drift.

One heal is one request: the server-side apply of the body that was serialised when the snapshot was built. An added
field takes two, the taking over of its ownership and the apply that does not declare it. Only where a rule leaves
fields to others does the body depend on what is there.
"""

import contextlib
from collections.abc import Callable

import msgspec
import orjson

from driftwatch.cluster.api import Applied, Applier
from driftwatch.cluster.errors import (
    CONFLICT,
    NOT_FOUND,
    SERVER_ERROR,
    UNPROCESSABLE,
    ApiError,
    ClusterError,
    ImmutableField,
    Unreachable,
    Unreadable,
)
from driftwatch.drift.additions import Addition, left_over
from driftwatch.drift.annotations import Additions
from driftwatch.drift.detector import Detector
from driftwatch.drift.explain import explain_added, explain_modified
from driftwatch.drift.fieldset import MISSING, Path, lookup
from driftwatch.drift.ignore import effective, yielded_paths
from driftwatch.drift.metadata import ObjectHead, decode_head, known
from driftwatch.drift.record import Evidence, Finding
from driftwatch.model import SECRET, SOURCE_LABEL, Drift, DriftType, FieldDrift, ObjectKey
from driftwatch.reconcile.interfaces import Patient, Reporter
from driftwatch.reconcile.recreate import Recreation
from driftwatch.reconcile.take_over import Cleared, Clearing

WRITE_TRIES = 5  # what a write depends on may be changed by others in the meantime


class Done(msgspec.Struct):
    """What came of it: whether the object was created, whether a newer event waits to be worked on, what was mended."""

    created: bool
    again: bool
    healed: Drift | None = None


class Written(msgspec.Struct):
    """An apply that succeeded: the answer, what was sent, the live object if it was known, what had to go before."""

    applied: Applied
    body: bytes
    raw: bytes | None
    cleared: list[Cleared]


class Remedy:
    """Heals objects. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, detector: Detector, applier: Applier, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._detector = detector
        self._applier = applier
        self._reporter = reporter
        self._clock = clock
        self._recreation = Recreation(applier)
        self._clearing = Clearing(applier, lambda: detector.managers)
        self._unanswered: dict[ObjectKey, Evidence] = {}

    async def heal(self, patient: Patient) -> Done:
        """Put the object back, whatever was found of it; one that cannot be changed into that may be deleted first."""
        try:
            return await self._heal(patient)
        except ApiError as error:
            if not await self._recreation.is_about_immutable(patient, error):
                raise
            if not self._recreation.is_allowed(patient):
                raise ImmutableField(error) from error
            await self._recreation.delete(patient)
            patient.record.replaced = patient.record.in_force == patient.claim.manifest.digest
            self._reporter.recreating(patient.key, patient.claim, error)
            return Done(created=False, again=False)

    async def _heal(self, patient: Patient) -> Done:
        evidence = patient.evidence
        if evidence is not None and evidence.finding is Finding.ADDED and evidence.head is not None:
            if patient.record.policy.additions is Additions.REPORT:
                self._report_added(patient, evidence.head, evidence.raw or b"{}")
                return Done(created=False, again=False)
            return await self._revert(patient, evidence.head, evidence.raw or b"{}")
        return await self._apply(patient)

    async def look(self, patient: Patient) -> Evidence:
        """Evidence of an object of which nothing was seen: it is read."""
        try:
            raw = await self._applier.read(patient.resource, patient.key.namespace, patient.key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return Evidence(Finding.DELETED, patient.record.version, self._clock())
        head = decode_head(raw)
        return Evidence(Finding.SUSPECT, head.version, self._clock(), head, raw)

    async def _body(self, patient: Patient, *, anew: bool) -> tuple[bytes, bytes | None]:
        """What to apply, and the live object where it had to be known for that, read `anew` if need be."""
        key, manifest, record, evidence = patient.key, patient.claim.manifest, patient.record, patient.evidence
        if not record.policy.ignore:
            return manifest.body, evidence.raw if evidence else None
        gone = evidence is not None and evidence.finding is Finding.DELETED
        if gone and record.in_force and not record.yields:
            return manifest.body, None  # created anew with Git's values
        seen = evidence
        if anew or seen is None or seen.head is None or seen.raw is None or key.group_kind == SECRET:
            seen = await self.look(patient)
        return self._beside(patient, seen), seen.raw

    def _beside(self, patient: Patient, seen: Evidence) -> bytes:
        """What to apply to an object as it was seen, values of a Secret included."""
        record, body = patient.record, patient.claim.manifest.body
        if seen.head is None or seen.raw is None:
            ignored = yielded_paths(orjson.loads(body), [], record.policy.ignore)
        else:
            body, ignored = effective(body, orjson.loads(seen.raw), seen.head.metadata, record.policy.ignore)
            if _sends_any(body, ignored):  # live values are sent back: they must be the ones that are there
                body = _for_version(body, seen.head.metadata.resourceVersion)
        record.yields = bool(ignored)
        return body

    async def _write(self, patient: Patient) -> Written:
        """Apply what is to be applied; once more, where somebody changed the object on which that depends."""
        cleared: list[Cleared] = []
        for attempt in range(WRITE_TRIES):
            body, raw = await self._body(patient, anew=attempt > 0)
            try:
                applied = await self._applier.apply(patient.resource, *patient.place, body)
                break
            except ApiError as error:
                if attempt == WRITE_TRIES - 1:
                    raise
                if error.code == CONFLICT and patient.record.yields:
                    continue  # the body was made for a version that is no more
                cleared.append(await self._clearing.clear(patient, error, body))
                if not cleared[-1].any:
                    raise
        return Written(applied, body, raw, cleared)

    async def _unshare(self, patient: Patient, head: ObjectHead) -> None:
        """Own alone what is ours and was noted down as nobody's, or Git could never drop it."""
        shared = left_over(head.metadata)
        if not shared:
            return
        with contextlib.suppress(ApiError):  # somebody wrote in between: the next heal comes by here again
            await self._clearing.move(patient, head.metadata, shared)

    async def _apply(self, patient: Patient) -> Done:
        key, claim, evidence = patient.key, patient.claim, patient.evidence
        was_in_force, uid = patient.record.in_force == claim.manifest.digest, patient.record.uid
        try:
            written = await self._write(patient)
        except ClusterError as error:
            self._remember_unanswered(patient, error)
            raise
        unanswered = self._unanswered.pop(key, None)
        evidence = evidence or unanswered
        applied, body, raw = written.applied, written.body, written.raw
        newer = self._detector.evidence.get(key)
        left = self._detector.accept(key, applied.head, claim.manifest.digest)
        drift: Drift | None = None
        if was_in_force and evidence is not None:
            drift = self._drift(patient, evidence, applied, uid, body)
            in_between = newer is not None and newer.head and evidence.version < newer.version < applied.head.version
            if drift is None and newer is not None and in_between:
                drift = self._drift(patient, newer, applied, uid, body)
            if drift is None and unanswered is not None:
                drift, evidence = self._drift(patient, unanswered, applied, uid, body), unanswered
            if drift is None:
                self._reporter.in_sync(key)
            else:
                self._reporter.healed(drift, self._clock() - evidence.arrived)
            self._report_cleared(patient, written, evidence)
        else:
            self._reporter.synced(key, claim, created=applied.created)
        again = left.needs_work
        if not applied.created:
            if not was_in_force:
                patient.evidence = None  # what the first adoption, or a new commit, takes away is part of the sync
            try:
                await self._unshare(patient, applied.head)
                after = await self._after_apply(patient, applied.head, raw or b"{}")
            except ClusterError:
                patient.record.accepted = None  # what others added is there still: it is to be looked at again
                raise
            again, drift = again or after.again, drift or after.healed
        return Done(applied.created, again, drift)

    def _remember_unanswered(self, patient: Patient, error: ClusterError) -> None:
        """An apply may have been done although its answer was lost: the next one finds all in order, and not why."""
        key, evidence = patient.key, patient.evidence
        lost = isinstance(error, (Unreachable, Unreadable)) or (
            isinstance(error, ApiError) and error.code >= SERVER_ERROR
        )
        in_force = patient.record.in_force == patient.claim.manifest.digest
        if lost and in_force and evidence is not None and evidence.head is not None:
            self._unanswered.setdefault(key, evidence)

    def owes(self, key: ObjectKey) -> bool:
        """Whether it is not known yet what a heal did, because its answer was lost."""
        return key in self._unanswered

    def forget(self, key: ObjectKey) -> None:
        """The object is not declared any more."""
        self._unanswered.pop(key, None)

    async def _after_apply(self, patient: Patient, head: ObjectHead, raw: bytes) -> Done:
        """An apply leaves alone what others added; that has its own remedy."""
        if not self._detector.added(patient.key, patient.record, head.metadata, known(raw)):
            if patient.record.reported:
                patient.record.reported = False
                self._reporter.in_sync(patient.key)
            return Done(created=False, again=False)
        if patient.record.policy.additions is Additions.REPORT:
            self._report_added(patient, head, raw)
            return Done(created=False, again=False)
        return await self._revert(patient, head, raw)

    def _drift(self, patient: Patient, evidence: Evidence, applied: Applied, uid: str, body: bytes) -> Drift | None:
        """What the apply mended, None where it found everything in order."""
        key, source = patient.key, patient.claim.source
        if applied.created:
            replaced, patient.record.replaced = patient.record.replaced, False
            return Drift(key, source, DriftType.MODIFIED if replaced else DriftType.DELETED)
        if evidence.head is None or evidence.raw is None:
            if uid and applied.head.metadata.uid != uid:
                return Drift(key, source, DriftType.DELETED)  # and created anew by somebody
            label = FieldDrift(f'metadata.labels["{SOURCE_LABEL}"]', f'"{source}"', "<none>")
            return Drift(key, source, DriftType.MODIFIED, "", (label,))
        if applied.head.version == evidence.version:
            return None
        found, healed = evidence.head.metadata, applied.head.metadata
        drift = explain_modified(patient.subject, body, evidence.raw, found, healed, others_wrote=evidence.others_wrote)
        # Without a field that differs, somebody else's write came in between, or ownership alone was put in order.
        return drift if drift.fields else None

    def _report_cleared(self, patient: Patient, written: Written, evidence: Evidence) -> None:
        for cleared in written.cleared:
            if cleared.taken:
                drift = explain_added(patient.subject, cleared.raw, cleared.found, cleared.taken)
                self._reporter.healed(drift, self._clock() - evidence.arrived)

    def _report_added(self, patient: Patient, head: ObjectHead, raw: bytes) -> None:
        added = self._detector.added(patient.key, patient.record, head.metadata, known(raw))
        self._detector.settle(patient.key)
        patient.record.reported = True
        if added:
            self._reporter.drifted(explain_added(patient.subject, raw, head.metadata, added))

    async def _revert(self, patient: Patient, head: ObjectHead, raw: bytes) -> Done:
        """Remove the fields that somebody added: make them ours, then apply what does not declare them."""
        key, claim = patient.key, patient.claim
        head, added = await self._take_over(patient, head, raw)
        if not added:  # somebody took it away, and perhaps something of ours with it: only an apply can tell
            return await self._apply(patient)
        # The ownership is another one now.
        applied = (await self._write(msgspec.structs.replace(patient, evidence=None))).applied
        again = self._detector.accept(key, applied.head, claim.manifest.digest).needs_work
        # What was added in between is accepted with the answer, and no event will tell of it again.
        again |= bool(self._detector.added(key, patient.record, applied.head.metadata, known(raw)))
        if again and key not in self._detector.evidence:
            patient.record.accepted = None
        drift = None
        if patient.evidence is not None:
            drift = explain_added(patient.subject, raw, head.metadata, added)
            self._reporter.healed(drift, self._clock() - patient.evidence.arrived)
        return Done(applied.created, again, drift)

    async def _take_over(self, patient: Patient, head: ObjectHead, raw: bytes) -> tuple[ObjectHead, list[Addition]]:
        """Move what was added into our entry, in the newest version of the object."""
        key = patient.key
        for attempt in range(WRITE_TRIES):
            added = self._detector.added(key, patient.record, head.metadata, known(raw))
            if not added:
                break
            try:
                await self._clearing.move(patient, head.metadata, added)
                break
            except ApiError as error:
                if error.code not in (CONFLICT, UNPROCESSABLE) or attempt == WRITE_TRIES - 1:
                    raise
                head = await self._applier.read_head(patient.resource, key.namespace, key.name)
        return head, added


def _sends_any(body: bytes, paths: list[Path]) -> bool:
    manifest = orjson.loads(body)
    return any(lookup(manifest, path) is not MISSING for path in paths)


def _for_version(body: bytes, version: str) -> bytes:
    """The body, to be applied to this version of the object and to no other."""
    manifest = orjson.loads(body)
    manifest["metadata"]["resourceVersion"] = version
    return orjson.dumps(manifest)
