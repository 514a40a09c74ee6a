"""The part of the detail dashboard that is about the daemon's surroundings: API server, Git, who is told, capacity."""

from collections.abc import Sequence

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from grafana.frame import Section
from grafana.panels import GREEN, RED, bars, line, lines, listing, number
from grafana.queries import KIND, SOURCE, ours, quantile, rate, total


def api_server() -> Section:
    """Requests to the API server, their answers, and how long they took."""
    requests, seconds = "driftwatch_api_requests_total", "driftwatch_api_request_duration_seconds_bucket"
    return "API server", [
        lines(
            "Requests by verb",
            "What driftwatch asks of the API server; dry_run writes nothing.",
            line(rate(requests, ["verb"]), "{{verb}}"),
            unit="reqps",
            span=8,
            stacked=True,
        ),
        lines(
            "Answers by code",
            "HTTP codes of the answers; none where there was no answer.",
            line(rate(requests, ["code"]), "{{code}}"),
            unit="reqps",
            span=8,
            stacked=True,
        ),
        lines(
            "Time to answer, p99",
            "From a request to the end of the answer, by verb; for a watch, to its beginning.",
            line(quantile(0.99, seconds, ["verb"]), "{{verb}}"),
            unit="s",
            span=8,
            logarithmic=True,
        ),
    ]


def git() -> Section:
    """Sources: commits, fetching, rendering, failures and webhooks."""
    fetch = f"driftwatch_git_fetch_duration_seconds_bucket{{{SOURCE}}}"
    render = f"driftwatch_source_render_duration_seconds_bucket{{{SOURCE}}}"
    return "Git and sources", [
        listing(
            "Sources",
            "The commit of each source that is in force, since when, and how long ago Git last answered.",
            {
                "In force since": f"driftwatch_source_commit_timestamp_seconds{{{SOURCE}}} * 1000"
                " * on (job, instance, source) group_left (commit) driftwatch_source_commit_info",
                "Git answered": f"driftwatch_git_last_success_timestamp_seconds{{{SOURCE}}} * 1000"
                " * on (job, instance, source) group_left (commit) driftwatch_source_commit_info",
            },
            {"source": "Source", "commit": "Commit"},
            unit="dateTimeFromNow",
            span=12,
            height=8,
        ),
        lines(
            "Since Git last answered",
            "By source. The last good commit stays in force meanwhile.",
            line(f"time() - driftwatch_git_last_success_timestamp_seconds{{{SOURCE}}}", "{{source}}"),
            unit="s",
            steps=((None, GREEN), (900, RED)),
        ),
        lines(
            "Time for Git to answer, p95",
            "By source, whether or not there was anything new.",
            line(quantile(0.95, fetch, ["source"]), "{{source}}"),
            unit="s",
            span=8,
        ),
        lines(
            "Time to render a new commit, p95",
            "How long it took to make the source's snapshot: YAML, kustomize, Helm.",
            line(quantile(0.95, render, ["source"]), "{{source}}"),
            unit="s",
            span=8,
        ),
        bars(
            "Looks at Git that failed",
            "By source and reason; the last good snapshot stays in force.",
            line(total(f"driftwatch_git_failures_total{{{SOURCE}}}", ["source", "reason"]), "{{source}} {{reason}}"),
            span=8,
        ),
        lines(
            "Invalid manifests",
            "Documents that should be manifests and are not, by source; the last good version of each is in force. The "
            "log names file and line.",
            line(f"driftwatch_source_invalid_manifests{{{SOURCE}}}", "{{source}}"),
            line(
                total(f"driftwatch_snapshot_differences_total{{{SOURCE}}}", ["source"]),
                "{{source}} differing snapshots",
            ),
            steps=((None, GREEN), (1, RED)),
        ),
        bars(
            "Webhooks",
            "Requests to /hooks, by what became of them; of sources that there are none of as well.",
            line(total("driftwatch_webhooks_total", ["source", "result"]), "{{source}} {{result}}"),
        ),
    ]


def told() -> Section:
    """The audit, the configuration, and everybody who is told of drift."""
    return "Audit, configuration, and who is told", [
        lines(
            "Objects audited",
            "Objects that the audit has checked by a dry run.",
            line(rate(f"driftwatch_audited_objects_total{{{SOURCE}}}", ["source"]), "{{source}}"),
            unit="cps",
            span=8,
        ),
        bars(
            "Found by the audit alone",
            "Drift that no event had told of, by kind. It should stay at zero.",
            line(total(f"driftwatch_audit_findings_total{{{SOURCE}, {KIND}}}", ["kind"]), "{{kind}}"),
            span=8,
        ),
        bars(
            "Configuration read again",
            "By what became of it; after a failure the configuration before it stays in force.",
            line(total("driftwatch_config_reloads_total", ["result"]), "{{result}}"),
            words=("success", "failure"),
            span=8,
        ),
        bars(
            "Kubernetes Events",
            "Events about drift, by what became of them.",
            line(total("driftwatch_kubernetes_events_total", ["result"]), "{{result}}"),
            span=8,
        ),
        bars(
            "Notifications",
            "What receivers were to be told, by receiver and what became of it.",
            line(total("driftwatch_notifications_total", ["receiver", "result"]), "{{receiver}} {{result}}"),
            span=8,
        ),
        bars(
            "Lines of the journal",
            "By what became of them.",
            line(total("driftwatch_journal_lines_total", ["result"]), "{{result}}"),
            span=6,
        ),
        number(
            "Journal",
            "Whether the journal can be written; without one it is.",
            "min(driftwatch_journal_up)",
            steps=((None, RED), (1, GREEN)),
            words={"1": ("written", GREEN), "0": ("not written", RED)},
            empty="no daemon",
            span=2,
        ).height(8),
    ]


def capacity() -> Section:
    """What the daemon needs, and how much there is for it to do."""
    return "Capacity of the daemon", [
        lines(
            "Memory",
            "Resident memory of the daemon, by instance; the process that reads Git is not in it. The Pod's limit is "
            "for both.",
            line(ours("process_resident_memory_bytes"), "{{instance}}"),
            unit="bytes",
            span=8,
        ),
        lines(
            "CPU",
            "Cores that the daemon keeps busy, by instance; the process that reads Git is not in it.",
            line(
                "rate(process_cpu_seconds_total[$__rate_interval]) and on (job, instance) driftwatch_build_info",
                "{{instance}}",
            ),
            span=8,
        ),
        lines(
            "Open files",
            "File descriptors in use, and how many there may be.",
            line(ours("process_open_fds"), "open, {{instance}}"),
            line(ours("process_max_fds"), "limit, {{instance}}"),
            span=8,
            logarithmic=True,
        ),
        *_load(),
    ]


def _load() -> Sequence[Builder[Panel]]:
    return [
        lines(
            "Managed objects",
            "Objects that Git declares, by source.",
            line(f"sum by (source) (driftwatch_managed_objects{{{SOURCE}, {KIND}}})", "{{source}}"),
            span=8,
            stacked=True,
        ),
        lines(
            "Manifests in memory",
            "Size of each source's manifests, as they are sent to the API server.",
            line(f"driftwatch_source_snapshot_bytes{{{SOURCE}}}", "{{source}}"),
            unit="bytes",
            span=8,
            stacked=True,
        ),
        lines(
            "Series",
            "Samples that Prometheus takes in with each scrape, by instance.",
            line(ours("scrape_samples_scraped"), "{{instance}}"),
            span=8,
        ),
        lines(
            "Time to scrape",
            "How long Prometheus waits for /metrics, by instance.",
            line(ours("scrape_duration_seconds"), "{{instance}}"),
            unit="s",
            span=6,
        ),
        lines(
            "Stopped by garbage collection",
            "Share of the time in which full collections of garbage stopped everything else, by instance.",
            line("rate(driftwatch_gc_pause_seconds_sum[$__rate_interval])", "{{instance}}"),
            unit="percentunit",
            span=6,
        ),
        bars(
            "Restarts of the process that reads Git",
            "Times that it was started again after it had died or hung.",
            line(total("driftwatch_desired_process_restarts_total"), "restarts"),
            span=6,
        ),
        listing(
            "Daemons",
            "Which driftwatch runs where, and since when.",
            {
                "Since": "process_start_time_seconds * 1000"
                " * on (job, instance) group_left (version) driftwatch_build_info"
            },
            {"instance": "Instance", "version": "Version"},
            unit="dateTimeFromNow",
            span=6,
            height=8,
        ),
    ]
