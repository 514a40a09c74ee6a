"""The metrics that driftwatch exports. Names and labels are fixed: alert rules and dashboards rely on them."""

from collections import Counter as Tally
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from driftwatch import __version__
from driftwatch.model import GroupKind, ObjectKey

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

Series = tuple[str, str, str]


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        # Each would be one more series for every counter, of no use to a Prometheus that does not ask for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.drift = Counter(
            "driftwatch_drift",
            "Differences from Git that the cluster did not get from us, by how they differ and who caused them.",
            ["source", "kind", "namespace", "type", "manager"],
            registry=self.registry,
        )
        self.heals = Counter(
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
        self.drifted = Gauge(
            "driftwatch_drifted_objects",
            "Objects that differ from Git now.",
            ["source", "kind", "namespace"],
            registry=self.registry,
        )
        self.contested = Gauge(
            "driftwatch_contested_objects",
            "Objects that somebody changes again and again: five heals a minute or more.",
            ["source", "kind", "namespace"],
            registry=self.registry,
        )
        self.orphaned = Gauge(
            "driftwatch_orphaned_objects",
            "Objects with a source's label that no snapshot declares: left in the cluster now.",
            ["source", "kind", "namespace"],
            registry=self.registry,
        )
        self.prunes = Counter(
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
        self.snoozes = Counter(
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
        self._drifted: Tally[Series] = Tally()
        self._contested: Tally[Series] = Tally()
        self._managed: set[tuple[str, str]] = set()

    def count_drifted(self, key: ObjectKey, source: str, by: int) -> None:
        """One object more (`by` 1) or less (-1) that differs from Git now."""
        series = (source, str(key.group_kind), key.namespace)
        self._drifted[series] += by
        self.drifted.labels(*series).set(self._drifted[series])

    def count_contested(self, key: ObjectKey, source: str, by: int) -> None:
        """One object more (`by` 1) or less (-1) that is contested; the series of the last one goes."""
        series = (source, str(key.group_kind), key.namespace)
        self._contested[series] += by
        if self._contested[series]:
            self.contested.labels(*series).set(self._contested[series])
        else:
            self.contested.remove(*series)

    def set_managed(self, counts: dict[tuple[str, GroupKind], int]) -> None:
        """How many objects each source declares of each kind; series of what is gone are removed."""
        series = {(source, str(kind)) for source, kind in counts}
        for gone in self._managed - series:
            self.managed.remove(*gone)
        self._managed = series
        for (source, kind), count in counts.items():
            self.managed.labels(source, str(kind)).set(count)

    def source_gone(self, source: str) -> None:
        """The configuration has the source no more."""
        for gauge in (self.git_success, self.invalid_manifests):
            with suppress(KeyError):  # it was never read
                gauge.remove(source)
        for counter in (self.git_failures, self.webhooks):
            counter.remove_by_labels({"source": source})

    def watch_gone(self, kind: GroupKind) -> None:
        """The kind is not watched any more."""
        with suppress(KeyError):  # it never came up
            self.watch_up.remove(str(kind))
