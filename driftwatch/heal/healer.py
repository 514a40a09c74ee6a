"""Works on the keys that the detector found: applies what Git declares, and acts on what the API server answers.

One heal is one request, the server-side apply of the body that was serialised when the snapshot was built; the object
that is gone is created by it. The answer also says whether there was drift at all. Nothing here waits for another
object: a refused key is parked for an event, or comes again after its own backoff.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

import structlog

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, ClusterError
from driftwatch.drift.declared import Claim, Declared
from driftwatch.drift.ownership import Detector, Evidence, Finding, Record
from driftwatch.heal.contest import Contest
from driftwatch.heal.modes import Modes, snoozed_by
from driftwatch.heal.observation import Judge
from driftwatch.heal.outcome import Outcome, classify
from driftwatch.heal.parking import Parking
from driftwatch.heal.patient import Patient
from driftwatch.heal.queue import KeyedQueue, Lane
from driftwatch.heal.remedy import Remedy
from driftwatch.heal.reporter import Reporter, named
from driftwatch.model import CRD, NAMESPACE, Drift, DriftType, GroupKind, Manifest, Mode, ObjectKey

CONCURRENCY = 8  # writes at the same time; more only queue up in the API server and in etcd
FAILED_RETRY = 600.0  # seconds until a refused manifest is tried again although nothing changed
COOLING_STEP = 5.0  # seconds between looks at whether contested objects have calmed down
NAMESPACE_POLL = (
    0.5,
    15.0,
)  # seconds between looks at a namespace that Git does not declare, first and longest

log = structlog.get_logger()


class Kinds(Protocol):
    """What healing asks of and tells to whoever keeps up with the API server's kinds."""

    def resource(self, manifest: Manifest) -> Resource | None:
        """How the manifest's kind is served, None where it is not."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served at the version that the API server prefers, None where it is not."""

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
        modes: Modes,
        clock: Callable[[], float],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._kinds = kinds
        self._reporter = reporter
        self._modes = modes
        self._clock = clock
        self._contest = Contest()
        self._cooling: asyncio.TimerHandle | None = None
        self._remedy = Remedy(detector, applier, reporter, clock)
        self._judge = Judge(detector, applier, reporter, self._remedy)
        self._applier = applier
        self.queue = KeyedQueue(CONCURRENCY, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: list[tuple[set[ObjectKey], asyncio.Event]] = []
        self._stopping = False
        self._wakeups: dict[ObjectKey, asyncio.TimerHandle] = {}
        self.parking = Parking()

    def add(self, key: ObjectKey, lane: Lane = Lane.DRIFT) -> None:
        """Ask for work on a key."""
        self.queue.add(key, lane)
        self._pump()

    def on_finding(self, key: ObjectKey, finding: Finding) -> None:
        """Act on what an event says of an object."""
        if finding.needs_work:
            self.add(key)
        elif finding is Finding.TERMINATING:
            self._on_terminating(key)
        elif finding is Finding.MENDED:
            self._reporter.in_sync(key)

    async def tend_all(self, keys: set[ObjectKey]) -> None:
        """Work on these keys after what has drifted; returns when each was tried once."""
        if not keys:
            return
        tried = asyncio.Event()
        self._batches.append((set(keys), tried))
        for key in sorted(keys):
            self.queue.add(key, Lane.SYNC)
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
        if claim is not None and self._detector.record(key).policy.mode in (Mode.HEAL, Mode.OBSERVE):
            self._reporter.drifted(Drift(key, claim.source, DriftType.DELETED))

    def _pump(self) -> None:
        while not self._stopping and (key := self.queue.take()) is not None:
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
            self._again(key, self.queue.failed(key))
        finally:
            if self._declared.get(key) is None:  # Git has dropped it while the API server was asked
                self._forget(key)
            self.queue.done(key)
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

    def _wake_up(self, key: ObjectKey, delay: float, work: Callable[[ObjectKey], None]) -> None:
        """Work on an object when its time has come: one timer an object, however often it is written to."""
        if (earlier := self._wakeups.pop(key, None)) is not None:
            earlier.cancel()
        self._wakeups[key] = asyncio.get_running_loop().call_later(delay, work, key)

    def _on_awake(self, key: ObjectKey) -> None:
        """What has only been reported while the object was snoozed is judged anew, and healed."""
        record = self._detector.records.get(key)
        if record is not None and record.differs:
            self._look_again(key)
        else:
            self.add(key)

    async def _tend(self, key: ObjectKey) -> None:
        claim = self._declared.get(key)
        if claim is None:
            self._forget(key)
            return
        record = self._detector.record(key)
        if record.terminating:
            return  # the DELETED event comes next
        evidence = self._detector.evidence.get(key)
        mode = self._mode_now(key, claim, record, evidence)
        if mode is Mode.PAUSED:
            return
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
        held = mode is Mode.OBSERVE
        if mode is Mode.HEAL and (wait := self._wait(key, claim, record, evidence)):
            mode = Mode.OBSERVE  # what differs is still said
            self._wake_up(key, wait, self._look_again)
        try:
            await self._treat(Patient(key, claim, resource, record, evidence), mode)
            self.queue.succeeded(key)
            if held and record.differs and self._mode_now(key, claim, record, None) is Mode.HEAL:
                self._look_again(key)  # the snooze, or whatever held it up, has ended while it was judged
        except ClusterError as error:
            self._on_refusal(key, claim, evidence, error)

    def _forget(self, key: ObjectKey) -> None:
        """The object is not declared any more; what is said of it from now on is said of an orphan."""
        if key in self._detector.records:
            self._reporter.in_sync(key)
        self._detector.forget(key)
        self.parking.forget(key)
        self._wakeups.pop(key, None)
        self._end_contest(key)

    def _mode_now(self, key: ObjectKey, claim: Claim, record: Record, evidence: Evidence | None) -> Mode:
        """What is to be done now; drift of a snoozed object is only reported until it wakes up."""
        mode = self._modes.now(claim.source, record.policy)
        if record.policy.mode is Mode.HEAL and record.in_force != claim.manifest.digest:
            return Mode.HEAL  # a commit is no drift: windows and snoozes do not hold it up
        if mode is Mode.IGNORE:
            gone = evidence is not None and evidence.finding is Finding.DELETED
            if gone and record.policy.recreate:
                return Mode.HEAL
            self._detector.settle(key)
            self._reporter.in_sync(key)
            return Mode.PAUSED
        snooze = self._modes.snoozed(record.snooze, key) if record.snooze and mode is Mode.HEAL else None
        if snooze is not None and record.live:
            by = snoozed_by(evidence.head.metadata) if evidence and evidence.head else ""
            self._reporter.snoozed(key, claim, snooze.until, by)
            self._wake_up(key, snooze.seconds, self._on_awake)
            return Mode.OBSERVE
        return mode

    async def _treat(self, patient: Patient, mode: Mode) -> None:
        record, manifest = patient.record, patient.claim.manifest
        if mode is Mode.OBSERVE:
            await self._judge.judge(patient)
            return
        if patient.evidence is None and record.accepted is None and record.in_force == manifest.digest:
            patient.evidence = await self._remedy.look(patient)  # to be judged anew
        done = await self._remedy.heal(patient)
        if done.healed is not None:
            self._count_heal(patient.key, patient.claim, done.healed)
        if done.again:
            self.add(patient.key)
        if done.created:
            self._on_created(patient.key)

    # --- Objects that somebody changes again and again ----------------------------------------------------------------

    def _wait(self, key: ObjectKey, claim: Claim, record: Record, evidence: Evidence | None) -> float:
        """Seconds until the object may be healed: not 0 where it is fought over at a machine's pace."""
        if record.in_force != claim.manifest.digest:
            self._end_contest(key)  # a new commit is a new beginning
            return 0.0
        return self._contest.wait(key, self._clock()) if evidence is not None else 0.0

    def _look_again(self, key: ObjectKey) -> None:
        """Judge the object anew: what was seen of it was only reported."""
        self._detector.record(key).accepted = None
        self.add(key)

    def _count_heal(self, key: ObjectKey, claim: Claim, drift: Drift) -> None:
        fight = self._contest.healed(key, drift.manager, self._clock())
        if fight.contested:
            self._reporter.contested(key, claim, fight.opponent, fight.wait)
        self._watch_cooling()

    def _watch_cooling(self) -> None:
        if self._cooling is None:
            self._cooling = asyncio.get_running_loop().call_later(COOLING_STEP, self._cool)

    def _cool(self) -> None:
        self._cooling = None
        for key in self._contest.cooled(self._clock()):
            self._reporter.calm(key)
        if self._contest.remembers_any:
            self._watch_cooling()

    def _end_contest(self, key: ObjectKey) -> None:
        if self._contest.forget(key):
            self._reporter.calm(key)

    async def difference(self, key: ObjectKey) -> Drift | None:
        """What an apply would change of the object now, by a dry run. Raises `ApiError` or `Unreachable`."""
        claim = self._declared.get(key)
        resource = self._kinds.resource(claim.manifest) if claim else None
        if claim is None or resource is None:
            return None
        patient = Patient(key, claim, resource, self._detector.record(key), None)
        return (await self._judge.difference(patient))[0]

    def reconsider(self, keys: set[ObjectKey]) -> None:
        """Judge these objects anew: what may be done about them has changed."""
        for key in keys:
            record = self._detector.records.get(key)
            if record is not None:
                record.accepted = None
                self.add(key, Lane.SYNC)

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
            retry = self.queue.failed(key, error.retry_after if isinstance(error, ApiError) else 0.0)
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
        if claim is not None and self._detector.record(namespace).policy.mode is Mode.HEAL:
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
        while not self._stopping:
            await asyncio.sleep(delay)
            delay = min(delay * 1.5, longest)
            resource = self._kinds.preferred(NAMESPACE)
            try:
                if resource is None or (await self._applier.read_head(resource, "", name)).metadata.deletionTimestamp:
                    continue
            except ClusterError:
                continue
            for key in self.parking.namespace_ready(name):
                self.add(key)
            return
