"""The second dashboard: every part of the daemon, for whoever wants to know why."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from grafana.frame import DETAIL, Section, assembled
from grafana.panels import GREEN, ORANGE, RED, bars, heat, line, lines, listing, number, states
from grafana.queries import KIND, PLACE, SOURCE, ours, quantile, rate, total

OBJECT = {"source": "Source", "kind": "Kind", "namespace": "Namespace", "name": "Name"}
SEEN = (
    f"(driftwatch_watch_last_bookmark_timestamp_seconds{{{KIND}}}"
    f" > driftwatch_watch_last_event_timestamp_seconds{{{KIND}}}"
    f" or driftwatch_watch_last_event_timestamp_seconds{{{KIND}}}"
    f" or driftwatch_watch_last_bookmark_timestamp_seconds{{{KIND}}})"
)


def dashboard() -> Dashboard:
    """Every part of the daemon."""
    sections: list[Section] = [
        _healing(),
        _kept_from_healing(),
        _queue(),
        _watches(),
        _api_server(),
        _git(),
        _told(),
        _capacity(),
    ]
    return assembled(
        DETAIL,
        "Healing, queue, watches, API server, Git, audit, notifications and capacity of driftwatch.",
        sections,
    )


def _healing() -> Section:
    seconds, lag = "driftwatch_heal_duration_seconds_bucket", "driftwatch_detection_lag_seconds_bucket"
    return "Healing", [
        heat(
            "Time to heal",
            "How many heals took how long, from the arrival of the watch event to the API server's answer. "
            "All sources.",
            f"sum by (le) (increase({seconds}[$__interval]))",
            unit="s",
        ),
        lines(
            "From a change to its event",
            "Between the time that managedFields gives a change and the arrival of its watch event. That time has "
            "whole seconds: up to one second is rounding. Deletions have no such time. All sources.",
            line(quantile(0.5, lag), "median"),
            line(quantile(0.99, lag), "p99"),
            unit="s",
        ),
        bars(
            "Drift by kind",
            "Differences from Git that the cluster did not get from driftwatch, by kind and how they differ.",
            line(total(f"driftwatch_drift_total{{{PLACE}}}", ["kind", "type"]), "{{kind}} {{type}}"),
            span=8,
        ),
        bars(
            "Heals by kind",
            "Attempts to put an object back, by kind and result.",
            line(total(f"driftwatch_heals_total{{{PLACE}}}", ["kind", "result"]), "{{kind}} {{result}}"),
            span=8,
        ),
        bars(
            "Tries put off",
            "Tries that were put off because the API server refused, by what the refusal meant.",
            line(total(f"driftwatch_heal_retries_total{{{SOURCE}, {KIND}}}", ["verdict"]), "{{verdict}}"),
            span=8,
        ),
    ]


def _kept_from_healing() -> Section:
    return "What is kept from being healed or pruned", [
        lines(
            "Refused objects",
            "Objects whose last apply the API server refused, by what that means. failed and immutable need somebody.",
            line(f"sum by (verdict) (driftwatch_refused_objects{{{PLACE}}})", "{{verdict}}"),
            span=8,
            stacked=True,
        ),
        lines(
            "Contested and snoozed objects",
            "Objects that somebody changes again and again, and objects that ask not to be healed.",
            line(f"sum(driftwatch_contested_objects{{{PLACE}}})", "contested"),
            line(f"sum(driftwatch_snoozed_objects{{{PLACE}}})", "snoozed"),
            span=8,
        ),
        bars(
            "Snoozes",
            "Times that a live object asked not to be healed for a while, by kind.",
            line(total(f"driftwatch_snoozes_total{{{PLACE}}}", ["kind"]), "{{kind}}"),
            span=8,
        ),
        listing(
            "Snoozed now",
            "Objects that ask not to be healed, who asked, and until when: the hundred that do for longest.",
            {"Until": f"driftwatch_object_snoozed_until_timestamp_seconds{{{PLACE}}} * 1000"},
            {**OBJECT, "manager": "Manager"},
            unit="dateTimeFromNow",
            span=12,
            height=8,
            descending=False,
        ),
        listing(
            "Orphaned now",
            "Objects of ours that have left Git and are still there, since when. `driftwatch diff` says why.",
            {"Since": f'driftwatch_object_drifted_since_timestamp_seconds{{{PLACE}, type="orphaned"}} * 1000'},
            OBJECT,
            unit="dateTimeFromNow",
            span=12,
            height=8,
            descending=False,
        ),
        bars(
            "Pruned",
            "Objects that left Git and were deleted (success), and deletions that the API server refused (failed).",
            line(total(f"driftwatch_prunes_total{{{PLACE}}}", ["result"]), "{{result}}"),
            words=("success", "failed"),
            span=8,
        ),
        lines(
            "Held back from pruning",
            "Objects that left Git and are not deleted until something is mended or confirmed, by what holds them.",
            line(f"sum by (reason) (driftwatch_prune_held_objects{{{SOURCE}}})", "{{reason}}"),
            span=8,
            stacked=True,
        ),
        lines(
            "Waiting for their namespace or kind",
            "Objects that cannot be applied before something else is there.",
            line("sum by (waits_for) (driftwatch_parked_objects)", "{{waits_for}}"),
            span=8,
            stacked=True,
        ),
    ]


def _queue() -> Section:
    wait = "driftwatch_queue_wait_seconds_bucket"
    return "Queue", [
        lines(
            "Objects that wait",
            "Objects that wait to be worked on, by lane: drift goes before sync (new commits, first passes).",
            line("sum by (lane) (driftwatch_queue_keys)", "{{lane}}"),
            span=8,
        ),
        lines(
            "Objects that are worked on",
            "Requests about as many objects are under way.",
            line("sum(driftwatch_queue_in_progress)", "in progress"),
            span=8,
        ),
        lines(
            "Time in the queue, p99",
            "How long an object waited to be worked on, by lane.",
            line(quantile(0.99, wait, ["lane"]), "{{lane}}"),
            unit="s",
            span=8,
        ),
    ]


def _watches() -> Section:
    events = f"driftwatch_watch_events_total{{{KIND}}}"
    return "Watches", [
        states(
            "State",
            "Whether the watch of each kind is open and complete.",
            line(f"min by (kind) (driftwatch_watch_up{{{KIND}}})", "{{kind}}"),
            {"1": ("open", GREEN), "0": ("down", RED)},
        ),
        lines(
            "Silent for",
            "Since the last event or bookmark of each watch, whichever came later. Bookmarks come about every minute; "
            "a watch that is silent for 75 s is opened anew.",
            line(f"time() - max by (kind) {SEEN}", "{{kind}}"),
            unit="s",
            steps=((None, GREEN), (75, ORANGE), (300, RED)),
        ),
        lines(
            "Events by what they meant",
            "in_sync, stale and unmanaged cost nothing further.",
            line(rate(events, ["outcome"]), "{{outcome}}"),
            unit="cps",
            stacked=True,
        ),
        bars(
            "Why watches ended",
            "Times that a watch was opened again, by why the one before ended. ended is its clean end after minutes.",
            line(total(f"driftwatch_watch_restarts_total{{{KIND}}}", ["reason"]), "{{reason}}"),
        ),
    ]


def _api_server() -> Section:
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


def _git() -> Section:
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
            steps=((None, GREEN), (1, RED)),
        ),
        bars(
            "Webhooks",
            "Requests to /hooks, by what became of them; of sources that there are none of as well.",
            line(total("driftwatch_webhooks_total", ["source", "result"]), "{{source}} {{result}}"),
        ),
    ]


def _told() -> Section:
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


def _capacity() -> Section:
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
