"""Builds the parts and connects them; starts and stops them in order.

The daemon begins with what Git declares. The kinds to watch follow from it, the first LIST of each kind says what is in
sync, and the rest is applied in order. From then on everything is driven by events: of the API server, of Git, and of
kinds that come and go.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import structlog

from driftwatch import memory
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.session import Session
from driftwatch.cluster.watch_manager import Watches
from driftwatch.config import Config
from driftwatch.desired.client import DesiredStateClient
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.metrics.registry import Metrics
from driftwatch.notify.dispatcher import Dispatcher
from driftwatch.prune.pruner import DepartureReporter, Pruner
from driftwatch.prune.safeguards import PruneSafeguards
from driftwatch.prune.unused_kinds import UnusedKinds
from driftwatch.reconcile.audit import Audit
from driftwatch.reconcile.concurrency import Concurrency
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.event_handler import WatchEventHandler
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.reconcile.schedule import Schedule
from driftwatch.reconcile.sync import Sync
from driftwatch.reconcile.windows import HealingWindows
from driftwatch.report.absent import AbsentObjects
from driftwatch.report.drift_report import Report
from driftwatch.report.metrics_binding import bind, queue_waits
from driftwatch.report.object_lookup import ObjectLookup
from driftwatch.report.open_reports import OpenReports
from driftwatch.report.prune_report import PruneReport
from driftwatch.report.source_status import SourceStatusStore
from driftwatch.source_spec import SourceSpec
from driftwatch.sources import Sources
from driftwatch.startup import CannotStart, Startup
from driftwatch.state.applied import AppliedState
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import OrphanIndex
from driftwatch.status.board import StatusBoard
from driftwatch.tasks import Tasks
from driftwatch.web.server import WebServer
from driftwatch.web.tls import CertificateError
from driftwatch.web.webhooks import HookedSource, Webhooks

STOP_GRACE = 5.0  # seconds for heals in flight; the whole stop must fit into ten

log = structlog.get_logger()


class Daemon:
    """Keeps one cluster equal to the sources of one configuration. The caller closes `session` afterwards."""

    def __init__(self, config: Config, session: Session, states: Path, metrics: Metrics) -> None:
        """`states` is the folder that keeps a state folder for each cluster. `session` reports to `metrics`."""
        clock = time.monotonic
        self._config = config
        self._session = session
        self.metrics = metrics
        self._tasks = Tasks()
        self._schedule = Schedule(config.windows(), config.drift.maxSnooze)
        discovery = Discovery(session, config.cluster.namespace or "")
        self._startup = Startup(session, discovery, states)
        self._kinds = RestMapper(discovery)
        self._declared = Declared((source.name for source in config.sources), self._kinds.namespaced)
        self._detector = Detector(self._declared.states, clock, config.managers(), time.time)
        self._source_status = SourceStatusStore()
        subjects = ObjectLookup(self._declared, self._detector)
        open_reports = OpenReports()
        self._dispatcher = Dispatcher(
            open_reports, self._source_status, subjects, session, metrics, self._heals_drift, self._tasks.spawn
        )
        self.report = Report(metrics, open_reports=open_reports, tell=self._dispatcher.note, is_person=self._is_person)
        prune_report = PruneReport(self.report, metrics)
        queue = KeyedQueue(self._declared.states, Concurrency(clock), clock, waited=queue_waits(metrics))
        api = ApiClient(session, queue.answered)
        self._controller = Controller(
            self._declared, self._detector, api, self._kinds, self.report, self._schedule, queue, clock
        )
        self._desired = DesiredStateClient()
        self._inventory = Inventory(api, config.inventory.namespace)
        prune_wake = asyncio.Event()
        safeguards = PruneSafeguards(self._declared, clock, prune_wake.set, self._desired.poll, self._tasks.spawn)
        departures = DepartureReporter(self._declared, safeguards, prune_report)
        self._orphans = OrphanIndex(self._declared, clock, prune_wake.set, departures)
        event_handler = WatchEventHandler(
            self._declared, self._detector, self._controller, self._orphans, self._kinds, self.report
        )
        self._watches = Watches(session, event_handler)
        self._sync = Sync(
            self._declared,
            self._detector,
            self._controller,
            self._kinds,
            self._watches,
            event_handler,
            self._orphans,
            self._inventory,
            config.policies(),
            self.report,
            self._tasks.spawn,
        )
        self._audit = Audit(self._declared, self._detector, self._controller, self.report, config.drift.audit)
        self._windows = HealingWindows(self._schedule, open_reports, self._controller)
        self._in_force = AppliedState(self._detector)
        self._pruner = Pruner(
            self._declared,
            self._orphans,
            api,
            self._kinds,
            prune_report,
            safeguards,
            UnusedKinds(
                self._declared,
                self._orphans,
                self._inventory,
                self._watches,
                self._kinds,
                api,
                clock,
                self._sync.watch_left_kinds,
            ),
            prune_wake,
            clock,
            self._tasks.spawn,
        )
        self._render_inputs = RenderInputsWatch(session, discovery, self._desired.surround)
        self._sources = Sources(
            self._desired,
            self._declared,
            self._sync,
            safeguards,
            self._source_status,
            metrics,
            config.cluster.namespace,
            self._tasks.spawn,
        )
        absent = AbsentObjects(
            self._declared, self._detector, self._kinds, self._controller.blocked, self.report, self._watches.unsynced
        )
        recent = self._dispatcher.recent
        self._status = StatusBoard(
            self.report, self._source_status, subjects, recent, self._schedule, self._watches, self.missing, absent
        )
        self._hooks = Webhooks(self._desired.poll, metrics.webhooks)
        self.web = WebServer(metrics.registry, self.missing, config.server, self._hooks, self._status.document)
        bind(
            metrics,
            self.report,
            prune_report,
            self._controller,
            event_handler,
            self._watches,
            absent,
            lambda: not self.missing(),
            lambda: self._desired.restarts,
        )
        self._state: Path | None = None  # the cluster's state folder, once the cluster is reached
        self._following = asyncio.Lock()
        self._followed: Config | None = None  # the configuration that the desired-state process goes by
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
        state = await self._startup.run()
        self._inventory.keep_in(state / "inventory.json")
        self._in_force.keep_in(state / "in-force.msgpack")
        self._state = state
        self._tasks.spawn(self._render_inputs.run())
        await self._follow_newest()
        await self._desired.start()
        self._tasks.spawn(self._sources.run())
        self._tasks.spawn(self._kinds.run(self._sync.on_served))
        self._tasks.spawn(self._session.keep_warm())

    async def run(self, stop: asyncio.Event) -> None:
        """Heal until `stop` is set.

        Raises `CannotStart` when it cannot begin and waiting does not help, and the exception that made a part of the
        daemon crash: half a daemon that looks alive is worse than one that its supervisor starts again.
        """
        self._tasks.spawn(self._begin())
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        ends: set[asyncio.Future[Any]] = {stopped, self._tasks.crash}
        try:
            with memory.observe_pauses(self.metrics.gc_pauses.observe):
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._tasks.crash.done():
                raise self._tasks.crash.result()
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
        await self._tasks.cancel()
        await self._watches.close()
        self._hooks.close()
        await self._desired.stop()
        if self._began:
            await self._in_force.save()
        await self.web.stop()

    def missing(self) -> list[str]:
        """What keeps the daemon from being ready."""
        if self._state is None:
            return [f"API server: {self._startup.trouble}"]
        declared = set(self._declared.kinds)
        missing = list(self._sources.missing())
        if self._desired.trouble:
            missing.append(f"desired-state process: {self._desired.trouble}")
        missing += [
            f"watch of {kind}: {self.report.watch_trouble.get(kind) or 'not listed yet'}"
            for kind in self._watches.unsynced()
            if kind in declared  # a kind that is watched for orphans only does not count
        ]
        if not self._first_pass_done:
            missing.append("first snapshot: not yet applied")
        return missing

    def _is_person(self, manager: str) -> bool:
        """Whether people write under this field manager, by the configuration in force."""
        return self._detector.managers.is_interactive(manager)

    def _heals_drift(self) -> bool:
        return self._controller.heals_drift()

    async def _first_pass(self) -> None:
        await self._sources.await_first()
        await self._inventory.load(self._sources.names)
        self._began = True
        await self._sync.first_pass(self._in_force.load())
        self._first_pass_done = True
        self._tasks.spawn(self._in_force.run())
        self._tasks.spawn(self._audit.run())
        self._tasks.spawn(self._windows.run())
        self._tasks.spawn(self._pruner.run())
        memory.freeze()
        log.info(
            "first pass done",
            objects=len(self._detector.states),
            not_ready="; ".join(self.missing()) or None,
        )

    async def _learn_kinds(self, sources: set[str]) -> None:
        """Watch kinds of which a source may have left objects when it was followed before."""
        await self._inventory.load(sources)
        self._sync.watch_left_kinds()

    # --- Configuration -----------------------------------------------------------------------------------------------

    async def reload(self, config: Config) -> None:
        """Take in another configuration; changes of cluster, server, state and inventory need a restart.

        The newest configuration wins, however slow the start or the previous reload is. After an exception, some parts
        may have the new configuration and others the old one; the next reload brings all of them to its own.
        """
        for section in ("cluster", "server", "state", "inventory"):
            if getattr(config, section) != getattr(self._config, section):
                log.warning("this section counts after a restart only", section=section)
        known = set(self._inventory.sources())
        self._configure(config)
        if self._state is not None:  # otherwise the start does it
            await self._follow_newest()
            self._tasks.spawn(self._learn_kinds(set(self._sources.names) - known))
        log.info("configuration reloaded", sources=len(config.sources))

    def _configure(self, config: Config) -> None:
        """Bring every part within the process to this configuration, at the start and at each reload, in this order.

        Everything that the parts take is made first: when that fails, no part has changed.
        """
        names = [source.name for source in config.sources]
        managers, windows, policies, pruning = config.managers(), config.windows(), config.policies(), config.pruning()
        hooked = [
            HookedSource(source.name, source.revision, source.semver or "", source.webhook.secret())
            for source in config.sources
        ]
        specs = self._specs(config)

        self._config = config
        self._detector.configure(managers)
        self._schedule.configure(windows, config.drift.maxSnooze)
        self._audit.configure(config.drift.audit)
        self.metrics.follow(names)
        self._source_status.follow(set(names))
        self._status.follow(config.sources, self._session.server)
        self._hooks.follow(hooked)
        self._pruner.configure(pruning, policies)
        self._desired.expect(specs)
        self._sources.follow(names)
        self._sync.on_declared(self._declared.follow(names))
        self._sync.on_policies(policies)

    async def _follow_newest(self) -> None:
        """Bring the parts that wait for the cluster or for Git to the newest configuration, one caller at a time."""
        async with self._following:
            while self._followed is not self._config:
                config = self._config
                specs = self._specs(config)
                surroundings = await self._render_inputs.follow(specs)
                if self._config is not config:
                    continue  # overtaken: nothing of an old one reaches the desired-state process
                self._dispatcher.configure(config)
                await self._desired.surround(surroundings)
                await self._desired.watch(specs)
                self._followed = config

    def _specs(self, config: Config) -> list[SourceSpec]:
        """The sources as the desired-state process follows them; none before the cluster is reached."""
        if self._state is None:
            return []
        return [source.spec(self._state / "mirrors") for source in config.sources]
