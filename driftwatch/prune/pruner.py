"""Deletes what left Git, where its source says so; reports what is left, where it does not.

A deletion cannot be put back. So nothing is deleted on a first impression (`holds` says what is waited for), nothing
that takes along what stays, and nothing but the very object that was judged, by uid and resourceVersion. It goes in
the order of an apply reversed, and each step waits until the one before is gone.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import CONFLICT, NOT_FOUND, ApiError, ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import Orphan, PrunePolicy, kept_because, mode_of, taken_along
from driftwatch.drift.policy import Policies
from driftwatch.model import GroupKind, Mode, ObjectKey, named
from driftwatch.prune.safeguards import Hold, PruneSafeguards
from driftwatch.reconcile.apply_order import prune_step
from driftwatch.reconcile.outcome import Outcome, classify, is_denied
from driftwatch.state.orphan_index import Orphans

CONCURRENCY = 4  # deletions at the same time, beside the healer's writes
ROUND = 0.05  # seconds between two looks at what is to be pruned, however often something changes
WAIT_STEP = 1.0  # seconds until the next look while something is waited for
BACKOFF_FIRST, BACKOFF_LONGEST = 0.5, 300.0  # seconds between tries of a deletion that the API server refuses
DENIED_TRIES = 8  # within two minutes: an API server that has just started denies everybody what is allowed

log = structlog.get_logger()


class PruneReporter(Protocol):
    """Who is told of orphans and pruning."""

    def orphaned(self, key: ObjectKey, source: str, why: str) -> None:
        """An object of ours that no snapshot declares stays, and why: said once."""

    def orphan_gone(self, key: ObjectKey, source: str) -> None:
        """It is gone, or declared again, or nobody's business."""

    def pruned(self, key: ObjectKey, source: str, commit: str) -> None:
        """An object that left Git was deleted, and is gone."""

    def prune_waits(self, key: ObjectKey, source: str, finalizers: tuple[str, ...]) -> None:
        """Its deletion was asked for, and waits for finalizers."""

    def prune_refused(self, key: ObjectKey, source: str, error: ClusterError, retry: float) -> None:
        """The API server refused to delete it; the next try comes in `retry` seconds."""

    def prune_held(self, source: str, hold: Hold | None, count: int, why: str, commit: str) -> None:
        """So many objects of the source are held back, and why; None: nothing is."""


class Kinds(Protocol):
    """What is asked of whoever keeps up with the API server's kinds."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served, None where it is not."""


class _Failure(msgspec.Struct):
    count: int
    until: float


class Pruner:
    """Goes by the index of orphans. `spawn` starts a task that ends with the daemon."""

    def __init__(
        self,
        declared: Declared,
        orphans: Orphans,
        api: ApiClient,
        kinds: Kinds,
        reporter: PruneReporter,
        holds: PruneSafeguards,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._declared = declared
        self._orphans = orphans
        self._api = api
        self._kinds = kinds
        self._reporter = reporter
        self._clock = clock
        self._safeguards = holds
        self._spawn = spawn
        self._sources: dict[str, PrunePolicy] = {}
        self._policies = Policies({})
        self._busy: set[ObjectKey] = set()
        self._failures: dict[ObjectKey, _Failure] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self.after_round: Callable[[], float | None] = lambda: None
        orphans.wake = holds.wake = self._wake.set
        orphans.gone = self._on_gone

    def allow(self, sources: dict[str, PrunePolicy], policies: Policies) -> None:
        """What each source and each object allows, from now on; sources that are not named are nobody's."""
        for gone in self._sources.keys() - sources.keys():
            self._reporter.prune_held(gone, None, 0, "", "")
            self._safeguards.forget(gone)
            for key in self._orphans.of(gone):
                self._reporter.orphan_gone(key, gone)
        self._sources, self._policies = dict(sources), policies
        self._safeguards.sources = list(sources)
        self._wake.set()

    # --- Rounds ---

    async def run(self) -> None:
        """Judge the orphans whenever something has changed, until cancelled."""
        while True:
            self._wake.clear()
            try:
                wait = await self._rounds()
            except Exception:  # a mistake of ours in judging orphans must not end the healing of everything else
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
        waits.append(self.after_round())
        return min((each for each in waits if each is not None), default=None)

    async def _look(self) -> float | None:
        """Read what Git has dropped. Returns the seconds until what could not be read is tried again."""
        keys = [key for key in self._orphans.unread if not self._waits(key)]
        if keys:
            await asyncio.gather(*map(self._look_at, keys))
        return WAIT_STEP if self._orphans.unread else None

    async def _look_at(self, key: ObjectKey) -> None:
        async with self._slots:
            resource = self._kinds.preferred(key.group_kind)
            if resource is None:  # with the kind went its objects
                self._orphans.unread.discard(key)
                return
            try:
                await self._orphans.look(key, resource, self._api)
                if self._orphans.get(key) is None:  # else a deletion may have failed before, and fail again
                    self._failures.pop(key, None)
            except ClusterError as error:
                delay = self._fail(key, error)
                denied_for_now = is_denied(error) and self._failures[key].count < DENIED_TRIES
                given_up = classify(error) is Outcome.FAILED and not denied_for_now
                if given_up:
                    self._orphans.unread.discard(key)
                log.warning(
                    "object that left Git cannot be read",
                    **named(key),
                    error=str(error),
                    next="it is left alone" if given_up else f"tried again in {delay:.3g} s",
                )

    def _round(self, source: str, policy: PrunePolicy) -> float | None:
        """Judge a source's orphans and begin to delete those that are due. Returns the seconds until the next look."""
        commit = self._safeguards.commit(source)
        if not commit:
            return None  # before its first snapshot everything of it looks like an orphan
        candidates = self._candidates(source, policy, self._orphans.of(source))
        held = self._safeguards.judge(source, policy, candidates)
        if held is not None:
            if held.is_lasting:
                for key in candidates:
                    self._reporter.orphaned(key, source, "")
                self._reporter.prune_held(source, held.hold, len(candidates), held.why, commit)
            return WAIT_STEP
        self._reporter.prune_held(source, None, 0, "", commit)
        return self._delete_due(source, policy, candidates) if candidates else None

    def _candidates(
        self, source: str, policy: PrunePolicy, orphans: dict[ObjectKey, Orphan]
    ) -> dict[ObjectKey, Orphan]:
        """The orphans that may be pruned; the others are reported, unless nobody wants to know."""
        kept: dict[ObjectKey, str] = {}
        candidates: dict[ObjectKey, Orphan] = {}
        for key, orphan in orphans.items():
            mode = mode_of(key, orphan, self._policies)
            if mode in (Mode.PAUSED, Mode.IGNORE):
                self._reporter.orphan_gone(key, source)
            elif why := kept_because(key.group_kind, orphan, policy, mode):
                kept[key] = why
            else:
                candidates[key] = orphan
        for key, along in taken_along(candidates, self._staying(candidates), self._crd_of).items():
            kept[key] = f"{along} would go with it"
            del candidates[key]
        for key, why in kept.items():
            self._reporter.orphaned(key, source, why)
        return candidates

    def _staying(self, candidates: dict[ObjectKey, Orphan]) -> Iterator[ObjectKey]:
        """Every object of which we know that it stays."""
        for kind in self._declared.kinds:
            yield from self._declared.keys(kind)
        yield from (key for key in self._orphans.all() if key not in candidates)

    def _crd_of(self, kind: GroupKind) -> str:
        resource = self._kinds.preferred(kind)
        return f"{resource.plural}.{resource.group}" if resource else ""

    # --- Deletion ---

    def _delete_due(self, source: str, policy: PrunePolicy, candidates: dict[ObjectKey, Orphan]) -> float | None:
        """Begin with the objects whose turn it is: a step is over when all of it is gone."""
        step = min(prune_step(key.group_kind) for key in candidates)
        now = self._clock()
        wait: float | None = None
        for key, orphan in sorted(candidates.items()):
            if prune_step(key.group_kind) != step or key in self._busy:
                continue
            if orphan.terminating:
                self._reporter.prune_waits(key, source, orphan.finalizers)
                continue
            if orphan.asked:
                continue
            due = max(orphan.since + policy.delay, self._failures[key].until if key in self._failures else 0.0)
            if due <= now:
                self._busy.add(key)
                self._spawn(self._delete(source, key, orphan))
            else:
                wait = min(due - now, wait or due - now)
        return wait

    def _waits(self, key: ObjectKey) -> bool:
        return key in self._failures and self._failures[key].until > self._clock()

    def _fail(self, key: ObjectKey, error: ClusterError) -> float:
        """Count a failure. Returns the seconds until the next try."""
        count = self._failures[key].count if key in self._failures else 0
        delay = max(
            backoff(count + 1, BACKOFF_FIRST, BACKOFF_LONGEST),
            error.retry_after if isinstance(error, ApiError) else 0.0,
        )
        self._failures[key] = _Failure(count + 1, self._clock() + delay)
        return delay

    async def _delete(self, source: str, key: ObjectKey, orphan: Orphan) -> None:
        try:
            async with self._slots:
                await self._delete_now(source, key, orphan)
        except Exception:  # one object's failure, even by our own mistake, must not end the daemon
            log.exception("pruning failed unexpectedly; it is tried again", **named(key))
            self._fail(key, ClusterError())
            orphan.asked = False
        finally:
            self._busy.discard(key)
            self._wake.set()

    async def _delete_now(self, source: str, key: ObjectKey, orphan: Orphan) -> None:
        resource = self._kinds.preferred(key.group_kind)
        # What was judged may be another object by now, or declared again: then the next round judges anew.
        if resource is None or self._orphans.get(key) is not orphan or self._declared.mentions(key):
            return
        orphan.asked = True
        try:
            await self._api.delete(resource, key.namespace, key.name, orphan.uid, orphan.version)
            self._failures.pop(key, None)
        except ClusterError as error:
            self._on_refusal(source, key, error)

    def _on_refusal(self, source: str, key: ObjectKey, error: ClusterError) -> None:
        code = error.code if isinstance(error, ApiError) else 0
        if code == NOT_FOUND:
            self._orphans.on_undeclared(key)  # its event is on the way; a look makes sure
            return
        if (current := self._orphans.get(key)) is not None:
            current.asked = False
        if code == CONFLICT:  # somebody has written to it: what it says now counts
            self._fail(key, error)  # or it is answered so for good, and is not to be asked again at once
            self._orphans.on_undeclared(key)
            return
        self._reporter.prune_refused(key, source, error, self._fail(key, error))

    def _on_gone(self, key: ObjectKey, orphan: Orphan) -> None:
        self._failures.pop(key, None)
        self._safeguards.on_gone(key)
        if orphan.asked and not self._declared.mentions(key):
            self._reporter.pruned(key, orphan.source, self._safeguards.commit(orphan.source))
        else:
            self._reporter.orphan_gone(key, orphan.source)
