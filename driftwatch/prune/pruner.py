"""Deletes the orphans of sources that prune, and reports the orphans that stay.

A deletion cannot be undone. `PruneSafeguards` has the preconditions. An object stays when its deletion would delete
another object that stays. Each request names the judged object by uid and resourceVersion. Objects are deleted in the
reverse of the apply order. Each step waits until the objects of the step before are gone.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import CONFLICT, NOT_FOUND, ApiError, ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import Orphan, PrunePolicy, kept_because, mode_of
from driftwatch.drift.policy import Policies
from driftwatch.model import NAMESPACE, GroupKind, Mode, ObjectKey, named
from driftwatch.prune.safeguards import Hold, PruneSafeguards
from driftwatch.prune.unused_kinds import UnusedKinds
from driftwatch.reconcile.apply_order import prune_step
from driftwatch.reconcile.outcome import Outcome, classify, is_denied
from driftwatch.state.orphan_index import OrphanIndex, OrphanState, SourceOrphans

CONCURRENCY = 4  # deletions in flight, in addition to the reconciler's writes
ROUND = 0.05  # least seconds between two rounds
WAIT_STEP = 1.0  # seconds until the next round while something is held
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 300.0  # seconds between tries of a deletion that the API server refuses
DENIED_TRIES = 8  # tries after a 403, within two minutes: an API server that has just started denies every request

log = structlog.get_logger()


class PruneReporter(Protocol):
    """Receives the changes of orphans."""

    def orphaned(self, key: ObjectKey, source: str, why: str) -> None:
        """An orphan stays. `why` is the reason, "" when it will be pruned."""

    def orphan_gone(self, key: ObjectKey, source: str) -> None:
        """The object is gone, declared again, or no longer reported."""

    def pruned(self, key: ObjectKey, source: str, commit: str) -> None:
        """The object is gone, deleted by driftwatch."""

    def prune_waits(self, key: ObjectKey, source: str, finalizers: tuple[str, ...]) -> None:
        """The deletion waits for finalizers."""

    def prune_refused(self, key: ObjectKey, source: str, error: ClusterError, retry: float) -> None:
        """The API server refused the deletion. The next try follows in `retry` seconds."""

    def prune_held(self, source: str, hold: Hold | None, count: int, why: str, commit: str) -> None:
        """Pruning of `count` objects of the source is held for the reason `why`. `hold` is None: none is held."""


class Kinds(Protocol):
    """The part of `RestMapper` that pruning needs."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """The preferred API resource of the kind, None when it is not served."""


class DepartureReporter:
    """Reports the orphans that leave the index: as pruned if driftwatch deleted them, else as gone."""

    def __init__(self, declared: Declared, safeguards: PruneSafeguards, reporter: PruneReporter) -> None:
        self._declared = declared
        self._safeguards = safeguards
        self._reporter = reporter

    def on_gone(self, key: ObjectKey, orphan: Orphan) -> None:
        """The object is deleted, declared again, or has lost its source label."""
        if orphan.asked and not self._declared.mentions(key):
            self._reporter.pruned(key, orphan.source, self._safeguards.commit(orphan.source))
        else:
            self._reporter.orphan_gone(key, orphan.source)


class Pruner:
    """Judges the orphans of the index and deletes those that are due.

    The index, the safeguards and the pruner set `wake` when a round is needed. `spawn` starts a task that ends with the
    daemon.
    """

    def __init__(
        self,
        declared: Declared,
        orphans: OrphanIndex,
        api: ApiClient,
        kinds: Kinds,
        reporter: PruneReporter,
        safeguards: PruneSafeguards,
        unused_kinds: UnusedKinds,
        wake: asyncio.Event,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._declared = declared
        self._orphans = orphans
        self._api = api
        self._kinds = kinds
        self._reporter = reporter
        self._safeguards = safeguards
        self._unused_kinds = unused_kinds
        self._wake = wake
        self._clock = clock
        self._spawn = spawn
        self._sources: dict[str, PrunePolicy] = {}
        self._policies = Policies({})
        self._slots = asyncio.Semaphore(CONCURRENCY)

    def configure(self, sources: dict[str, PrunePolicy], policies: Policies) -> None:
        """Set the sources and their policies, and judge every orphan again. Orphans of other sources are ignored."""
        for gone in self._sources.keys() - sources.keys():
            self._reporter.prune_held(gone, None, 0, "", "")
            for key, state in self._orphans.source(gone).keys.items():
                state.kept = None
                self._reporter.orphan_gone(key, gone)
        self._sources, self._policies = dict(sources), policies
        self._safeguards.configure(sources)
        for source in sources:
            mine = self._orphans.source(source)
            mine.changed |= dict.fromkeys(mine.keys)
        self._wake.set()

    # --- Rounds ---

    async def run(self) -> None:
        """Judge the orphans after each change, until cancelled."""
        while True:
            self._wake.clear()
            try:
                wait = await self._rounds()
            except Exception:  # a bug in pruning must not end the daemon
                log.exception("pruning failed unexpectedly; it is tried again")
                wait = WAIT_STEP
                await asyncio.sleep(WAIT_STEP)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
                await asyncio.sleep(ROUND)
            except TimeoutError:
                continue

    async def _rounds(self) -> float | None:
        waits = [await self._look()]
        waits += [self._round(source, policy) for source, policy in self._sources.items()]
        waits.append(await self._unused_kinds.drop(self._sources))
        return min((each for each in waits if each is not None), default=None)

    async def _look(self) -> float | None:
        """Read the objects that Git dropped. Returns the seconds until the next try, None when all are read."""
        now = self._clock()
        keys = [key for key, state in self._orphans.unread.items() if state.retry_at <= now]
        if keys:
            await asyncio.gather(*map(self._look_at, keys))
        return WAIT_STEP if self._orphans.unread else None

    async def _look_at(self, key: ObjectKey) -> None:
        async with self._slots:
            resource = self._kinds.preferred(key.group_kind)
            if resource is None:  # not served: a LIST shows the objects when the kind is served again
                self._orphans.leave_unread(key)
                return
            try:
                await self._orphans.look(key, resource, self._api)
            except ClusterError as error:
                state = self._orphans.state(key)
                if state is None:
                    return  # declared or deleted during the request
                delay = self._fail(state, error)
                denied_for_now = is_denied(error) and state.failures < DENIED_TRIES
                given_up = classify(error) is Outcome.FAILED and not denied_for_now
                if given_up:
                    self._orphans.leave_unread(key)
                log.warning(
                    "object that left Git cannot be read",
                    **named(key),
                    error=str(error),
                    next="it is left alone" if given_up else f"tried again in {delay:.3g} s",
                )

    def _round(self, source: str, policy: PrunePolicy) -> float | None:
        """Judge a source's orphans and start the deletions that are due. Returns the seconds until the next round."""
        commit = self._safeguards.commit(source)
        if not commit:
            return None  # before a source's first snapshot all its objects look like orphans
        orphans = self._orphans.source(source)
        self._judge_changed(source, policy, orphans)
        self._keep_owners(source, orphans)
        held = self._safeguards.judge(source, policy, orphans, self._orphans.unread)
        if held is not None:
            if held.is_lasting:
                for key in orphans.candidates:
                    self._keep(key, orphans.keys[key], source, "")
                self._reporter.prune_held(source, held.hold, len(orphans.candidates), held.why, commit)
            return WAIT_STEP
        self._reporter.prune_held(source, None, 0, "", commit)
        return self._delete_due(source, policy, orphans) if orphans.candidates else None

    def _judge_changed(self, source: str, policy: PrunePolicy, orphans: SourceOrphans) -> None:
        """Judge the changed orphans: make each one a candidate, or keep and report it."""
        for key in list(orphans.changed):
            state = orphans.keys[key]
            if (orphan := state.orphan) is not None:
                mode = mode_of(key, orphan, self._policies)
                if not (why := kept_because(key.group_kind, orphan, policy, mode)):
                    orphans.admit(key)
                else:
                    orphans.owners.pop(key, None)
                    orphans.exclude(key)
                    if mode in (Mode.PAUSED, Mode.IGNORE):
                        state.kept = None
                        self._reporter.orphan_gone(key, source)
                    else:
                        self._keep(key, state, source, why)
            del orphans.changed[key]

    def _keep_owners(self, source: str, orphans: SourceOrphans) -> None:
        """Keep each namespace and CRD whose deletion would delete an object that stays."""
        if not orphans.owners:
            return
        kinds = dict.fromkeys((*self._declared.kinds, *self._orphans.kinds()))
        defined = {self._crd_of(kind): kind for kind in kinds if kind.group}
        for key in orphans.owners:
            state = orphans.keys[key]
            state.along = self._taken_along(key, state, orphans, defined)
            if state.along is None:
                orphans.admit(key)
            else:
                orphans.exclude(key)
                self._keep(key, state, source, f"{state.along} would go with it")

    def _taken_along(
        self, owner: ObjectKey, state: OrphanState, orphans: SourceOrphans, defined: dict[str, GroupKind]
    ) -> ObjectKey | None:
        """Return an object that stays although the owner's deletion would delete it, or None.

        Counts show whether there is one. So the objects are searched only when the last example is gone.
        """
        if (known := state.along) is not None:
            stays = self._orphans.get(known) is not None and known not in orphans.candidates
            if stays or self._declared.get(known) is not None:
                return known
        declared: Iterable[ObjectKey] = ()
        left: Iterable[ObjectKey] = ()
        if owner.group_kind == NAMESPACE:
            kinds = (kind for kind in self._declared.kinds if owner.name in self._declared.namespaces(kind))
            declared = (key for kind in kinds for key in self._declared.keys(kind) if key.namespace == owner.name)
            if len(self._orphans.in_namespace(owner.name)) > orphans.namespaces[owner.name]:
                left = self._orphans.in_namespace(owner.name)
        elif (kind := defined.get(owner.name)) is not None:
            declared = iter(self._declared.keys(kind))
            if self._orphans.count(kind) > orphans.kinds[kind]:
                left = self._orphans.of_kind(kind)
        return next(itertools.chain(declared, (key for key in left if key not in orphans.candidates)), None)

    def _keep(self, key: ObjectKey, state: OrphanState, source: str, why: str) -> None:
        """Report that an orphan stays, unless that reason is reported already."""
        if state.kept != why:
            state.kept = why
            self._reporter.orphaned(key, source, why)

    def _crd_of(self, kind: GroupKind) -> str:
        resource = self._kinds.preferred(kind)
        return f"{resource.plural}.{resource.group}" if resource else ""

    # --- Deletion ---

    def _delete_due(self, source: str, policy: PrunePolicy, orphans: SourceOrphans) -> float | None:
        """Start the deletions of the first unfinished step. A step is finished when all its objects are gone."""
        step = min(prune_step(kind) for kind, count in orphans.kinds.items() if count)
        now = self._clock()
        wait: float | None = None
        due_now: list[ObjectKey] = []
        for key, orphan in orphans.candidates.items():
            state = orphans.keys[key]
            if state.busy or prune_step(key.group_kind) != step:
                continue
            if orphan.terminating:
                self._reporter.prune_waits(key, source, orphan.finalizers)
                continue
            if orphan.asked:
                continue
            due = max(orphan.since + policy.delay, state.retry_at)
            if due <= now:
                due_now.append(key)
            else:
                wait = min(due - now, wait or due - now)
        for key in sorted(due_now):
            state = orphans.keys[key]
            state.busy = True
            self._spawn(self._delete(source, key, state, orphans.candidates[key]))
        return wait

    def _fail(self, state: OrphanState, error: ClusterError) -> float:
        """Count a failure. Returns the seconds until the next try."""
        state.failures += 1
        delay = max(
            backoff(state.failures, BACKOFF_FIRST, BACKOFF_LONGEST),
            error.retry_after if isinstance(error, ApiError) else 0.0,
        )
        state.retry_at = self._clock() + delay
        return delay

    async def _delete(self, source: str, key: ObjectKey, state: OrphanState, orphan: Orphan) -> None:
        try:
            async with self._slots:
                await self._delete_now(source, key, state, orphan)
        except Exception:  # a bug with one object must not end the daemon
            log.exception("pruning failed unexpectedly; it is tried again", **named(key))
            self._fail(state, ClusterError())
            if state.orphan is not None:
                state.orphan.asked = False
        finally:
            state.busy = False
            self._wake.set()

    async def _delete_now(self, source: str, key: ObjectKey, state: OrphanState, orphan: Orphan) -> None:
        resource = self._kinds.preferred(key.group_kind)
        if resource is None:
            self._fail(state, ClusterError())  # the watch of the kind will report it soon
            return
        # If the object has changed or is declared again, the next round judges it again.
        if self._orphans.get(key) is not orphan or self._declared.mentions(key):
            return
        orphan.asked = True
        try:
            await self._api.delete(resource, key.namespace, key.name, orphan.uid, orphan.version)
            state.failures, state.retry_at = 0, 0.0
        except ClusterError as error:
            self._on_refusal(source, key, state, error)

    def _on_refusal(self, source: str, key: ObjectKey, state: OrphanState, error: ClusterError) -> None:
        code = error.code if isinstance(error, ApiError) else 0
        if code == NOT_FOUND:
            self._orphans.on_undeclared(key)  # the watch event may still come; a read confirms the deletion
            return
        if state.orphan is not None:
            state.orphan.asked = False
        retry = self._fail(state, error)
        if code == CONFLICT:  # the object was written meanwhile: read and judge it again after the backoff
            self._orphans.on_undeclared(key)
            return
        self._reporter.prune_refused(key, source, error, retry)
        state.kept = ""
