"""Builds the parts and joins them; starts and stops them in order.

The daemon begins with what Git declares: kinds to watch follow from it, the first LIST of each kind says what is in
sync, and the rest is applied in order. From then on events drive everything: the API server's, Git's, and the kinds
that come and go.
"""

import asyncio
import contextlib
import gc
import hashlib
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import orjson
import structlog

from driftwatch.cluster.apply import Applier
from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ApiError, ClusterError, Unreachable
from driftwatch.cluster.kinds import KindTracker
from driftwatch.cluster.session import Session
from driftwatch.cluster.watches import Watches
from driftwatch.config import Config
from driftwatch.desired.intake import Intake
from driftwatch.desired.link import DesiredProcess
from driftwatch.desired.protocol import Change, Fetched, FetchFailed, FromProcess
from driftwatch.drift.declared import Declared
from driftwatch.drift.ownership import Detector
from driftwatch.heal.healer import Healer
from driftwatch.heal.inforce import InForce
from driftwatch.heal.order import CRD, Rank, rank
from driftwatch.heal.sightings import Sightings
from driftwatch.model import SOURCE_LABEL, GroupKind, Manifest, ManifestId, Mode, ObjectKey
from driftwatch.observe.metrics import Metrics
from driftwatch.observe.report import Report
from driftwatch.web.server import WebServer

FIRST_LIST = 10.0  # seconds that the first pass waits for a kind's LIST; healing of others goes on without it
FIRST_KINDS = 15.0  # seconds that it waits for kinds whose CRD it has just applied
OTHER_SOURCES = 5.0  # seconds that it waits for other sources once one has spoken
START_TRIES = 3
STOP_GRACE = 5.0  # seconds for heals in flight; the whole stop must fit into ten

log = structlog.get_logger()


class CannotStart(Exception):
    """The daemon cannot begin; the message says what to mend."""


class Daemon:
    """One cluster, kept equal to the sources of one configuration."""

    def __init__(self, config: Config, session: Session, state: Path) -> None:
        self._config = config
        self._session = session
        self._modes = {source.name: source.mode for source in config.sources}
        self.metrics = Metrics()
        self.report = Report(self.metrics)
        self._discovery = Discovery(session)
        self._kinds = KindTracker(self._discovery, self._on_served)
        self._declared = Declared(self._modes, self._kinds.namespaced)
        self._detector = Detector(self._declared.manifest, time.monotonic)
        self._healer = Healer(
            self._declared,
            self._detector,
            Applier(session),
            self._kinds,
            self.report,
            self._modes.__getitem__,
            time.monotonic,
        )
        self._sightings = Sightings(self._declared, self._detector, self._healer, self._kinds, self.report)
        self._watches = Watches(session, self._sightings)
        self._in_force = InForce(state / "in-force.msgpack", self._detector)
        self._mirrors = state / "mirrors"
        self._desired = DesiredProcess()
        self.web = WebServer(self.metrics.registry, self.missing)
        self._tasks: set[asyncio.Task[None]] = set()
        self._intake = Intake()
        self._spoken: dict[str, str] = {}  # source → "" or why it has no snapshot
        self._spoke = asyncio.Event()
        self._began = False
        self._first_pass_done = False
        self._bringing_up = 0
        self._progress = asyncio.Event()
        self._told_missing: set[GroupKind] = set()
        self._known_conflicts: set[tuple[ObjectKey, str]] = set()

    async def start(self) -> None:
        """Start every part and go through the first pass in the background. Raises `CannotStart`."""
        await self._reach_cluster()
        try:
            await self.web.start(*self._config.server.address)
        except OSError as error:
            raise CannotStart(
                f"server.listen: cannot listen on {self._config.server.listen}: {error.strerror}"
            ) from error
        log.info(
            "listening",
            address=f"{self._config.server.address[0]}:{self.web.port}",
            cluster=self._session.server,
        )
        await self._desired.start([source.spec(self._mirrors) for source in self._config.sources])
        self._spawn(self._follow_sources())
        self._spawn(self._kinds.run())
        self._spawn(self._session.keep_warm())

    async def run(self, stop: asyncio.Event) -> None:
        """Heal until `stop` is set. Raises `CannotStart` when no source has anything to begin with."""
        await self.start()
        first_pass = self._spawn(self._first_pass())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({stopped, first_pass}, return_when=asyncio.FIRST_COMPLETED)
            if first_pass.done() and not stop.is_set():
                first_pass.result()
                await stopped
        finally:
            stopped.cancel()
            await self.stop()

    async def stop(self) -> None:
        """Let heals in flight end, then stop every part."""
        log.info("stopping")
        await self._healer.stop(STOP_GRACE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watches.close()
        await self._desired.stop()
        if self._began:
            await self._in_force.save()
        await self.web.stop()
        await self._session.close()

    def missing(self) -> list[str]:
        """What keeps the daemon from being ready."""
        missing = [
            f"source {name}: {self._spoken.get(name) or 'no snapshot yet'}"
            for name in self._modes
            if self._spoken.get(name, "-")
        ]
        missing += [
            f"watch of {kind}: {self.report.watch_trouble.get(kind) or 'not listed yet'}"
            for kind in self._watches.unsynced()
        ]
        if not self._first_pass_done:
            missing.append("first snapshot: not yet applied")
        return missing

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_crash)
        return task

    async def _reach_cluster(self) -> None:
        for attempt in range(START_TRIES):
            try:
                await self._discovery.refresh()
                return
            except ApiError as error:
                raise CannotStart(f"the API server refuses us: {error}") from error
            except Unreachable as error:
                if attempt == START_TRIES - 1:
                    raise CannotStart(f"the API server cannot be reached: {error}") from error
                await asyncio.sleep(1.0)
            except ClusterError as error:
                raise CannotStart(str(error)) from error

    # --- Git ---------------------------------------------------------------------------------------------------------

    async def _follow_sources(self) -> None:
        async for message in self._desired.messages():
            self._on_message(message)

    def _on_message(self, message: FromProcess) -> None:
        match message:
            case Change():
                self._on_chunk(message)
            case Fetched():
                self.metrics.git_success.labels(message.source).set(message.time)
            case FetchFailed():
                log.error(
                    "source cannot be read",
                    source=message.source,
                    error=message.error,
                    next=_next_for(message),
                )
                if not message.serving and message.source not in self._spoken:
                    self._speak(message.source, message.error)

    def _on_chunk(self, chunk: Change) -> None:
        whole = self._intake.add(chunk)
        if whole is None:
            return
        for mistake in whole.invalid:
            log.error(
                "invalid manifest",
                source=whole.source,
                file=f"{mistake.file}:{mistake.line}",
                error=mistake.reason,
                next="its last good version stays in force",
            )
        for passed in whole.passed_over:
            log.debug("passed over", source=whole.source, file=f"{passed.file}:{passed.line}", reason=passed.reason)
        if whole.full:
            affected = self._declared.replace(whole.source, whole.upserts)
        else:
            affected = self._declared.change(whole.source, whole.upserts, map(ManifestId._make, whole.removed))
        log.info(
            "snapshot",
            source=whole.source,
            commit=whole.commit[:12],
            changed=len(whole.upserts),
            removed=len(whole.removed),
            invalid=len(whole.invalid),
        )
        self._speak(whole.source, "")
        self._on_declared(affected)

    def _speak(self, source: str, trouble: str) -> None:
        self._spoken[source] = trouble
        self._spoke.set()

    def _on_declared(self, affected: set[ObjectKey]) -> None:
        """What is declared has changed: watch what it needs, forget what is gone, apply what is new."""
        self._count_managed()
        self._report_conflicts()
        if not self._began:
            return
        todo: set[ObjectKey] = set()
        for key in affected:
            claim = self._declared.get(key)
            if claim is None:
                self._detector.forget(key)
                self._healer.parking.forget(key)
                self.report.in_sync(key)
                continue
            record = self._detector.record(key)
            record.observed = self._modes[claim.source] is Mode.OBSERVE
            if record.in_force != claim.manifest.digest or record.accepted is None:
                todo.add(key)
        self._spawn(self._bring_up(todo))

    def _count_managed(self) -> None:
        self.metrics.set_managed(
            Counter((claim.source, kind) for kind in self._declared.kinds for claim in self._declared.claims(kind))
        )

    def _report_conflicts(self) -> None:
        conflicts = {(conflict.key, conflict.refused.source): conflict for conflict in self._declared.conflicts()}
        for known, conflict in conflicts.items():
            if known not in self._known_conflicts:
                log.error(
                    "declared twice",
                    object=str(conflict.key),
                    owner=conflict.owner.source,
                    owner_file=conflict.owner.manifest.file,
                    refused=conflict.refused.source,
                    refused_file=conflict.refused.manifest.file,
                    next="the owner's manifest stays in force",
                )
        self._known_conflicts = set(conflicts)

    # --- The first pass, and bringing kinds up
    # -------------------------------------------------------------------------

    async def _first_pass(self) -> None:
        await self._hear_sources()
        self._began = True
        in_force = self._in_force.load()
        for kind in self._declared.kinds:
            for key in self._declared.keys(kind):
                claim = self._declared.get(key)
                record = self._detector.record(key)
                record.in_force = in_force.get(key, "")
                record.observed = claim is not None and self._modes[claim.source] is Mode.OBSERVE
        await self._bring_up(set())
        await self._await_kinds()
        self._first_pass_done = True
        self._spawn(self._in_force.run())
        self._report_unknown_kinds()
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        log.info(
            "first pass done",
            objects=len(self._detector.records),
            not_ready="; ".join(self.missing()) or None,
        )

    async def _hear_sources(self) -> None:
        """Wait until every source has spoken, or one has and the others take long."""
        deadline: float | None = None
        while len(self._spoken) < len(self._modes):
            self._spoke.clear()
            try:
                await asyncio.wait_for(
                    self._spoke.wait(), None if deadline is None else max(deadline - time.monotonic(), 0)
                )
            except TimeoutError:
                break
            if deadline is None and "" in self._spoken.values():
                deadline = time.monotonic() + OTHER_SOURCES
        troubles = [f"source {name}: {trouble}" for name, trouble in self._spoken.items() if trouble]
        if len(troubles) == len(self._modes):
            raise CannotStart("no source has anything to begin with:\n" + "\n".join(troubles))

    async def _bring_up(self, todo: set[ObjectKey]) -> None:
        """Watch every declared kind and no others, then apply `todo` and what the new LISTs show, in order."""
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
        for kind in self._watches.kinds - declared:
            self._watches.stop(kind)
            self._sightings.forget(kind)
            self.report.watch_gone(kind)
        new = declared - self._watches.kinds
        for kind in declared:
            if (resource := self._resource(kind)) is not None:
                self._watches.start(resource, self._selector(kind))
        for kind in self._declared.unknown_kinds:
            self._kinds.want(kind, self._declared.unknown_kinds[kind][0][1].version)
        await self._watches.wait_synced(new, FIRST_LIST)
        todo = {key for key in todo if key.group_kind not in new} | self._sightings.take_first_list(new)
        await self._tend_in_order(todo)

    def _resource(self, kind: GroupKind) -> Resource | None:
        for claim in self._declared.claims(kind):
            if (resource := self._kinds.resource(claim.manifest)) is not None:
                return resource
        return None

    def _selector(self, kind: GroupKind) -> str:
        observed = any(self._modes[claim.source] is Mode.OBSERVE for claim in self._declared.claims(kind))
        return "" if observed else SOURCE_LABEL

    async def _tend_in_order(self, todo: set[ObjectKey]) -> None:
        for step in Rank:
            await self._healer.tend_all({key for key in todo if rank(key.group_kind) is step})

    async def _await_kinds(self) -> None:
        """Wait for the kinds that our own CRDs define: the first pass includes their objects."""
        expected = {
            kind
            for claim in self._declared.claims(CRD)
            if (kind := _defined_kind(claim.manifest)) in self._declared.unknown_kinds
        }
        deadline = time.monotonic() + FIRST_KINDS
        while time.monotonic() < deadline and (expected & self._declared.unknown_kinds.keys() or self._bringing_up):
            self._progress.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._progress.wait(), deadline - time.monotonic())

    def _report_unknown_kinds(self) -> None:
        """Name the kinds that are still not served, each once."""
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

    def _on_served(self, kinds: list[GroupKind]) -> None:
        """Kinds that were looked for are served now."""
        for kind in kinds:
            log.info("kind is served", kind=str(kind), versions=",".join(self._kinds.served(kind)))
            for key in self._declared.resolve(kind):
                self._detector.record(key)
            self._watches.hurry(kind)
            self._healer.release_kind(kind)
        self._on_declared({key for kind in kinds for key in self._declared.keys(kind)})


def _defined_kind(crd: Manifest) -> GroupKind:
    spec = orjson.loads(crd.body).get("spec") or {}
    return GroupKind(spec.get("group", ""), (spec.get("names") or {}).get("kind", ""))


def _next_for(failure: FetchFailed) -> str:
    if failure.serving:
        return f"commit {failure.serving[:12]} stays in force"
    return "nothing of this source is healed until it can be read"


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, CannotStart):
        log.error("a part of the daemon crashed", exc_info=error)


async def cluster_identity(session: Session) -> str:
    """Names the cluster's folder of state: the uid of `kube-system`, else a hash of the address."""
    try:
        answer = await session.request("GET", session.url("/api/v1/namespaces/kube-system"))
        return str(orjson.loads(answer.body)["metadata"]["uid"])
    except (ClusterError, ValueError, KeyError):
        return hashlib.blake2b(session.server.encode(), digest_size=8).hexdigest()
