"""The second dashboard: every part of the daemon, for whoever wants to know why."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from grafana import surroundings
from grafana.frame import DETAIL, Section, assembled
from grafana.panels import GREEN, ORANGE, RED, bars, heat, line, lines, listing, states
from grafana.queries import KIND, PLACE, SOURCE, quantile, rate, total

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
        surroundings.api_server(),
        surroundings.git(),
        surroundings.told(),
        surroundings.capacity(),
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
            line(total(f"driftwatch_heal_retries_total{{{SOURCE}, {KIND}}}", ["outcome"]), "{{outcome}}"),
            span=8,
        ),
    ]


def _kept_from_healing() -> Section:
    return "What is kept from being healed or pruned", [
        lines(
            "Refused objects",
            "Objects whose last apply the API server refused, by what that means. failed and immutable need somebody.",
            line(f"sum by (outcome) (driftwatch_refused_objects{{{PLACE}}})", "{{outcome}}"),
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
        *_left(),
    ]


def _left() -> Sequence[Builder[Panel]]:
    return [
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
            span=6,
        ),
        lines(
            "Held back from pruning",
            "Objects that left Git and are not deleted until something is mended or confirmed, by what holds them.",
            line(f"sum by (reason) (driftwatch_prune_held_objects{{{SOURCE}}})", "{{reason}}"),
            span=6,
            stacked=True,
        ),
        lines(
            "Absent",
            "Declared objects that are not seen in the cluster, by why; `driftwatch status` names them.",
            line(f"sum by (reason) (driftwatch_absent_objects{{{SOURCE}, {KIND}}})", "{{reason}}"),
            span=6,
            stacked=True,
        ),
        lines(
            "Waiting for their namespace or kind",
            "Objects that cannot be applied before something else is there.",
            line("sum by (waits_for) (driftwatch_parked_objects)", "{{waits_for}}"),
            span=6,
            stacked=True,
        ),
    ]


def _queue() -> Section:
    wait = "driftwatch_queue_wait_seconds_bucket"
    return "Queue", [
        lines(
            "Objects that wait",
            "Objects that wait to be worked on, by priority: drift goes before sync (new commits, first passes).",
            line("sum by (priority) (driftwatch_queue_keys)", "{{priority}}"),
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
            "How long an object waited to be worked on, by priority.",
            line(quantile(0.99, wait, ["priority"]), "{{priority}}"),
            unit="s",
            span=8,
        ),
        lines(
            "Writes at the same time, at most",
            "How many objects of a priority may be written at once, by how the API server answers; 0 while it has "
            "asked to be left alone. A sync gives way while drift is healed.",
            line("min by (priority) (driftwatch_heal_concurrency_limit)", "{{priority}}"),
        ),
        bars(
            "Fewer writes at the same time",
            "Times that the API server asked to be left alone (throttled), failed or was silent (overload), or was "
            "slower than it had been (latency).",
            line(total("driftwatch_heal_concurrency_cuts_total", ["reason"]), "{{reason}}"),
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
            line(rate(events, ["verdict"]), "{{verdict}}"),
            unit="cps",
            stacked=True,
        ),
        bars(
            "Why watches ended",
            "Times that a watch was opened again, by why the one before ended. ended is its clean end after minutes.",
            line(total(f"driftwatch_watch_restarts_total{{{KIND}}}", ["reason"]), "{{reason}}"),
        ),
    ]
