"""Reconciles the keys that the detector found: applies the manifest, then acts on the API server's answer.

One heal is one request: the server-side apply of the body that was serialised when the snapshot was built. This request
also creates an object that was deleted. The answer shows whether there was drift. No reconcile waits for another
object. A refused key is blocked until an event, or retried after its own backoff.
"""

import asyncio
from collections.abc import Callable, Coroutine

import structlog

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.annotations import snooze_end
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.metadata import Metadata
from driftwatch.drift.object_state import Declaration, ObjectState, Observation, Verdict
from driftwatch.drift.snooze import snoozed_by
from driftwatch.model import CRD, NAMESPACE, Drift, DriftType, GroupKind, Mode, ObjectKey, Priority, named
from driftwatch.reconcile.apply_errors import ApplyErrorHandler
from driftwatch.reconcile.dry_run import DryRunDiff
from driftwatch.reconcile.fights import FightDetector
from driftwatch.reconcile.interfaces import Kinds, Reporter, Target
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.reconcile.reconciler import Reconciler
from driftwatch.reconcile.schedule import Schedule

COOLING_STEP = 5.0  # seconds between checks whether fights have ended
MOMENT = 0.1  # longest time in seconds between two drifts of one burst
SHORTEST_ALARM = 0.001  # seconds; the resolution of the event loop's timers

log = structlog.get_logger()


class Controller:
    """Reconciles keys until the daemon stops. All methods are called on the event loop."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        api: ApiClient,
        kinds: Kinds,
        reporter: Reporter,
        modes: Schedule,
        queue: KeyedQueue,
        clock: Callable[[], float],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._kinds = kinds
        self._reporter = reporter
        self._schedule = modes
        self._clock = clock
        self._fights = FightDetector(declared.states)
        self._cooling: asyncio.TimerHandle | None = None
        self._reconciler = Reconciler(detector, api, reporter, clock)
        self._judge = DryRunDiff(detector, api, reporter, self._reconciler)
        self.queue = queue
        self.concurrency = queue.concurrency
        self._apply_errors = ApplyErrorHandler(declared, detector, api, kinds, reporter, self.queue, self._release)
        self.blocked = self._apply_errors.blocked
        self._alarm: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._batches: list[tuple[set[ObjectKey], asyncio.Event]] = []
        self._stopping = False

    def heals_drift(self) -> bool:
        """Whether drift is being healed, waits to be healed, or did so within the last `MOMENT`. More may follow."""
        queue = self.queue
        return (
            self.concurrency.since_drift() < MOMENT
            or bool(queue.in_flight_of(Priority.DRIFT))
            or queue.has_waiting(Priority.DRIFT)
        )

    def add(self, key: ObjectKey, priority: Priority = Priority.DRIFT) -> None:
        """Request a reconcile of a key."""
        behind = priority is Priority.DRIFT and self.queue.has_waiting(priority)
        self.queue.add(key, priority)
        if not behind:  # else earlier keys wait for a slot; the one that frees it pumps
            self._pump()

    def on_finding(self, key: ObjectKey, verdict: Verdict) -> None:
        """Act on the verdict on an event."""
        if verdict.needs_work:
            self.add(key)
        elif verdict is Verdict.TERMINATING:
            self._on_terminating(key)
        elif verdict is Verdict.MENDED:
            self._reporter.in_sync(key)

    def on_seen(self, key: ObjectKey, metadata: Metadata) -> None:
        """Report a snooze without a valid time once. It has no effect, but its author relies on it."""
        state = self._detector.states.get(key)
        if state is None or state.declaration is None:
            return
        wish = metadata.snooze_until
        if not wish or snooze_end(wish) is not None:
            state.unreadable_snooze = ""
        elif state.policy.mode is Mode.HEAL and state.unreadable_snooze != wish:
            state.unreadable_snooze = wish
            self._reporter.snooze_unreadable(key, state.declaration, wish, snoozed_by(metadata))

    async def reconcile_all(self, keys: set[ObjectKey]) -> None:
        """Reconcile these keys with the priority of a sync. Returns when each was tried once.

        A key that is delayed by the API server's `Retry-After` counts as tried. It does not delay later keys.
        """
        for key in sorted(keys):
            self.queue.add(key, Priority.SYNC)
        if untried := {key for key in keys if not self.queue.is_held(key)}:
            tried = asyncio.Event()
            self._batches.append((untried, tried))
            self._pump()
            await tried.wait()

    async def stop(self, grace: float) -> None:
        """Start no more reconciles. Wait `grace` seconds for those in flight, then cancel them."""
        self._stopping = True
        self._apply_errors.stop()
        if self._alarm is not None:
            self._alarm.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()

    def release_kind(self, kind: GroupKind) -> None:
        """Reconcile the objects that were blocked on the kind. It is served now."""
        self._release(self.blocked.kind_ready(kind))

    def _release(self, keys: set[ObjectKey]) -> None:
        """Reconcile keys that were blocked. Objects that were applied before have drifted; the rest is a sync."""
        for key in keys:
            state = self._detector.states.get(key)
            drifted = state is not None and state.manifest is not None and state.last_applied == state.manifest.digest
            self.queue.add(key, Priority.DRIFT if drifted else Priority.SYNC)
        self._pump()

    def _on_terminating(self, key: ObjectKey) -> None:
        declaration = self._declared.get(key)
        if declaration is not None and self._detector.states.of(key).policy.mode in (Mode.HEAL, Mode.OBSERVE):
            self._reporter.drifted(Drift(key, declaration.source, DriftType.DELETED))

    def _pump(self) -> None:
        while not self._stopping and (key := self.queue.take()) is not None:
            self._spawn(self._work(key))
        if not self._stopping:
            self._set_alarm(self.queue.wait())

    def _set_alarm(self, wait: float | None) -> None:
        """Pump again after `wait` seconds or earlier. An alarm that rings too early is set again then."""
        loop = asyncio.get_running_loop()
        if self._alarm is not None:
            if wait is not None and self._alarm.when() <= loop.time() + wait:
                return  # a burst calls this for each object, and setting a timer costs time
            self._alarm.cancel()
        self._alarm = None if wait is None else loop.call_later(max(wait, SHORTEST_ALARM), self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._pump()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, key: ObjectKey) -> None:
        try:
            await self._reconcile(key)
        except Exception as error:  # a failure of one object, even a bug of driftwatch, must not stop the others
            log.exception("healing failed unexpectedly; it is tried again", **named(key))
            self._apply_errors.on_mistake(key, error)
        finally:
            if self._declared.get(key) is None:  # Git dropped the object during the reconcile
                self.forget(key)
            self.queue.done(key)
            self._detector.states.release(key)
            self._tick_off(key)
            self._pump()

    def _tick_off(self, key: ObjectKey) -> None:
        for keys, tried in self._batches:
            keys.discard(key)
            if not keys:
                tried.set()
        self._batches = [batch for batch in self._batches if batch[0]]

    def _wake_up(self, key: ObjectKey, delay: float, work: Callable[[ObjectKey], None]) -> None:
        """Call `work` for an object after `delay` seconds. Each object has at most one timer."""
        state = self._detector.states.of(key)
        if state.wakeup is not None:
            state.wakeup.cancel()
        state.wakeup = asyncio.get_running_loop().call_later(delay, work, key)

    def _on_awake(self, key: ObjectKey) -> None:
        """Reconcile an object whose snooze has ended. Drift that was only reported is judged again and healed."""
        state = self._detector.states.get(key)
        if state is not None and state.differs:
            self._look_again(key)
        else:
            self.add(key)

    async def _reconcile(self, key: ObjectKey) -> None:
        declaration = self._declared.get(key)
        if declaration is None:
            self.forget(key)
            return
        state = self._detector.states.of(key)
        if state.terminating:
            return  # its DELETED event follows
        observation = state.observation
        mode = self._mode_now(key, declaration, state, observation)
        if mode is Mode.PAUSED:
            return
        if observation is None and _is_settled(state, declaration) and state.unanswered is None:
            self._on_done_before(key, state)
            return
        resource = self._kinds.resource(declaration.manifest)
        if resource is None:
            self._apply_errors.on_missing_kind(key, declaration, observation)
            return
        if mode is Mode.HEAL and key.namespace in self.blocked.namespaces:
            self.blocked.at_namespace(key)
            self._apply_errors.report_deleted(key, declaration, observation)
            return
        held = mode is Mode.OBSERVE
        if mode is Mode.HEAL and (wait := self._wait(key, declaration, state, observation)):
            mode = Mode.OBSERVE  # the difference is still reported
            self._wake_up(key, wait, self._look_again)
        began = self._clock()
        try:
            await self._treat(Target(key, declaration, resource, state, observation), mode)
            self.queue.succeeded(key)
            self.blocked.forget(key)
            self._withdraw_echo(key, state, mode)
            if held and state.differs and self._mode_now(key, declaration, state, None) is Mode.HEAL:
                self._look_again(key)  # the snooze or window that prevented the heal has ended meanwhile
        except ClusterError as error:
            seconds = self._clock() - began
            served = await self._apply_errors.is_served(declaration, error)
            self._apply_errors.on_refusal(key, declaration, observation, error, seconds, served=served)

    def _on_done_before(self, key: ObjectKey, state: ObjectState) -> None:
        """An event has shown that an earlier apply succeeded. Its answer may have been lost."""
        self.queue.succeeded(key)
        if not (state.reported or state.differs):
            self._reporter.in_sync(key)

    def _withdraw_echo(self, key: ObjectKey, state: ObjectState, mode: Mode) -> None:
        """Withdraw an event of driftwatch's own write that came before its answer. A sync would yield to itself."""
        declaration = self._declared.get(key)
        if mode is not Mode.HEAL or declaration is None or state.observation is not None or state.snooze:
            return
        if _is_settled(state, declaration):
            self.queue.withdraw(key)

    def forget(self, key: ObjectKey) -> None:
        """Forget an object that Git no longer declares. From now on it is an orphan."""
        state = self._detector.states.get(key)
        if state is None:
            return
        self._reporter.in_sync(key)
        if state.wakeup is not None:
            state.wakeup.cancel()
        self._end_contest(key)
        self.blocked.forget(key)
        self.queue.forget(key)
        self._detector.states.forget(key)

    def _mode_now(
        self, key: ObjectKey, declaration: Declaration, state: ObjectState, observation: Observation | None
    ) -> Mode:
        """The mode of this reconcile. Drift of a snoozed object is only reported until the snooze ends."""
        mode = self._schedule.now(declaration.source, state.policy)
        if state.policy.mode is Mode.HEAL and state.last_applied != declaration.manifest.digest:
            return Mode.HEAL  # a commit is not drift: windows and snoozes do not delay it
        if mode is Mode.IGNORE:
            gone = observation is not None and observation.verdict is Verdict.DELETED
            if gone and state.policy.recreate:
                return Mode.HEAL
            self._detector.settle(key)
            self._reporter.in_sync(key)
            return Mode.PAUSED
        snooze = self._schedule.snoozed(state.snooze) if mode is Mode.HEAL else None
        if snooze is not None and state.live:
            by = snoozed_by(observation.head.metadata) if observation and observation.head else ""
            self._reporter.snoozed(key, declaration, snooze.until, by)
            self._wake_up(key, snooze.seconds, self._on_awake)
            return Mode.OBSERVE
        return mode

    async def _treat(self, target: Target, mode: Mode) -> None:
        state, manifest = target.state, target.declaration.manifest
        if mode is Mode.OBSERVE:
            await self._judge.judge(target)
            return
        if target.observation is None and state.accepted is None and state.last_applied == manifest.digest:
            target.observation = await self._reconciler.look(target)  # to be judged again
        done = await self._reconciler.heal(target)
        if done.healed is not None:
            self._count_heal(target.key, target.declaration, done.healed)
        if done.again:
            self.add(target.key)
        if target.key.group_kind == NAMESPACE and state.live and not state.terminating:
            self._release(self.blocked.namespace_ready(target.key.name))  # created by this apply or by others
        elif target.key.group_kind == CRD:
            self._kinds.expected()  # a new kind, or a new version of one

    # --- Fights -------------------------------------------------------------------------------------------------------

    def _wait(
        self, key: ObjectKey, declaration: Declaration, state: ObjectState, observation: Observation | None
    ) -> float:
        """Seconds until the object may be healed. More than 0 only in a fight at the pace of a machine."""
        if state.last_applied != declaration.manifest.digest:
            self._end_contest(key)  # a new commit ends the fight
            return 0.0
        return self._fights.wait(key, self._clock()) if observation is not None else 0.0

    def _look_again(self, key: ObjectKey) -> None:
        """Judge the object again. Its drift was only reported."""
        self._detector.states.of(key).accepted = None
        self.add(key)

    def _count_heal(self, key: ObjectKey, declaration: Declaration, drift: Drift) -> None:
        fight = self._fights.healed(key, drift.manager, self._clock())
        if fight.contested:
            self._reporter.contested(key, declaration, fight.opponent, fight.wait)
        self._watch_cooling()

    def _watch_cooling(self) -> None:
        if self._cooling is None:
            self._cooling = asyncio.get_running_loop().call_later(COOLING_STEP, self._cool)

    def _cool(self) -> None:
        self._cooling = None
        for key in self._fights.resolved(self._clock()):
            self._reporter.calm(key)
        if self._fights.any_left:
            self._watch_cooling()

    def _end_contest(self, key: ObjectKey) -> None:
        if self._fights.forget(key):
            self._reporter.calm(key)

    async def difference(self, key: ObjectKey) -> Drift | None:
        """What an apply would change now, by a dry run. Raises `ApiError` or `Unreachable`."""
        declaration = self._declared.get(key)
        resource = self._kinds.resource(declaration.manifest) if declaration else None
        if declaration is None or resource is None:
            return None
        target = Target(key, declaration, resource, self._detector.states.of(key), None)
        return (await self._judge.difference(target))[0]

    def reconsider(self, keys: set[ObjectKey]) -> None:
        """Judge these objects again, because their mode or policy has changed."""
        for key in keys:
            state = self._detector.states.get(key)
            if state is not None:
                state.accepted = None
                self.add(key, Priority.SYNC)


def _is_settled(state: ObjectState, declaration: Declaration) -> bool:
    return state.live and state.accepted is not None and state.last_applied == declaration.manifest.digest
