"""Syncs Git's declarations to the cluster: watches the declared kinds and applies new manifests in order.

The first pass covers all declarations. The first LIST of each kind shows which objects are in sync, and the rest is
applied. A new commit, a newly served kind and a new configuration later do the same for the objects that they affect.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import orjson
import structlog

from driftwatch import memory
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.policy import Policies
from driftwatch.model import CRD, SOURCE_LABEL, GroupKind, Manifest, Mode, ObjectKey
from driftwatch.reconcile.apply_order import Rank, rank
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.event_handler import WatchEventHandler
from driftwatch.state.applied import Remembered
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import OrphanIndex

FIRST_LIST = 10.0  # seconds that the first pass waits for a kind's LIST; other kinds are reconciled without it
MANY = 1_000  # objects of one change above which their cost to the garbage collector matters
FIRST_KINDS = 15.0  # seconds that the first pass waits for kinds whose CRD it has just applied

log = structlog.get_logger()


class SyncReporter(Protocol):
    """Receives changes of declarations and watches."""

    def in_sync(self, key: ObjectKey) -> None:
        """Driftwatch no longer manages the object."""

    def watch_gone(self, kind: GroupKind) -> None:
        """The kind is no longer watched."""

    def declared(self, declared: Declared) -> None:
        """The declarations in Git have changed."""


class Sync:
    """Syncs declarations on the daemon's event loop. `spawn` starts a task that ends with the daemon."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        controller: Controller,
        kinds: RestMapper,
        watches: Watches,
        event_handler: WatchEventHandler,
        orphans: OrphanIndex,
        inventory: Inventory,
        policies: Policies,
        reporter: SyncReporter,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._controller = controller
        self._kinds = kinds
        self._watches = watches
        self._event_handler = event_handler
        self._orphans = orphans
        self._inventory = inventory
        self._policies = policies
        self._reporter = reporter
        self._spawn = spawn
        self._began = False
        self._first_pass_done = False
        self._told_missing: set[GroupKind] = set()
        self._only_orphans: set[GroupKind] = set()
        self._bringing_up = 0
        self._progress = asyncio.Event()

    async def first_pass(self, last_applied: dict[ObjectKey, Remembered]) -> None:
        """Sync all declared objects. `last_applied` is the applied state stored on disk."""
        self._began = True
        for kind in self._declared.kinds:
            for key in self._declared.keys(kind):
                state = self._detector.states.of(key)
                state.last_applied, state.stamp, state.left_at, state.snooze = last_applied.get(key, Remembered())
                self._set_policy(key)
        del last_applied  # its memory is reused by the LISTs
        await self._bring_up(set())
        await self._await_kinds()
        self._first_pass_done = True
        self._report_unknown_kinds()

    def on_declared(self, affected: set[ObjectKey]) -> None:
        """Handle changed declarations: watch their kinds, forget dropped objects, apply new manifests."""
        self._reporter.declared(self._declared)
        if not self._began:
            for key in affected:
                self._detector.states.release(key)
            return
        todo: set[ObjectKey] = set()
        for key in affected:
            declaration = self._declared.get(key)
            if declaration is None:
                self._on_undeclared(key)
                continue
            self._orphans.on_declared(key)
            state = self._detector.states.of(key)
            self._set_policy(key)
            if state.last_applied != declaration.manifest.digest or state.accepted is None:
                todo.add(key)
        self._spawn(self._bring_up(todo))

    def _on_undeclared(self, key: ObjectKey) -> None:
        state = self._detector.states.get(key)
        is_there = state is not None and state.live
        self._controller.forget(key)
        if is_there:  # even an observed object may have been managed by driftwatch before
            self._orphans.on_undeclared(key)

    def on_served(self, kinds: list[GroupKind]) -> None:
        """Handle kinds that discovery has found to be served now."""
        affected: set[ObjectKey] = set()
        for kind in kinds:
            log.info("kind is served", kind=str(kind), versions=",".join(self._kinds.served(kind)))
            affected |= self._declared.resolve(kind)
            affected.update(self._declared.keys(kind))
            self._watches.retry_now(kind)
            self._controller.release_kind(kind)
        self.on_declared(affected)

    def on_policies(self, policies: Policies) -> None:
        """Set new policies. Judge the objects whose policy has changed again."""
        self._policies = policies
        if not self._began:
            return
        changed = {key for key in self._detector.states if self._set_policy(key)}
        self._controller.reconsider(changed)
        self._spawn(self._bring_up(set()))

    def _set_policy(self, key: ObjectKey) -> bool:
        """Set the current policy in the object's state. Returns whether it has changed."""
        declaration = self._declared.get(key)
        state = self._detector.states.get(key)
        if declaration is None or state is None:
            return False
        policy = self._policies.of(declaration.source, key, declaration.manifest)
        before, state.policy = state.policy, policy
        if before.mode is Mode.OBSERVE and policy.mode is Mode.HEAL:
            state.last_applied = ""  # driftwatch owns no field yet: the first apply adopts the object
        return before != policy

    async def _bring_up(self, todo: set[ObjectKey]) -> None:
        """Watch the declared and the left kinds. Then reconcile `todo` and the new LISTs' objects, in apply order."""
        self._bringing_up += 1
        try:
            await self._watch_and_tend(todo)
        finally:
            self._bringing_up -= 1
            self._progress.set()
        if self._first_pass_done and self._declared.unknown_kinds.keys() - self._told_missing:
            await self._await_kinds()
            self._report_unknown_kinds()

    async def _watch_and_tend(self, todo: set[ObjectKey]) -> None:
        declared = set(self._declared.kinds)
        left = self._left_kinds(declared)
        for kind in (self._watches.kinds - declared - left.keys()) | (self._only_orphans & declared):
            self._watches.stop(kind)
            self._event_handler.forget(kind)
            self._reporter.watch_gone(kind)
        self._only_orphans = set(left)
        new = declared - self._watches.kinds
        for kind in declared:
            if (resource := self._resource(kind)) is not None:
                self._watches.start(resource, self._selector(kind), self._declared.namespaces(kind))
                for source in {declaration.source for declaration in self._declared.declarations(kind)}:
                    self._inventory.note(source, resource)
        for resource in left.values():
            self._watches.start(resource, SOURCE_LABEL)
        await self._inventory.save_soon(self._policies.healed_sources)
        for kind, manifests in self._declared.unknown_kinds.items():
            self._kinds.want(kind, manifests[0][1].version)
        await self._watches.wait_settled(new, FIRST_LIST)
        todo = {key for key in todo if key.group_kind not in new} | self._event_handler.take_first_list(new)
        for step in Rank:
            await self._controller.reconcile_all({key for key in todo if rank(key.group_kind) is step})
        if len(todo) >= MANY and self._first_pass_done:
            memory.freeze()

    def _left_kinds(self, declared: set[GroupKind]) -> dict[GroupKind, Resource]:
        """Served kinds that Git no longer declares and that may have objects left, with their API resources."""
        remembered = self._inventory.resources(self._policies.sources)
        unknown = self._declared.unknown_kinds  # these become declared kinds once they are served
        return {
            kind: resource
            for kind in remembered
            if kind not in declared and kind not in unknown and (resource := self._kinds.preferred(kind)) is not None
        }

    def watch_left_kinds(self) -> None:
        """Handle a changed inventory: watch kinds that may have objects left, and stop the other watches."""
        self._spawn(self._bring_up(set()))

    def _resource(self, kind: GroupKind) -> Resource | None:
        for declaration in self._declared.declarations(kind):
            if (resource := self._kinds.resource(declaration.manifest)) is not None:
                return resource
        return None

    def _selector(self, kind: GroupKind) -> str:
        """The label selector of a kind's watch. Empty if the watch must include objects without driftwatch's label."""
        unlabelled = (Mode.OBSERVE, Mode.IGNORE)
        states = (self._detector.states.get(key) for key in self._declared.keys(kind))
        return "" if any(state and state.policy.mode in unlabelled for state in states) else SOURCE_LABEL

    async def _await_kinds(self) -> None:
        """Wait for the kinds that declared CRDs define. The first pass includes their objects."""
        expected = {
            kind
            for declaration in self._declared.declarations(CRD)
            if (kind := _defined_kind(declaration.manifest)) in self._declared.unknown_kinds
        }
        deadline = time.monotonic() + FIRST_KINDS
        while time.monotonic() < deadline and (expected & self._declared.unknown_kinds.keys() or self._bringing_up):
            self._progress.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._progress.wait()

    def _report_unknown_kinds(self) -> None:
        """Log each kind that is still not served, once."""
        told, self._told_missing = self._told_missing, set(self._declared.unknown_kinds)
        for kind, manifests in self._declared.unknown_kinds.items():
            if kind in told:
                continue
            source, manifest = manifests[0]
            log.error(
                "kind is not served",
                source=source,
                kind=str(kind),
                version=manifest.version,
                file=f"{manifest.file}:{manifest.line}",
                objects=len(manifests),
                next="applied as soon as the cluster serves it",
            )


def _defined_kind(crd: Manifest) -> GroupKind:
    spec = orjson.loads(crd.body).get("spec") or {}
    return GroupKind(spec.get("group", ""), (spec.get("names") or {}).get("kind", ""))
