"""Connects the metrics that are read at a scrape with the parts of the daemon."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from heapq import nlargest, nsmallest
from itertools import islice
from operator import itemgetter

from driftwatch.cluster.reflector import WatchEndReason
from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.object_state import Verdict
from driftwatch.metrics.collectors import Reading
from driftwatch.metrics.registry import Metrics
from driftwatch.model import ObjectKey, Priority
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.event_handler import WatchEventHandler
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.report.absent import AbsentObjects
from driftwatch.report.drift_report import Report
from driftwatch.report.prune_report import PruneReport
from driftwatch.report.recent import KEPT_SECONDS

NAMED_OBJECTS = 100
"""Most objects with a named series in one metric family. The gauges without names count all objects."""


def bind(
    metrics: Metrics,
    report: Report,
    orphans: PruneReport,
    controller: Controller,
    event_handler: WatchEventHandler,
    watches: Watches,
    absent: AbsentObjects,
    ready: Callable[[], bool],
    process_restarts: Callable[[], int],
) -> None:
    """Connect every live metric family with the part of the daemon that has its values."""
    live = metrics.live
    live.ready.read = lambda: [((), float(ready()))]
    live.process_restarts.read = lambda: [((), float(process_restarts()))]
    _bind_objects(metrics, report, orphans)
    live.absent.read = lambda: _counted((each.source, str(each.key.group_kind), each.reason) for each in absent)
    _bind_queue(metrics, controller)
    live.watch_events.read = lambda: _watch_events(event_handler, watches)
    live.watch_restarts.read = lambda: _watch_restarts(watches)
    live.watch_event_time.read = lambda: _times(
        (str(kind), watch.last_event) for kind, watch in watches.of_kinds.items()
    )
    live.watch_bookmark_time.read = lambda: _times(
        (str(kind), watch.last_bookmark) for kind, watch in watches.of_kinds.items()
    )


def queue_waits(metrics: Metrics) -> Callable[[Priority, float], None]:
    """Return the queue's callback for each taken key. It observes the seconds that a key of the priority waited."""
    waits = {priority: metrics.queue_wait.labels(priority.name.lower()) for priority in Priority}
    return lambda priority, seconds: waits[priority].observe(seconds)


def _bind_objects(metrics: Metrics, report: Report, orphans: PruneReport) -> None:
    live = metrics.live
    opened = report.open
    live.drifted.read = lambda: _counted(_place(each.drift.source, key) for key, each in opened.drifts())
    live.snoozed.read = lambda: _counted(_place(snooze.source, key) for key, snooze in opened.snoozes())
    live.snoozed_until.read = lambda: _snoozed_until(report)
    live.refused.read = lambda: _counted(
        (*_place(refusal.source, key), str(refusal.outcome)) for key, refusal in opened.refusals()
    )
    live.contested.read = lambda: _counted(_place(fight.source, key) for key, fight in opened.contested())
    live.orphaned.read = lambda: _counted(_place(source, key) for key, source in orphans.orphans())
    live.contested_objects.read = lambda: _contested(report)
    live.drifted_since.read = lambda: _drifted_since(report)
    live.drift_time.read = lambda: _latest(report)
    live.refused_since.read = lambda: _refused_since(report)


def _bind_queue(metrics: Metrics, controller: Controller) -> None:
    live, queue = metrics.live, controller.queue
    live.queue.read = lambda: _waiting(queue)
    live.working.read = lambda: [((), float(queue.in_flight))]
    concurrency = controller.concurrency
    live.concurrency.read = lambda: [
        ((priority.name.lower(),), 0.0 if concurrency.pause() else float(concurrency.limit(priority)))
        for priority in Priority
    ]
    live.concurrency_cuts.read = lambda: [((str(cut),), float(count)) for cut, count in concurrency.cuts.items()]
    live.parked.read = lambda: [((what,), float(count)) for what, count in controller.blocked.counts.items()]


def _waiting(queue: KeyedQueue) -> Reading:
    waiting = queue.waiting
    return [((priority.name.lower(),), float(waiting[priority])) for priority in Priority]


def _place(source: str, key: ObjectKey) -> tuple[str, ...]:
    return source, str(key.group_kind), key.namespace


def _counted(labels: Iterable[tuple[str, ...]]) -> Reading:
    return [(each, float(count)) for each, count in Counter(labels).items()]


def _drifted_since(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, opened in nsmallest(NAMED_OBJECTS, report.open.drifts(), key=lambda item: item[1].since):
        drift, manager = opened.drift, report.manager_label(opened.drift.manager)
        yield (*_place(drift.source, key), key.name, str(drift.type), manager), opened.since


def _latest(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
    for when, drift, actor in report.latest.since(time.time() - KEPT_SECONDS):
        key, manager = drift.key, report.manager_label(drift.manager)
        yield (*_place(drift.source, key), key.name, str(drift.type), manager, actor), when


def _contested(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, fight in islice(report.open.contested(), NAMED_OBJECTS):
        yield (*_place(fight.source, key), key.name, report.manager_label(fight.manager)), 1.0


def _snoozed_until(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
    ends = ((key, snooze, datetime.fromisoformat(snooze.until).timestamp()) for key, snooze in report.open.snoozes())
    for key, snooze, end in nlargest(NAMED_OBJECTS, ends, key=itemgetter(2)):
        yield (*_place(snooze.source, key), key.name, report.manager_label(snooze.by)), end


def _refused_since(report: Report) -> Iterator[tuple[tuple[str, ...], float]]:
    longest = nsmallest(NAMED_OBJECTS, report.open.refusals(), key=lambda item: item[1].since)
    for key, refusal in longest:
        yield (*_place(refusal.source, key), key.name, str(refusal.outcome)), refusal.since


def _watch_events(event_handler: WatchEventHandler, watches: Watches) -> Iterator[tuple[tuple[str, ...], float]]:
    for kind in watches.kinds:
        counts = event_handler.verdicts.get(kind) or Counter[Verdict]()
        for verdict in Verdict:
            yield (str(kind), str(verdict)), float(counts[verdict])


def _watch_restarts(watches: Watches) -> Iterator[tuple[tuple[str, ...], float]]:
    for kind, watch in watches.of_kinds.items():
        endings = watch.endings
        for ending in WatchEndReason:
            yield (str(kind), str(ending)), float(endings[ending])


def _times(times: Iterable[tuple[str, float]]) -> Reading:
    """The times, without those of watches that have received nothing yet."""
    return [((kind,), when) for kind, when in times if when]
