"""Sends each drift event to its sinks: recent drifts, Kubernetes Events, the journal, receivers of notifications.

A failure of one sink affects no other. No reconcile waits for a sink.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.session import Session
from driftwatch.config import Config
from driftwatch.config import observe as settings
from driftwatch.metrics.registry import Metrics
from driftwatch.model import ObjectKey
from driftwatch.notify.journal import JournalWriter
from driftwatch.notify.kubernetes_events import Events
from driftwatch.notify.notifier import Notifier
from driftwatch.report.drift_event import DriftEvent, EventType
from driftwatch.report.object_lookup import ObjectLookup
from driftwatch.report.open_reports import OpenReports
from driftwatch.report.source_status import SourceStatusStore

RECENT = 200  # events kept for the status
RESTART = (1.0, 60.0)  # seconds until a crashed sink is started again, first and longest
STOP_GRACE = 1.0  # seconds at the end for the last notifications, and the same for the last journal lines

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

log = structlog.get_logger()


class Dispatcher:
    """Holds all sinks. `configure` starts and stops them, `stop` ends all.

    `busy` returns whether drift is being healed.
    """

    def __init__(
        self,
        open_reports: OpenReports,
        sources: SourceStatusStore,
        subjects: ObjectLookup,
        session: Session,
        metrics: Metrics,
        busy: Callable[[], bool],
        spawn: Spawn,
    ) -> None:
        self._open_reports = open_reports
        self._sources = sources
        self._subjects = subjects
        self._metrics = metrics
        self._spawn = spawn
        self.recent: deque[DriftEvent] = deque(maxlen=RECENT)
        self._events = Events(session, subjects, metrics, busy)
        self._events_task: asyncio.Task[None] | None = None
        self._journal: JournalWriter | None = None
        self._journal_config = settings.Journal()
        self._notifiers: dict[str, tuple[Notifier, asyncio.Task[None]]] = {}

    def configure(self, config: Config) -> None:
        """Start, change and stop sinks according to the configuration."""
        self._events.configure(enabled=config.events.enabled)
        if self._events_task is None:
            self._events_task = self._spawn(_supervise("events", self._events.run))
        if config.journal != self._journal_config:
            self._end_journal()
            self._journal_config = config.journal
            if config.journal.file is not None:
                self._journal = JournalWriter(config.journal.file, config.journal, self._metrics)
        self._follow_receivers({each.name: each for each in config.notifications})

    def note(self, seen: DriftEvent) -> None:
        """Send the event to every sink. Called on the event loop; does not block."""
        file, line = self._subjects.declared_at(seen.key)
        commit = self._sources.state(seen.source).commit
        seen = msgspec.structs.replace(seen, file=file, line=line, commit=commit)
        self.recent.append(seen)
        told: list[Callable[[DriftEvent], None]] = [self._events.note]
        if self._journal is not None:
            told.append(self._journal.note)
        told += [notifier.note for notifier, _ in self._notifiers.values()]
        for tell in told:
            try:
                tell(seen)
            except Exception:  # a bug in a sink must not fail the reconcile
                log.exception("something that happened could not be passed on")

    async def stop(self) -> None:
        """Send the waiting notifications and journal lines, each for at most `STOP_GRACE` seconds."""
        drains = [asyncio.ensure_future(notifier.drained()) for notifier, _ in self._notifiers.values()]
        if drains:
            _, late = await asyncio.wait(drains, timeout=STOP_GRACE)
            for drain in late:
                drain.cancel()
        if self._journal is not None:
            await asyncio.to_thread(self._journal.close, STOP_GRACE)

    def _is_open(self, key: ObjectKey, what: EventType) -> bool:
        """Whether the reported state of the object still holds."""
        report = self._open_reports.get(key)
        match what:
            case EventType.DRIFTED:
                return report.drift is not None
            case EventType.CONTESTED:
                return report.contested is not None
        return report.refusal is not None

    def _follow_receivers(self, wanted: dict[str, settings.Notification]) -> None:
        for name, (notifier, task) in list(self._notifiers.items()):
            if wanted.get(name) != notifier.config:
                task.cancel()
                notifier.forget()
                del self._notifiers[name]
        for name, config in wanted.items():
            if name not in self._notifiers:
                notifier = Notifier(config, self._metrics, self._is_open)
                self._notifiers[name] = (notifier, self._spawn(_supervise(f"receiver {name}", notifier.run)))

    def _end_journal(self) -> None:
        """Close the journal. Its thread writes the waiting lines."""
        if self._journal is not None:
            journal, self._journal = self._journal, None
            self._spawn(asyncio.to_thread(journal.close, STOP_GRACE))


async def _supervise(outlet: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the sink again after an unexpected exception: it must not end the daemon."""
    for failures in itertools.count(1):
        try:
            await run()
        except Exception:
            wait = backoff(failures, *RESTART)
            log.exception("telling of drift failed unexpectedly", outlet=outlet, next=f"started again in {wait:.1f} s")
            await asyncio.sleep(wait)
        else:
            return
