"""Metric families whose samples are computed at scrape time.

The hot path uses plain integers and dictionaries. Samples are created from them only for a scrape. A removed entry is
missing in the next scrape, so no series outlives its object.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

Reading = Iterable[tuple[Sequence[str], float]]
"""Pairs of label values, in the order of the family's labels, and the sample's value."""


class CallbackMetric:
    """One metric family. `read` returns its samples; the default returns none."""

    def __init__(
        self,
        family: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._family = family
        self._name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self.read: Callable[[], Reading] = tuple
        registry.register(self)

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the family without samples, so that the registry reserves its name."""
        yield self._family(self._name, self._documentation, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the family with its current samples."""
        family = self._family(self._name, self._documentation, labels=self._labels)
        for labels, value in self.read():
            family.add_metric(labels, value)
        yield family


class LiveMetrics:
    """All families that are computed at scrape time. `report.metrics_binding` sets their `read` functions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, documentation: str, *labels: str) -> CallbackMetric:
            return CallbackMetric(GaugeMetricFamily, name, documentation, labels, registry)

        def counter(name: str, documentation: str, *labels: str) -> CallbackMetric:
            return CallbackMetric(CounterMetricFamily, name, documentation, labels, registry)

        self.ready = gauge("driftwatch_ready", "1 when /readyz says so, else 0.")
        self.drifted = gauge(
            "driftwatch_drifted_objects",
            "Objects that differ from Git now. An edited one whose healing is refused is among the refused ones only.",
            "source",
            "kind",
            "namespace",
        )
        self.refused = gauge(
            "driftwatch_refused_objects",
            "Objects whose last apply the API server refused, by what that means: `failed` needs somebody, the others "
            "wait for an event or are tried again soon.",
            "source",
            "kind",
            "namespace",
            "outcome",
        )
        self.orphaned = gauge(
            "driftwatch_orphaned_objects",
            "Objects with a source's label that no snapshot declares: left in the cluster now.",
            "source",
            "kind",
            "namespace",
        )
        self.absent = gauge(
            "driftwatch_absent_objects",
            "Declared objects that driftwatch does not see in the cluster, by why. `declared_twice`: the manifest of "
            "another source is in force.",
            "source",
            "kind",
            "reason",
        )
        self.snoozed = gauge(
            "driftwatch_snoozed_objects", "Objects that ask not to be healed now.", "source", "kind", "namespace"
        )
        self.snoozed_until = gauge(
            "driftwatch_object_snoozed_until_timestamp_seconds",
            "Until when an object asks not to be healed, by name, with who asked; the hundred that do for longest.",
            "source",
            "kind",
            "namespace",
            "name",
            "manager",
        )
        self.contested = gauge(
            "driftwatch_contested_objects",
            "Objects that somebody changes again and again: five heals a minute or more.",
            "source",
            "kind",
            "namespace",
        )
        self.contested_objects = gauge(
            "driftwatch_object_contested",
            "An object that is contested, by name, with who changes it; always 1, and a hundred at most.",
            "source",
            "kind",
            "namespace",
            "name",
            "manager",
        )
        self.drifted_since = gauge(
            "driftwatch_object_drifted_since_timestamp_seconds",
            "Since when an object differs from Git, by name; the hundred that have for longest.",
            "source",
            "kind",
            "namespace",
            "name",
            "type",
            "manager",
        )
        self.drift_time = gauge(
            "driftwatch_object_drift_timestamp_seconds",
            "When an object was last found to differ, healed or not, by name, for an hour: deleted namespaces, what "
            "persons changed, and all else, a hundred of each; of more, the oldest of the source's namespace that has "
            "most goes.",
            "source",
            "kind",
            "namespace",
            "name",
            "type",
            "manager",
            "actor",
        )
        self.refused_since = gauge(
            "driftwatch_object_refused_since_timestamp_seconds",
            "Since when every apply of an object was refused, by name; the hundred that have been for longest.",
            "source",
            "kind",
            "namespace",
            "name",
            "outcome",
        )
        self.queue = gauge("driftwatch_queue_keys", "Objects that wait to be worked on, by priority.", "priority")
        self.working = gauge("driftwatch_queue_in_progress", "Objects that are worked on now.")
        self.concurrency = gauge(
            "driftwatch_heal_concurrency_limit",
            "Objects of a priority that may be written at the same time now, by how the API server answers; 0 while it "
            "has asked to be left alone.",
            "priority",
        )
        self.concurrency_cuts = counter(
            "driftwatch_heal_concurrency_cuts",
            "Times that fewer objects were let be written at the same time: the API server asked to be left alone "
            "(`throttled`), failed on many objects at once (`overload`), or was slower than it had been (`latency`).",
            "reason",
        )
        self.parked = gauge(
            "driftwatch_parked_objects", "Objects that wait for their namespace, or for their kind.", "waits_for"
        )
        self.watch_events = counter(
            "driftwatch_watch_events",
            "Events of the watch, by what they meant: most are no drift.",
            "kind",
            "verdict",
        )
        self.watch_restarts = counter(
            "driftwatch_watch_restarts",
            "Times that the watch was opened again, by why the one before ended: `ended` is its clean end after some "
            "minutes.",
            "kind",
            "reason",
        )
        self.watch_event_time = gauge(
            "driftwatch_watch_last_event_timestamp_seconds", "When the watch last brought an event.", "kind"
        )
        self.watch_bookmark_time = gauge(
            "driftwatch_watch_last_bookmark_timestamp_seconds",
            "When the watch last brought a bookmark, which the API server sends about every minute.",
            "kind",
        )
        self.process_restarts = counter(
            "driftwatch_desired_process_restarts",
            "Times that the desired-state process was started again after it had died or hung.",
        )
