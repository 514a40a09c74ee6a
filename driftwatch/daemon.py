"""Builds the parts and joins them; starts and stops them in order.

The daemon begins with what Git declares: kinds to watch follow from it, the first LIST of each kind says what is in
sync, and the rest is applied in order. From then on events drive everything: the API server's, Git's, and the kinds
that come and go.
"""

import asyncio
import errno
import hashlib
import itertools
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog

from driftwatch import memory
from driftwatch.backoff import backoff
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.errors import FORBIDDEN, ApiError, ClusterError, Unreachable
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.session import Session
from driftwatch.cluster.watch_manager import Watches
from driftwatch.config import Config, Source
from driftwatch.desired.client import ChangeAssembler, DesiredStateClient
from driftwatch.desired.protocol import Change, Fetched, FetchFailed, FromProcess, set_digest
from driftwatch.drift.desired_state import Declared, within
from driftwatch.drift.detector import Detector
from driftwatch.files import make_private_folder
from driftwatch.metrics.registry import Metrics
from driftwatch.model import GroupKind, InvalidManifest, Manifest, ManifestId
from driftwatch.notify.dispatcher import Dispatcher
from driftwatch.prune.pruner import Pruner
from driftwatch.prune.safeguards import PruneSafeguards
from driftwatch.prune.unused_kinds import UnusedKinds
from driftwatch.reconcile.audit import Audit
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.event_handler import WatchEventHandler
from driftwatch.reconcile.schedule import Schedule
from driftwatch.reconcile.sync import Sync
from driftwatch.report.absent import AbsentObjects
from driftwatch.report.drift_report import Report
from driftwatch.report.metrics_binding import bind
from driftwatch.report.object_lookup import ObjectLookup
from driftwatch.report.prune_report import PruneReport
from driftwatch.report.source_status import SourceStatusStore
from driftwatch.state.applied import AppliedState
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import Orphans
from driftwatch.status.board import StatusBoard
from driftwatch.web.server import WebServer
from driftwatch.web.tls import CertificateError
from driftwatch.web.webhooks import HookedSource, Webhooks

OTHER_SOURCES = 5.0  # seconds that it waits for other sources once one has spoken
CLUSTER_FIRST = 1.0  # seconds until the second try to reach the API server at the start
CLUSTER_LONGEST = 5.0
DIFFERING_FIRST = 1.0  # seconds until a snapshot that arrived incomplete is asked for again
DIFFERING_LONGEST = 300.0
MOST_NAMED = 100  # invalid manifests of one commit that are named: the loop must not be held up by a hundred thousand
PASSING = (errno.ENOSPC, errno.EDQUOT)  # of a folder that cannot be made: somebody may make room
WINDOW_STEP = 1.0  # seconds between looks at the healing windows
STOP_GRACE = 5.0  # seconds for heals in flight; the whole stop must fit into ten

log = structlog.get_logger()


class CannotStart(Exception):
    """The daemon cannot begin; the message says what to mend."""


class Daemon:
    """One cluster, kept equal to the sources of one configuration. Who has opened `session` closes it afterwards."""

    _invalid: dict[str, set[InvalidManifest]]  # by source
    _refused: dict[str, dict[ManifestId, str]]  # by source: digests of what is beyond our namespace
    _differing: dict[str, int]  # by source: differing snapshots in a row

    def __init__(self, config: Config, session: Session, states: Path) -> None:  # noqa: PLR0915  wiring
        """`states` is the folder that keeps a folder of state for each cluster."""
        self._config = config
        self._session = session
        self._confined = config.cluster.namespace
        self._schedule = Schedule(config.windows(), config.drift.maxSnooze)
        self.metrics = Metrics()
        session.observer = self.metrics.api.asked
        self.report = Report(self.metrics)
        self.report.is_person = self._is_person
        self._discovery = Discovery(session, config.cluster.namespace or "")
        self._kinds = RestMapper(self._discovery, self._on_served)
        self._declared = Declared((source.name for source in config.sources), self._kinds.namespaced)
        self._detector = Detector(self._declared.states, time.monotonic, config.managers(), time.time)
        api = ApiClient(session)
        self._controller = Controller(
            self._declared,
            self._detector,
            api,
            self._kinds,
            self.report,
            self._schedule,
            time.monotonic,
        )
        self._desired = DesiredStateClient()
        self._orphans = Orphans(self._declared, time.monotonic)
        self._inventory = Inventory(api, config.inventory.namespace)
        self._safeguards = PruneSafeguards(
            self._declared, self._orphans.unread, time.monotonic, self._desired.poll, self._spawn
        )
        self._pruner = Pruner(
            self._declared,
            self._orphans,
            api,
            self._kinds,
            PruneReport(self.report, self.metrics),
            self._safeguards,
            time.monotonic,
            self._spawn,
        )
        self._event_handler = WatchEventHandler(
            self._declared, self._detector, self._controller, self._orphans, self._kinds, self.report
        )
        self._watches = Watches(session, self._event_handler)
        self._sync = Sync(
            self._declared,
            self._detector,
            self._controller,
            self._kinds,
            self._watches,
            self._event_handler,
            self._orphans,
            self._inventory,
            config.policies(),
            self.report,
            self._spawn,
        )
        self._audit = Audit(self._declared, self._detector, self._controller, self.report, config.drift.audit)
        self._in_force = AppliedState(self._detector)
        self._unused_kinds = UnusedKinds(self._declared, self._orphans, self._inventory, self._watches, time.monotonic)
        self._state = states  # of this cluster alone, once it is known which one it is
        self._surroundings = RenderInputsWatch(session, self._discovery, self._desired.surround)
        self._sources = SourceStatusStore()
        subjects = ObjectLookup(self._declared, self._detector)
        self._dispatcher = Dispatcher(
            self.report,
            self._sources,
            subjects,
            session,
            self.metrics,
            self._controller.heals_drift,
            self._spawn,
        )
        absent = AbsentObjects(
            self._declared,
            self._detector,
            self._kinds,
            self._controller.blocked,
            self.report,
            self._watches.unsynced,
        )
        self._status = StatusBoard(
            self.report,
            self._sources,
            subjects,
            self._dispatcher.recent,
            self._schedule,
            self._watches,
            self.missing,
            absent,
        )
        self._hooks = Webhooks(self._desired.poll, self.metrics.webhooks)
        self.web = WebServer(self.metrics.registry, self.missing, config.server, self._hooks, self._status.document)
        bind(
            self.metrics,
            self.report,
            self._controller,
            self._event_handler,
            self._watches,
            absent,
            lambda: not self.missing(),
            lambda: self._desired.restarts,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._crash: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._assembler = ChangeAssembler()
        self._elsewhere: dict[str, set[tuple[str, str]]] = {}  # by source: what Git does not hold, said once each
        self._spoken: dict[str, str] = {}  # source → "" or why it has no snapshot
        self._spoke = asyncio.Event()
        self._hopeless: set[str] = set()  # of those that have no snapshot: waiting does not help
        self._invalid, self._refused, self._differing = {}, {}, {}
        self._unreached: str | None = "not reached yet"  # why the API server has told nothing of itself
        self._settled = False  # the cluster is reached, and its folder of state is there
        self._following = asyncio.Lock()
        self._followed: Config | None = None  # which configuration the parts outside of this process go by
        self._began = False
        self._first_pass_done = False
        self._configure(config)

    async def start(self) -> None:
        """Listen, wait for the API server, and start every part. Raises `CannotStart`."""
        try:
            await self.web.start(*self._config.server.address)
        except OSError as error:
            raise CannotStart(
                f"server.listen: cannot listen on {self._config.server.listen}: {error.strerror}"
            ) from error
        except CertificateError as error:
            raise CannotStart(f"server: {error}") from error
        log.info(
            "listening",
            address=f"{self._config.server.address[0]}:{self.web.port}",
            scheme=self.web.scheme,
            cluster=self._session.server,
        )
        self._settle_in(await self._reach_cluster())
        self._settled = True
        self._spawn(self._surroundings.run())
        await self._follow_newest()
        await self._desired.start()
        self._spawn(self._follow_sources())
        self._spawn(self._kinds.run())
        self._spawn(self._session.keep_warm())

    async def run(self, stop: asyncio.Event) -> None:
        """Heal until `stop` is set.

        Raises `CannotStart` when it cannot begin and waiting does not help, and whatever made a part of the daemon
        crash: half a daemon that looks alive is worse than one that its supervisor starts anew.
        """
        self._spawn(self._begin())
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        ends: set[asyncio.Future[Any]] = {stopped, self._crash}
        try:
            with memory.pauses_told(self.metrics.gc_pauses.observe):
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._crash.done():
                raise self._crash.result()
        finally:
            stopped.cancel()
            await self.stop()

    async def _begin(self) -> None:
        await self.start()
        await self._first_pass()

    async def stop(self) -> None:
        """Let heals in flight end, then stop every part."""
        log.info("stopping")
        await self._controller.stop(STOP_GRACE)
        await self._dispatcher.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._watches.close()
        self._hooks.close()
        await self._desired.stop()
        if self._began:
            await self._in_force.save()
        await self.web.stop()

    def missing(self) -> list[str]:
        """What keeps the daemon from being ready."""
        if self._unreached is not None:
            return [f"API server: {self._unreached}"]
        declared = set(self._declared.kinds)
        missing = [
            f"source {name}: {self._spoken.get(name) or 'no snapshot yet'}"
            for name in self._source_names
            if self._spoken.get(name, "-")
        ]
        missing += [
            f"watch of {kind}: {self.report.watch_trouble.get(kind) or 'not listed yet'}"
            for kind in self._watches.unsynced()
            if kind in declared  # what is watched for orphans alone keeps nobody waiting
        ]
        if not self._first_pass_done:
            missing.append("first snapshot: not yet applied")
        return missing

    def _is_person(self, manager: str) -> bool:
        """Whether people write under this field manager, by the configuration in force."""
        return self._detector.managers.is_interactive(manager)

    @property
    def _source_names(self) -> list[str]:
        return [source.name for source in self._config.sources]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._crash.done():
            self._crash.set_result(error)

    async def _reach_cluster(self) -> str:
        """Wait until the API server says what it serves, and which cluster it is of; returns the latter.

        What waiting does not mend ends the start.
        """
        failures = 0
        while True:
            try:
                await self._discovery.refresh()
                return await cluster_identity(self._session)
            except ApiError as error:
                if not error.passes and error.code != FORBIDDEN:  # one that has just started denies everybody
                    raise CannotStart(f"the API server refuses us: {error}") from error
                self._unreached, at_least = str(error), error.retry_after
            except Unreachable as error:
                self._unreached, at_least = str(error), 0.0
            except ClusterError as error:
                raise CannotStart(str(error)) from error
            failures += 1
            wait = max(at_least, backoff(failures, CLUSTER_FIRST, CLUSTER_LONGEST))
            log.error(
                "the API server cannot be reached",
                cluster=self._session.server,
                error=self._unreached,
                next=f"tried again in {wait:.1f} s; nothing is healed until then",
            )
            await asyncio.sleep(wait)

    def _settle_in(self, cluster: str) -> None:
        """Make the folder of state of this cluster. That a disk is full may pass: it is missed, and nothing else."""
        state = self._state / cluster
        try:
            make_private_folder(state)
        except OSError as error:
            if error.errno not in PASSING:
                raise CannotStart(f"state.directory: {state} cannot be used: {error.strerror}") from error
        self._inventory.keep_in(state / "inventory.json")
        self._in_force.keep_in(state / "in-force.msgpack")
        self._state = state
        self._unreached = None

    # --- Git ---------------------------------------------------------------------------------------------------------

    async def _follow_sources(self) -> None:
        async for message in self._desired.messages():
            self._on_message(message)

    def _on_message(self, message: FromProcess) -> None:
        match message:
            case _ if message.source not in self._source_names:
                pass  # one that has just been dropped from the configuration
            case Change():
                self._on_chunk(message)
            case Fetched():
                self._sources.note(message)
                self.metrics.git_success.labels(message.source).set(message.time)
                self.metrics.sources.fetch.labels(message.source).observe(message.fetch_seconds)
                if message.render_seconds:
                    self.metrics.sources.render.labels(message.source).observe(message.render_seconds)
                self._safeguards.on_fetched(message.source, message.commit)
            case FetchFailed():
                self._sources.note(message)
                self._safeguards.on_fetch_failed(message.source, message.error)
                self.metrics.git_failures.labels(message.source, message.reason).inc()
                log.error(
                    "source cannot be read",
                    source=message.source,
                    reason=message.reason,
                    error=message.error,
                    next=_next_for(message),
                )
                if not message.serving and self._spoken.get(message.source) != "":
                    (self._hopeless.add if message.fatal else self._hopeless.discard)(message.source)
                    self._speak(message.source, message.error)

    def _on_chunk(self, chunk: Change) -> None:
        whole = self._assembler.add(chunk)
        if whole is None:
            return
        self._tell_invalid(whole)
        elsewhere = {(passed.file, passed.reason) for passed in whole.passed_over if passed.elsewhere}
        for file, reason in sorted(elsewhere - self._elsewhere.get(whole.source, set())):
            log.warning(
                "not in the repository", source=whole.source, file=file, reason=reason, next="nothing of it is applied"
            )
        self._elsewhere[whole.source] = elsewhere
        for passed in whole.passed_over:
            log.debug("passed over", source=whole.source, file=f"{passed.file}:{passed.line}", reason=passed.reason)
        upserts = self._within(whole.source, whole.upserts)
        self._note_refused(whole, upserts)
        if whole.full:
            affected = self._declared.replace(whole.source, upserts)
        else:
            affected = self._declared.change(whole.source, upserts, map(ManifestId._make, whole.removed))
        log.info(
            "snapshot",
            source=whole.source,
            commit=whole.commit[:12],
            changed=len(whole.upserts),
            removed=len(whole.removed),
            invalid=len(whole.invalid),
        )
        self._sources.note(whole)
        self.metrics.sources.snapshot(
            whole.source,
            whole.commit,
            time.time(),
            size=sum(len(manifest.body) for manifest in self._declared.manifests(whole.source).values()),
        )
        self._compare(whole)
        self._speak(whole.source, "")
        self._sync.on_declared(affected)
        self._safeguards.on_snapshot(whole.source, whole.commit, len(whole.invalid))

    def _compare(self, change: Change) -> None:
        """Ask for the full snapshot again when what is declared here is not what the other process has read."""
        refused = self._refused.setdefault(change.source, {})
        declared = self._declared.manifests(change.source).values()
        digests = itertools.chain((manifest.digest for manifest in declared), refused.values())
        if set_digest(digests) == change.digest:
            self._differing.pop(change.source, None)
            return
        self._differing[change.source] = failures = self._differing.get(change.source, 0) + 1
        self.metrics.snapshot_differences.labels(change.source).inc()
        wait = backoff(failures, DIFFERING_FIRST, DIFFERING_LONGEST)
        log.error(
            "snapshot differs from what Git declares",
            source=change.source,
            commit=change.commit[:12],
            next=f"the full snapshot is asked for in {wait:.1f} s",
        )
        self._spawn(self._ask_again(change.source, wait))

    async def _ask_again(self, source: str, wait: float) -> None:
        await asyncio.sleep(wait)
        if source in self._differing:
            await self._desired.resend(source)

    def _tell_invalid(self, change: Change) -> None:
        """Name each invalid manifest once, and not again with every commit that leaves it as it is."""
        known, self._invalid[change.source] = self._invalid.get(change.source, set()), set(change.invalid)
        new = [mistake for mistake in change.invalid if mistake not in known]
        for mistake in new[:MOST_NAMED]:
            log.error(
                "invalid manifest",
                source=change.source,
                file=f"{mistake.file}:{mistake.line}",
                error=mistake.reason,
                next="its last good version stays in force",
            )
        if len(new) > MOST_NAMED:
            log.error(
                "more invalid manifests",
                source=change.source,
                count=len(new) - MOST_NAMED,
                next="`driftwatch validate` names them all",
            )
        self.metrics.invalid_manifests.labels(change.source).set(len(change.invalid))

    def _note_refused(self, change: Change, kept: Sequence[Manifest]) -> None:
        """Remember the digests of manifests beyond `cluster.namespace`: the other process counts them as declared."""
        refused = {} if change.full else self._refused.get(change.source, {})
        for gone in change.removed:
            refused.pop(ManifestId._make(gone), None)
        if len(kept) < len(change.upserts):
            for manifest in change.upserts:
                if manifest.namespace != self._confined:
                    found = ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)
                    refused[found] = manifest.digest
        self._refused[change.source] = refused

    def _within(self, source: str, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """The manifests that are not beyond the namespace to which the daemon is confined."""
        confined = self._confined
        kept, refused = within(manifests, confined)
        for manifest in refused:
            log.error(
                "outside of cluster.namespace",
                source=source,
                kind=str(manifest.group_kind),
                namespace=manifest.namespace,
                name=manifest.name,
                file=f"{manifest.file}:{manifest.line}",
                next=f"it is left alone; driftwatch is confined to {confined}",
            )
        return kept

    def _speak(self, source: str, trouble: str) -> None:
        self._spoken[source] = trouble
        self._spoke.set()

    def _on_served(self, kinds: list[GroupKind]) -> None:
        self._sync.on_served(kinds)

    # --- The first pass, and what changes afterwards ------------------------------------------------------------------

    async def _first_pass(self) -> None:
        await self._hear_sources()
        await self._inventory.load(self._source_names)
        self._began = True
        await self._sync.first_pass(self._in_force.load())
        self._first_pass_done = True
        self._spawn(self._in_force.run())
        self._spawn(self._audit.run())
        self._spawn(self._watch_windows())
        self._pruner.after_round = self._settle_inventory
        self._spawn(self._pruner.run())
        memory.keep()
        log.info(
            "first pass done",
            objects=len(self._detector.states),
            not_ready="; ".join(self.missing()) or None,
        )

    async def _learn_kinds(self, sources: set[str]) -> None:
        """A source that has been here before may have left objects of kinds that it declares no more."""
        await self._inventory.load(sources)
        self._sync.watch_left_kinds()

    def _settle_inventory(self) -> float | None:
        """Forget kinds of which nothing is left. Returns the seconds until that is to be looked at again."""
        wait, dropped = self._unused_kinds.drop(self._source_names)
        if dropped:
            self._sync.watch_left_kinds()
        return wait

    async def _hear_sources(self) -> None:
        """Wait until every source has spoken, or one has and the others take long.

        Without any snapshot there is nothing to begin with. Raises `CannotStart` if waiting cannot help any of them.
        """
        deadline: float | None = None
        while len(self._spoken) < len(self._source_names) or "" not in self._spoken.values():
            if self._hopeless.issuperset(self._source_names):
                troubles = [f"source {name}: {trouble}" for name, trouble in self._spoken.items()]
                raise CannotStart("no source has anything to begin with:\n" + "\n".join(troubles))
            self._spoke.clear()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - time.monotonic(), 0)):
                    await self._spoke.wait()
            except TimeoutError:
                break
            if deadline is None and "" in self._spoken.values():
                deadline = time.monotonic() + OTHER_SOURCES

    # --- Configuration -----------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Take another configuration in; what it says of cluster, server and state counts after a restart only.

        The newest wins, however slow the start or the reload before is. An exception leaves every part that it did not
        concern with the new configuration; the next reload brings all of them to its own.
        """
        for section in ("cluster", "server", "state", "inventory"):
            if getattr(config, section) != getattr(self._config, section):
                log.warning("this section counts after a restart only", section=section)
        known = set(self._inventory.sources())
        self._configure(config)
        if self._settled:  # else the start does it in a moment
            await self._follow_newest()
            self._spawn(self._learn_kinds(set(self._source_names) - known))
        log.info("configuration reloaded", sources=len(config.sources))

    def _configure(self, config: Config) -> None:
        """Bring every part within the process to this configuration, at the start and at each reload, in this order.

        All that a part takes in is made before any of them is touched: what cannot be made changes nothing.
        """
        names = [source.name for source in config.sources]
        managers, windows, policies, pruning = config.managers(), config.windows(), config.policies(), config.pruning()
        hooked = [_hooked(source) for source in config.sources]

        self._config = config
        self._detector.managers = managers
        self._schedule.windows, self._schedule.longest_snooze = windows, config.drift.maxSnooze
        self._audit.period = config.drift.audit
        self.metrics.follow(names)
        self._sources.follow(set(names))
        self._status.follow(config.sources, self._session.server)
        self._hooks.follow(hooked)
        self._pruner.allow(pruning, policies)
        for source in set(self._spoken) - set(names):
            del self._spoken[source]
            self._hopeless.discard(source)
            self._spoke.set()
            self._elsewhere.pop(source, None)
            self._invalid.pop(source, None)
        self._sync.on_declared(self._declared.follow(names))
        self._sync.on_policies(policies)

    async def _follow_newest(self) -> None:
        """Bring what waits for the cluster and for Git to the newest configuration: one at a time, until it is."""
        async with self._following:
            while self._followed is not self._config:
                config = self._config
                specs = [source.spec(self._state / "mirrors") for source in config.sources]
                surroundings = await self._surroundings.follow(specs)
                if self._config is not config:
                    continue  # overtaken: nothing of an old one reaches the desired-state process
                self._dispatcher.configure(config)
                await self._desired.surround(surroundings)
                await self._desired.watch(specs)
                self._followed = config

    async def _watch_windows(self) -> None:
        """When a source's window opens, heal what has only been reported before."""
        was_open: dict[str, bool] = {}
        while True:
            for source in self._schedule.windows:
                is_open = self._schedule.is_open(source)
                if is_open and was_open.get(source) is False:
                    drifting = {key for key, drift in self.report.drifting.items() if drift.source == source}
                    log.info("healing window opens", source=source, drifting=len(drifting))
                    self._controller.reconsider(drifting)
                was_open[source] = is_open
            await asyncio.sleep(WINDOW_STEP)


def _hooked(source: Source) -> HookedSource:
    return HookedSource(source.name, source.revision, source.semver or "", source.webhook.secret())


def _next_for(failure: FetchFailed) -> str:
    if failure.serving:
        return f"commit {failure.serving[:12]} stays in force"
    return "nothing of this source is healed until it can be read"


async def cluster_identity(session: Session) -> str:
    """Names the cluster's folder of state: the uid of `kube-system`; a hash of the address if we may not read it.

    Raises `ClusterError` while it cannot be told: by another name nothing would be found of what was kept.
    """
    try:
        answer = await session.request("GET", session.url("/api/v1/namespaces/kube-system"))
        return str(orjson.loads(answer.body)["metadata"]["uid"])
    except ApiError as error:
        if error.passes:
            raise
    except (ValueError, KeyError):
        pass
    return hashlib.blake2b(session.server.encode(), digest_size=8).hexdigest()
