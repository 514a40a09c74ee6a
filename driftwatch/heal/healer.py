"""Works on the keys that the detector found: applies what Git declares, and acts on what the API server answers.

One heal is one request, the server-side apply of the body that was serialised when the snapshot was built; the object
that is gone is created by it. The answer also says whether there was drift at all. Nothing here waits for another
object: a refused key is parked for an event, or comes again after its own backoff.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog

from driftwatch.cluster.apply import Applied, Applier
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, ClusterError
from driftwatch.drift.additions import additions, held, take_over
from driftwatch.drift.declared import Claim, Declared
from driftwatch.drift.explain import explain_added, explain_modified
from driftwatch.drift.metadata import ObjectHead, fingerprint
from driftwatch.drift.ownership import Detector, Evidence, Finding
from driftwatch.heal.observation import Judge
from driftwatch.heal.order import CRD, NAMESPACE
from driftwatch.heal.outcome import Outcome, classify
from driftwatch.heal.parking import Parking
from driftwatch.heal.queue import KeyedQueue, Lane
from driftwatch.model import SOURCE_LABEL, Drift, DriftType, FieldDrift, GroupKind, Manifest, Mode, ObjectKey

CONCURRENCY = 8  # writes at the same time; more only queue up in the API server and in etcd
FAILED_RETRY = 600.0  # seconds until a refused manifest is tried again although nothing changed
NAMESPACE_POLL = (
    0.5,
    15.0,
)  # seconds between looks at a namespace that Git does not declare, first and longest
UNPROCESSABLE = 422
TAKE_OVER_TRIES = 5  # an added field's object may be written by others while we take it over

log = structlog.get_logger()


class Reporter(Protocol):
    """Who is told what healing sees and does."""

    def drifted(self, drift: Drift) -> None:
        """Drift was found that is not healed (yet)."""

    def healed(self, drift: Drift, seconds: float) -> None:
        """Drift was healed, so many seconds after its event arrived."""

    def synced(self, key: ObjectKey, claim: Claim, *, created: bool) -> None:
        """A new or changed manifest was applied."""

    def in_sync(self, key: ObjectKey) -> None:
        """The object is as Git declares it, or not ours to judge any more."""

    def refused(self, key: ObjectKey, claim: Claim, outcome: Outcome, error: ClusterError, retry: float | None) -> None:
        """The API server refused; the next try comes in `retry` seconds, None when an event must come first."""


class Kinds(Protocol):
    """What healing asks of and tells to whoever keeps up with the API server's kinds."""

    def resource(self, manifest: Manifest) -> Resource | None:
        """How the manifest's kind is served, None where it is not."""

    def served(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served."""

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version: look for it."""

    def expected(self) -> None:
        """A CRD was applied: its kind is about to be served."""


class Healer:
    """Tends keys until the daemon stops. All methods are called on the event loop."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        applier: Applier,
        kinds: Kinds,
        reporter: Reporter,
        mode: Callable[[str], Mode],
        clock: Callable[[], float],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._applier = applier
        self._kinds = kinds
        self._reporter = reporter
        self._mode = mode
        self._clock = clock
        self._judge = Judge(detector, applier, reporter)
        self._queue = KeyedQueue(CONCURRENCY)
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: list[tuple[set[ObjectKey], asyncio.Event]] = []
        self._stopping = False
        self.parking = Parking()

    def add(self, key: ObjectKey, lane: Lane = Lane.DRIFT) -> None:
        """Ask for work on a key."""
        self._queue.add(key, lane)
        self._pump()

    def on_finding(self, key: ObjectKey, finding: Finding) -> None:
        """Act on what an event says of an object."""
        if finding.needs_work:
            self.add(key)
        elif finding is Finding.TERMINATING:
            self._on_terminating(key)

    async def tend_all(self, keys: set[ObjectKey]) -> None:
        """Work on these keys after what has drifted; returns when each was tried once."""
        if not keys:
            return
        tried = asyncio.Event()
        self._batches.append((set(keys), tried))
        for key in sorted(keys):
            self._queue.add(key, Lane.SYNC)
        self._pump()
        await tried.wait()

    async def stop(self, grace: float) -> None:
        """Take no new work; give what is in flight `grace` seconds to end."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()

    def release_kind(self, kind: GroupKind) -> None:
        """The kind is served now."""
        for key in self.parking.kind_ready(kind):
            self.add(key)

    def _on_terminating(self, key: ObjectKey) -> None:
        claim = self._declared.get(key)
        if claim is not None and self._mode(claim.source) is not Mode.PAUSED:
            self._reporter.drifted(Drift(key, claim.source, DriftType.DELETED))

    def _pump(self) -> None:
        while not self._stopping and (key := self._queue.take()) is not None:
            self._spawn(self._work(key))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: ObjectKey) -> None:
        try:
            await self._tend(key)
        except Exception:  # one object's failure, even by our own mistake, must not end the healing of others
            log.exception("healing failed unexpectedly; it is tried again", **named(key))
            self._again(key, self._queue.failed(key))
        finally:
            self._queue.done(key)
            self._tick_off(key)
            self._pump()

    def _tick_off(self, key: ObjectKey) -> None:
        for keys, tried in self._batches:
            keys.discard(key)
            if not keys:
                tried.set()
        self._batches = [batch for batch in self._batches if batch[0]]

    def _again(self, key: ObjectKey, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self.add, key)

    async def _tend(self, key: ObjectKey) -> None:
        claim = self._declared.get(key)
        if claim is None:
            self._detector.forget(key)
            self.parking.forget(key)
            self._reporter.in_sync(key)
            return
        mode = self._mode(claim.source)
        record = self._detector.record(key)
        if mode is Mode.PAUSED or record.terminating:
            return  # of one that is being deleted, the DELETED event comes next
        evidence = self._detector.evidence.get(key)
        if evidence is None and record.live and record.accepted and record.in_force == claim.manifest.digest:
            return  # an earlier try has done it
        resource = self._kinds.resource(claim.manifest)
        if resource is None:
            self._on_missing_kind(key, claim, evidence)
            return
        if mode is Mode.HEAL and key.namespace in self.parking.namespaces:
            self.parking.at_namespace(key)
            self._report_deleted(key, claim, evidence)
            return
        try:
            if mode is Mode.OBSERVE:
                await self._judge.judge(key, claim, resource, evidence)
            elif evidence is not None and evidence.finding is Finding.ADDED and evidence.head is not None:
                await self._revert(key, claim, resource, evidence.head, evidence)
            else:
                await self._apply(key, claim, resource, evidence)
            self._queue.succeeded(key)
        except ClusterError as error:
            self._on_refusal(key, claim, evidence, error)

    async def _apply(self, key: ObjectKey, claim: Claim, resource: Resource, evidence: Evidence | None) -> None:
        manifest = claim.manifest
        record = self._detector.record(key)
        was_in_force, uid = record.in_force == manifest.digest, record.uid
        applied = await self._apply_body(key, resource, manifest.body)
        left = self._detector.accept(key, applied.head, manifest.digest)
        if left.needs_work:
            self.add(key)
        if applied.created:
            self._on_created(key)
        if was_in_force and evidence is not None:
            drift = self._drift(key, claim, evidence, applied, uid)
            if drift is None:
                self._reporter.in_sync(key)
            else:
                self._reporter.healed(drift, self._clock() - evidence.arrived)
        else:
            self._reporter.synced(key, claim, created=applied.created)
        if not applied.created and additions(applied.head.metadata):
            # What the first adoption of an object, or a new commit, takes away is part of the sync.
            await self._revert(key, claim, resource, applied.head, evidence if was_in_force else None)

    async def _apply_body(self, key: ObjectKey, resource: Resource, body: bytes) -> Applied:
        """Apply, if need be after taking over what people own.

        What they added can exclude what Git declares (`maxUnavailable` beside `minAvailable`), and what they own with
        us stays when Git drops it (a container without its image): then the object as a whole is invalid.
        """
        for attempt in range(TAKE_OVER_TRIES):
            try:
                return await self._applier.apply(resource, key.namespace, key.name, body)
            except ApiError as error:
                if error.code != UNPROCESSABLE or not await self._take_from_people(key, resource):
                    raise
                if attempt == TAKE_OVER_TRIES - 2:
                    break
        return await self._applier.apply(resource, key.namespace, key.name, body)

    async def _take_from_people(self, key: ObjectKey, resource: Resource) -> bool:
        """Make ours what people own of the object. Returns whether the object may be another one now."""
        try:
            metadata = (await self._applier.read_head(resource, key.namespace, key.name)).metadata
            people = held(metadata)
            if people:
                entries, version = take_over(metadata, people), metadata.resourceVersion
                await self._applier.set_managed_fields(resource, key.namespace, key.name, version, entries)
        except ApiError as error:
            return error.code in (404, 409, UNPROCESSABLE)  # it is gone, or somebody wrote in between
        return bool(people)

    def _drift(self, key: ObjectKey, claim: Claim, evidence: Evidence, applied: Applied, uid: str) -> Drift | None:
        """What the apply mended, None where it found everything in order."""
        if applied.created:
            return Drift(key, claim.source, DriftType.DELETED)
        if evidence.head is None or evidence.raw is None:
            if uid and applied.head.metadata.uid != uid:
                return Drift(key, claim.source, DriftType.DELETED)  # and created anew by somebody
            label = FieldDrift(f'metadata.labels["{SOURCE_LABEL}"]', f'"{claim.source}"', "<none>")
            return Drift(key, claim.source, DriftType.MODIFIED, "", (label,))
        if applied.head.version == evidence.version:
            return None
        found, healed = evidence.head.metadata, applied.head.metadata
        body, others_wrote = claim.manifest.body, evidence.others_wrote
        drift = explain_modified(key, claim.source, body, evidence.raw, found, healed, others_wrote=others_wrote)
        if not drift.fields and fingerprint(found).ours == fingerprint(healed).ours:
            return None  # somebody else's write came in between, and the apply changed nothing
        return drift

    async def _revert(
        self, key: ObjectKey, claim: Claim, resource: Resource, head: ObjectHead, evidence: Evidence | None
    ) -> None:
        """Remove the fields that somebody added: make them ours, then apply what does not declare them."""
        for attempt in range(TAKE_OVER_TRIES):
            added = additions(head.metadata)
            if not added:
                self._detector.accept(key, head, claim.manifest.digest)
                self._reporter.in_sync(key)
                return
            entries = take_over(head.metadata, added)
            version = head.metadata.resourceVersion
            try:
                await self._applier.set_managed_fields(resource, key.namespace, key.name, version, entries)
                break
            except ApiError as error:
                if error.code not in (409, 422) or attempt == TAKE_OVER_TRIES - 1:
                    raise
                head = await self._applier.read_head(resource, key.namespace, key.name)
        applied = await self._applier.apply(resource, key.namespace, key.name, claim.manifest.body)
        if self._detector.accept(key, applied.head, claim.manifest.digest).needs_work:
            self.add(key)
        if evidence is not None:
            drift = explain_added(key, claim.source, evidence.raw or b"{}", added)
            self._reporter.healed(drift, self._clock() - evidence.arrived)

    def _on_created(self, key: ObjectKey) -> None:
        if key.group_kind == NAMESPACE:
            for parked in self.parking.namespace_ready(key.name):
                self.add(parked)
        elif key.group_kind == CRD:
            self._kinds.expected()

    def _on_missing_kind(self, key: ObjectKey, claim: Claim, evidence: Evidence | None) -> None:
        self._report_deleted(key, claim, evidence)
        self.parking.at_kind(key)
        manifest = claim.manifest
        wanted = f"{manifest.group}/{manifest.version}" if manifest.group else manifest.version
        served = ", ".join(self._kinds.served(key.group_kind))
        error = ClusterError(
            f"the cluster does not serve {key.kind} at {wanted}" + (f"; it serves {served}" if served else "")
        )
        self._kinds.missing(key.group_kind, manifest.version)
        self._reporter.refused(key, claim, Outcome.KIND_MISSING, error, None)

    def _on_refusal(self, key: ObjectKey, claim: Claim, evidence: Evidence | None, error: ClusterError) -> None:
        self._report_deleted(key, claim, evidence)
        outcome = classify(error)
        retry: float | None = None
        if outcome in (Outcome.NAMESPACE_TERMINATING, Outcome.NAMESPACE_MISSING):
            if self._park_at_namespace(key, outcome):
                self._reporter.refused(key, claim, outcome, error, None)
                return
            outcome = Outcome.RETRY
        if outcome is Outcome.KIND_MISSING:
            self.parking.at_kind(key)
            self._kinds.missing(key.group_kind, claim.manifest.version)
        elif outcome is Outcome.RETRY:
            retry = self._queue.failed(key, error.retry_after if isinstance(error, ApiError) else 0.0)
            self._again(key, retry)
        else:
            retry = FAILED_RETRY
            self._again(key, retry)
        self._reporter.refused(key, claim, outcome, error, retry)

    def _report_deleted(self, key: ObjectKey, claim: Claim, evidence: Evidence | None) -> None:
        """A deletion under a manifest in force is drift, whatever becomes of its healing."""
        gone = evidence is not None and evidence.finding is Finding.DELETED
        if gone and self._detector.record(key).in_force == claim.manifest.digest:
            self._reporter.drifted(Drift(key, claim.source, DriftType.DELETED))

    def _park_at_namespace(self, key: ObjectKey, outcome: Outcome) -> bool:
        """Park the key until its namespace is there; False where it is, and the refusal came from before."""
        namespace = ObjectKey(*NAMESPACE, "", key.namespace)
        claim = self._declared.get(namespace)
        if claim is not None and self._mode(claim.source) is Mode.HEAL:
            record = self._detector.record(namespace)
            if record.live and not record.terminating:
                return False
            self.parking.at_namespace(key)
            if outcome is Outcome.NAMESPACE_MISSING:
                self.add(namespace)
            return True
        if key.namespace not in self.parking.namespaces:
            self._spawn(self._await_namespace(key.namespace))
        self.parking.at_namespace(key)
        return True

    async def _await_namespace(self, name: str) -> None:
        """Release what waits for a namespace that Git does not declare, and that nobody's watch will announce."""
        delay, longest = NAMESPACE_POLL
        manifest = Manifest(*NAMESPACE[:1], "v1", "Namespace", "", name, b"", "", "", 0)
        while not self._stopping:
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, longest)
            resource = self._kinds.resource(manifest)
            try:
                if resource is None or (await self._applier.read_head(resource, "", name)).metadata.deletionTimestamp:
                    continue
            except ClusterError:
                continue
            for key in self.parking.namespace_ready(name):
                self.add(key)
            return


def named(key: ObjectKey) -> dict[str, str]:
    """The object's name as every log line has it."""
    return {"kind": str(key.group_kind), "namespace": key.namespace, "name": key.name}
