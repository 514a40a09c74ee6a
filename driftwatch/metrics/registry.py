"""Registry of the exported metrics. Names and labels are stable, because alert rules and dashboards use them."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from driftwatch import __version__
from driftwatch.metrics.collectors import LiveMetrics
from driftwatch.metrics.dependencies import ApiMetrics, SourceMetrics
from driftwatch.metrics.fast_counter import FastCounter
from driftwatch.metrics.labels import UNKNOWN
from driftwatch.model import DriftType, GroupKind

HEAL_BUCKETS = (
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.02,
    0.03,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
)

# managedFields entries have a resolution of one second, so smaller buckets are meaningless.
LAG_BUCKETS = (1, 1.5, 2, 3, 5, 10, 30, 60, 300, 1800)
PAUSE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
WAIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)

GIT_REASONS = (
    "other",
    "corrupt",
    "credentials",
    "delivery",
    "disk",
    "identity",
    "path",
    "render",
    "repository",
    "revision",
    "signature",
    "timeout",
    "unreachable",
)
HOOK_RESULTS = ("polled", "ignored", "refused", "unavailable", "invalid")
RESULTS = ("success", "deferred", "failed")

STRAY_KEPT = 3600.0  # seconds for which what is counted of a place that Git does not declare can be scraped

PLACE = ("source", "kind", "namespace")
Place = tuple[str, GroupKind, str]
"""Source, kind and namespace of managed objects."""


class Metrics:
    """All metrics, in a registry of their own.

    The counters of a place start at zero when Git first declares an object there, so that an alert sees the first
    increase. They are removed when Git no longer declares an object there. What is counted there afterwards, mostly of
    orphans, can be scraped for an hour.
    """

    def __init__(self) -> None:
        # `_created` would add one series per counter, which Prometheus does not use by default.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.drift = FastCounter(
            "driftwatch_drift",
            "Differences from Git that the cluster did not get from us, by how they differ, under which field manager "
            "they were made, and by what kind of actor: person, controller or unknown.",
            ["source", "kind", "namespace", "type", "manager", "actor"],
            registry=self.registry,
        )
        self.heals = FastCounter(
            "driftwatch_heals",
            "Attempts to put an object back, by what became of them.",
            ["source", "kind", "namespace", "result"],
            registry=self.registry,
        )
        self.heal_duration = Histogram(
            "driftwatch_heal_duration_seconds",
            "From the arrival of the watch event to the API server's answer to the apply that healed the drift.",
            buckets=HEAL_BUCKETS,
            registry=self.registry,
        )
        self.detection_lag = Histogram(
            "driftwatch_detection_lag_seconds",
            "From a change, as its entry in managedFields dates it (whole seconds, so up to one second too much), to "
            "the arrival of its watch event. Deletions have no such entry.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.retries = Counter(
            "driftwatch_heal_retries",
            "Tries that were put off because the API server refused, by what the refusal meant.",
            ["source", "kind", "outcome"],
            registry=self.registry,
        )
        self.queue_wait = Histogram(
            "driftwatch_queue_wait_seconds",
            "How long an object waited to be worked on, by priority.",
            ["priority"],
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self.prunes = FastCounter(
            "driftwatch_prunes",
            "Objects that left Git and were deleted (success), and deletions that the API server refused (failed).",
            ["source", "kind", "namespace", "result"],
            registry=self.registry,
        )
        self.prune_held = Gauge(
            "driftwatch_prune_held_objects",
            "Objects that left Git and are not deleted until something is mended or confirmed, by what holds them.",
            ["source", "reason"],
            registry=self.registry,
        )
        self.snoozes = FastCounter(
            "driftwatch_snoozes",
            "Times that a live object asked not to be healed for a while.",
            ["source", "kind", "namespace"],
            registry=self.registry,
        )
        self.audited = Counter(
            "driftwatch_audited_objects",
            "Objects that the audit has checked by a dry run.",
            ["source"],
            registry=self.registry,
        )
        self.audit_findings = Counter(
            "driftwatch_audit_findings",
            "Drift that the audit found and no event had told of; it should stay at zero.",
            ["source", "kind"],
            registry=self.registry,
        )
        self.gc_pauses = Histogram(
            "driftwatch_gc_pause_seconds",
            "How long full collections of garbage stopped everything else.",
            buckets=PAUSE_BUCKETS,
            registry=self.registry,
        )
        self.config_reloads = Counter(
            "driftwatch_config_reloads",
            "Times that the configuration was read again, by what became of it.",
            ["result"],
            registry=self.registry,
        )
        self.managed = Gauge(
            "driftwatch_managed_objects",
            "Objects that Git declares.",
            ["source", "kind"],
            registry=self.registry,
        )
        self.watch_up = Gauge(
            "driftwatch_watch_up",
            "1 while the watch of the kind is open and complete, else 0.",
            ["kind"],
            registry=self.registry,
        )
        self.git_success = Gauge(
            "driftwatch_git_last_success_timestamp_seconds",
            "When Git last answered for the source.",
            ["source"],
            registry=self.registry,
        )
        self.git_failures = Counter(
            "driftwatch_git_failures",
            "Looks at the source's repository that failed, by why; the last good snapshot stays in force.",
            ["source", "reason"],
            registry=self.registry,
        )
        self.webhooks = Counter(
            "driftwatch_webhooks",
            "Requests to /hooks, by what became of them; a source that there is none of has the empty name.",
            ["source", "result"],
            registry=self.registry,
        )
        self.invalid_manifests = Gauge(
            "driftwatch_source_invalid_manifests",
            "Documents of the source that should be manifests and are not; the last good version of each is in force.",
            ["source"],
            registry=self.registry,
        )
        self.snapshot_differences = Counter(
            "driftwatch_snapshot_differences",
            "Snapshots of the source that arrived otherwise than Git declares them; each is asked for again.",
            ["source"],
            registry=self.registry,
        )
        self.events = Counter(
            "driftwatch_kubernetes_events",
            "Kubernetes Events about drift, by what became of them.",
            ["result"],
            registry=self.registry,
        )
        self.journal_lines = Counter(
            "driftwatch_journal_lines",
            "Lines of the journal, by what became of them.",
            ["result"],
            registry=self.registry,
        )
        self.journal_up = Gauge(
            "driftwatch_journal_up",
            "1 while the journal can be written or there is none, 0 while its disk is full or refuses.",
            registry=self.registry,
        )
        self.notifications = Counter(
            "driftwatch_notifications",
            "What receivers of notifications were to be told, by what became of it.",
            ["receiver", "result"],
            registry=self.registry,
        )
        self.journal_up.set(1)
        for result in ("written", "dropped"):  # from zero, so that rate() sees the first
            self.journal_lines.labels(result)
        for result in ("written", "aggregated", "dropped", "refused"):
            self.events.labels(result)
        build = Gauge(
            "driftwatch_build_info",
            "Which driftwatch this is; always 1.",
            ["version"],
            registry=self.registry,
        )
        build.labels(__version__).set(1)
        for result in ("success", "failure"):
            self.config_reloads.labels(result)
        self.live = LiveMetrics(self.registry)
        self.api = ApiMetrics(self.registry)
        self.sources = SourceMetrics(self.registry)
        self._places: set[Place] = set()
        self._strays: dict[tuple[str, ...], float] = {}  # places that have counters and are not declared, since when
        self._kinds: set[tuple[str, GroupKind]] = set()
        self._followed: set[str] = set()

    def follow(self, sources: Iterable[str]) -> None:
        """Replace the set of sources. Creates series of new sources and removes those of others."""
        followed = set(sources)
        for gone in self._followed - followed:
            self._remove(source=gone)
            self.sources.forget(gone)
        for source in followed - self._followed:
            self.sources.follow(source)
            self.audited.labels(source)
            self.invalid_manifests.labels(source)
            self.snapshot_differences.labels(source)
            for result in HOOK_RESULTS:
                self.webhooks.labels(source, result)
            for reason in GIT_REASONS:
                self.git_failures.labels(source, reason)
        self._followed = followed

    def set_managed(self, counts: Mapping[Place, int]) -> None:
        """Set the number of declared objects per place. Removes the series of places that are gone."""
        self._remove_places(
            {(source, str(kind), namespace) for source, kind, namespace in self._places - counts.keys()}
        )
        for source, kind, namespace in counts.keys() - self._places:
            for result in RESULTS:
                self.heals.labels(source, str(kind), namespace, result)
            # A deletion has no manager, so these label values are known in advance.
            self.drift.labels(source, str(kind), namespace, str(DriftType.DELETED), UNKNOWN, UNKNOWN)
        self._places = set(counts)
        self._remove_strays()
        totals: dict[tuple[str, GroupKind], int] = {}
        for (source, kind, _), count in counts.items():
            totals[source, kind] = totals.get((source, kind), 0) + count
        for source, kind in self._kinds - totals.keys():
            self._remove(source=source, kind=str(kind))
        for (source, kind), count in totals.items():
            if (source, kind) not in self._kinds:
                self.audit_findings.labels(source, str(kind))
            self.managed.labels(source, str(kind)).set(count)
        self._kinds = set(totals)

    def watch_gone(self, kind: GroupKind) -> None:
        """Remove the series of a kind that is no longer watched."""
        self.watch_up.remove(str(kind))

    def _remove_strays(self) -> None:
        """Remove what was counted outside of every declared place, some time after it was counted first."""
        now = monotonic()
        for counter in (self.drift, self.heals, self.prunes, self.snoozes):
            for values in counter.take_new():
                self._strays.setdefault(values[: len(PLACE)], now)
        if self._strays:
            declared = {(source, str(kind), namespace) for source, kind, namespace in self._places}
            self._strays = {place: since for place, since in self._strays.items() if place not in declared}
            over = {place for place, since in self._strays.items() if now - since >= STRAY_KEPT}
            self._remove_places(over)
            for place in over:
                del self._strays[place]

    def _remove(self, **labels: str) -> None:
        """Remove every series with these label values, in all families that have all of these labels."""
        for family in self._labelled():
            names = _names(family)
            if not set(labels) <= set(names):
                continue
            if isinstance(family, FastCounter):
                family.remove(partial(_have, [(names.index(name), value) for name, value in labels.items()]))
            else:
                family.remove_by_labels(labels)

    def _remove_places(self, gone: AbstractSet[tuple[str, ...]]) -> None:
        """Remove the series of these places, in one pass over each family."""
        if not gone:
            return
        for family in self._labelled():
            if _names(family)[:3] != PLACE:
                continue
            if isinstance(family, FastCounter):
                family.remove(lambda values: values[:3] in gone)
            else:
                for place in gone:
                    family.remove_by_labels(dict(zip(PLACE, place, strict=True)))

    def _labelled(self) -> Iterator[MetricWrapperBase | FastCounter]:
        for holder in (self, self.api, self.sources):
            yield from (
                family for family in vars(holder).values() if isinstance(family, MetricWrapperBase | FastCounter)
            )


def _have(wanted: list[tuple[int, str]], values: tuple[str, ...]) -> bool:
    return all(values[at] == value for at, value in wanted)


def _names(family: MetricWrapperBase | FastCounter) -> tuple[str, ...]:
    if isinstance(family, FastCounter):
        return family.label_names
    return tuple(family._labelnames)  # noqa: SLF001  the library has no public access to them
