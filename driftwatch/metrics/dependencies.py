"""Metrics of the daemon's two dependencies: the API server, and Git with the sources."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from driftwatch.cluster.request_verbs import Verb

API_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
GIT_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
NO_ANSWER = "none"


class ApiMetrics:
    """Metrics of requests to the API server. Every verb starts at zero, so that the first request is an increase."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "driftwatch_api_requests",
            "Requests to the API server by the HTTP code of the answer, `none` without one; `dry_run` writes nothing.",
            ["verb", "code"],
            registry=registry,
        )
        self.duration = Histogram(
            "driftwatch_api_request_duration_seconds",
            "From a request to the end of the API server's answer; for a watch, to its beginning.",
            ["verb"],
            buckets=API_BUCKETS,
            registry=registry,
        )
        for verb in Verb:
            self.duration.labels(verb.value)
            for code in ("200", NO_ANSWER):
                self.requests.labels(verb.value, code)

    def asked(self, verb: Verb, code: int, seconds: float) -> None:
        """Count one finished request. `code` is the HTTP status, 0 without an answer."""
        self.requests.labels(verb.value, str(code) if code else NO_ANSWER).inc()
        self.duration.labels(verb.value).observe(seconds)


class SourceMetrics:
    """Metrics of Git, rendering and the snapshots of the sources."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.fetch = Histogram(
            "driftwatch_git_fetch_duration_seconds",
            "How long Git took to answer for the source, whether or not there was anything new.",
            ["source"],
            buckets=GIT_BUCKETS,
            registry=registry,
        )
        self.render = Histogram(
            "driftwatch_source_render_duration_seconds",
            "How long it took to make the source's snapshot of a new commit.",
            ["source"],
            buckets=GIT_BUCKETS,
            registry=registry,
        )
        self.commit = Gauge(
            "driftwatch_source_commit_info",
            "The commit that the source's snapshot is of; always 1.",
            ["source", "commit"],
            registry=registry,
        )
        self.commit_time = Gauge(
            "driftwatch_source_commit_timestamp_seconds",
            "When the commit that is in force came into force here.",
            ["source"],
            registry=registry,
        )
        self.snapshot_bytes = Gauge(
            "driftwatch_source_snapshot_bytes",
            "Size of the source's manifests in memory, as they are sent to the API server.",
            ["source"],
            registry=registry,
        )
        self._commits: dict[str, str] = {}

    def follow(self, source: str) -> None:
        """Create a source's series."""
        self.fetch.labels(source)
        self.render.labels(source)

    def forget(self, source: str) -> None:
        """Forget the commit of a removed source."""
        self._commits.pop(source, None)

    def snapshot(self, source: str, commit: str, now: float, size: int) -> None:
        """Record a source's snapshot: its commit, the time `now` in Unix seconds, and its `size` in bytes."""
        before = self._commits.get(source)
        if before != commit:
            if before is not None:
                self.commit.remove(source, before)
            self._commits[source] = commit
            self.commit.labels(source, commit).set(1)
            self.commit_time.labels(source).set(now)
        self.snapshot_bytes.labels(source).set(size)
