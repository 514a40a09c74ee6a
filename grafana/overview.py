"""The first dashboard to look at: what drifts, by whom, and whether it is healed."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from grafana.frame import DETAIL, OVERVIEW, Section, assembled
from grafana.panels import (
    ACTORS,
    BAD_FROM_ONE,
    GREEN,
    ORANGE,
    RED,
    RESULTS,
    SEEN_FROM_ONE,
    TYPES,
    bars,
    line,
    lines,
    listing,
    now,
    number,
    ranking,
    states,
    to_dashboard,
)
from grafana.queries import KIND, PLACE, SOURCE, happened, in_cluster, quantile, total

UP = {"1": ("open", GREEN), "0": ("down", RED)}
OBJECT = {"source": "Source", "kind": "Kind", "namespace": "Namespace", "name": "Name"}
DRIFT = f"driftwatch_drift_total{{{PLACE}}}"
HEALS = f"driftwatch_heals_total{{{PLACE}}}"


def dashboard() -> Dashboard:
    """The overview."""
    sections: list[Section] = [_now(), _who(), _what(), _how_fast(), _health()]
    return assembled(
        OVERVIEW,
        "Who changes what behind Git's back in this cluster, what differs now, and how fast it is put back.",
        sections,
    )


def there() -> DashboardLink:
    """From an object to all that is known of its place."""
    return to_dashboard("In detail", DETAIL, {"source": "source", "kind": "kind", "namespace": "namespace"})


def _now() -> Section:
    return "Now, and in this time range", [
        number(
            "Ready",
            "Whether every source is read and every watch is open, as /readyz says. Of several daemons the worst.",
            "min(driftwatch_ready)",
            steps=((None, RED), (1, GREEN)),
            words={"1": ("ready", GREEN), "0": ("not ready", RED)},
            empty="no daemon",
        ),
        number(
            "Differ from Git",
            "Objects that differ now: not healed yet, only observed, snoozed, paused, or gone and refused.",
            f"sum(driftwatch_drifted_objects{{{PLACE}}})",
            steps=SEEN_FROM_ONE,
        ),
        number(
            "Cannot be applied",
            "Objects that the API server refuses for good, until the manifest, a permission or a policy is mended.",
            f'sum(driftwatch_refused_objects{{{PLACE}, outcome=~"failed|immutable"}})',
            steps=BAD_FROM_ONE,
        ),
        number(
            "Contested",
            "Objects that somebody changes again and again now: five heals a minute or more.",
            f"sum(driftwatch_contested_objects{{{PLACE}}})",
            steps=BAD_FROM_ONE,
        ),
        number(
            "Snoozed",
            "Objects that ask not to be healed now, by the annotation driftwatch.io/snooze-until.",
            f"sum(driftwatch_snoozed_objects{{{PLACE}}})",
            steps=SEEN_FROM_ONE,
        ),
        number(
            "Orphaned",
            "Objects of ours that have left Git and are still in the cluster.",
            f"sum(driftwatch_orphaned_objects{{{PLACE}}})",
            steps=SEEN_FROM_ONE,
        ),
        *_in_this_range(),
    ]


def _in_this_range() -> Sequence[Builder[Panel]]:
    succeeded = f'driftwatch_heals_total{{{PLACE}, result="success"}}'
    return [
        number(
            "Drifts",
            "Differences from Git in this time range that the cluster did not get from driftwatch.",
            total(DRIFT, over="$__range"),
        ),
        number(
            "Put back",
            "Share of the attempts in this time range that the API server accepted; the others are tried again, or "
            "need somebody.",
            f"sum(increase({succeeded}[$__range])) / (sum(increase({HEALS}[$__range])) > 0)",
            unit="percentunit",
            steps=((None, RED), (0.9, ORANGE), (0.99, GREEN)),
            empty="nothing to do",
            decimals=1,
        ),
        number(
            "Healed within, p95",
            "From the watch event to the API server's answer, of 95 % of the heals in this time range. All sources.",
            quantile(0.95, "driftwatch_heal_duration_seconds_bucket", over="$__range"),
            unit="s",
            steps=((None, GREEN), (1, ORANGE), (10, RED)),
            empty="no heal",
            decimals=2,
        ),
        number(
            "Watches down",
            "Kinds whose drift is not seen now.",
            f"sum(1 - driftwatch_watch_up{{{KIND}}})",
            steps=BAD_FROM_ONE,
        ),
        number(
            "Git silent for",
            "How long ago Git last answered, of the source where that is longest.",
            f"max(time() - driftwatch_git_last_success_timestamp_seconds{{{SOURCE}}})",
            unit="s",
            steps=((None, GREEN), (300, ORANGE), (900, RED)),
            empty="no source",
        ),
        number(
            "Alerts firing",
            "Alerts of driftwatch, of any source, that fire now.",
            'count(ALERTS{alertname=~"Driftwatch.+", alertstate="firing"})',
            steps=BAD_FROM_ONE,
        ),
    ]


def _who() -> Section:
    managers = f"topk(10, {total(DRIFT, ['manager'], '$__range')} > 0)"
    kinds = f"topk(10, {total(DRIFT, ['kind'], '$__range')} > 0)"
    namespaces = f"topk(10, {in_cluster(total(DRIFT, ['namespace'], '$__range'))} > 0)"
    sources = f"topk(10, {total(DRIFT, ['source'], '$__range')} > 0)"
    return "Who drifts what, and where", [
        bars(
            "Drift by type",
            "deleted: the object was gone. modified: a declared field had another value. added: a field that Git does "
            "not declare. orphaned: it left Git and stayed.",
            line(total(DRIFT, ["type"]), "{{type}}"),
            words=TYPES,
        ),
        bars(
            "Drift by actor",
            "person: a field manager that people write under, such as kubectl's. controller: any other. unknown: the "
            "API server notes nobody, as for a deletion or a removed field.",
            line(total(DRIFT, ["actor"]), "{{actor}}"),
            words=ACTORS,
        ),
        ranking("By manager", "Field managers that have made most of the drift.", now(managers, "{{manager}}")),
        ranking("By kind", "Kinds that have drifted most.", now(kinds, "{{kind}}")),
        ranking(
            "By namespace",
            "Namespaces in which most has drifted; (cluster) is what has none.",
            now(namespaces, "{{namespace}}"),
        ),
        ranking("By source", "Sources whose objects have drifted most.", now(sources, "{{source}}")),
        listing(
            "Latest drifts",
            "Objects that were found to differ within the last hour, healed or not, by whom: a hundred deleted "
            "namespaces, a hundred that persons changed, and a hundred others.",
            {"Found": f"driftwatch_object_drift_timestamp_seconds{{{PLACE}}} * 1000"},
            {**OBJECT, "type": "Type", "manager": "Manager", "actor": "Actor"},
            unit="dateTimeFromNow",
            links=[there()],
        ),
    ]


def _what() -> Section:
    contested = f"driftwatch_object_contested{{{PLACE}}}"
    return "What is not as Git has it", [
        lines(
            "Objects that differ",
            "How many objects differ from Git, by source.",
            line(f"sum by (source) (driftwatch_drifted_objects{{{PLACE}}})", "{{source}}"),
            span=8,
            stacked=True,
        ),
        listing(
            "Differ now",
            "Objects that differ from Git now, and since when: the hundred that have for longest.",
            {"Since": f"driftwatch_object_drifted_since_timestamp_seconds{{{PLACE}}} * 1000"},
            {**OBJECT, "type": "Type", "manager": "Manager"},
            unit="dateTimeFromNow",
            span=16,
            height=8,
            links=[there()],
            descending=False,
        ),
        listing(
            "Refused by the API server",
            "Objects whose every apply was refused, and since when. failed and immutable need somebody; the others "
            "wait for an event, or are tried again. The log has the server's words.",
            {"Since": f"driftwatch_object_refused_since_timestamp_seconds{{{PLACE}}} * 1000"},
            {**OBJECT, "outcome": "Outcome"},
            unit="dateTimeFromNow",
            span=12,
            links=[there()],
            descending=False,
        ),
        listing(
            "Contested in this time range",
            "Objects that somebody changed again and again, who that was, and when they last did.",
            {"Last": f"max_over_time(timestamp({contested})[$__range:]) * 1000"},
            {**OBJECT, "manager": "Manager"},
            unit="dateTimeFromNow",
            span=12,
            links=[there()],
        ),
    ]


def _how_fast() -> Section:
    seconds = "driftwatch_heal_duration_seconds_bucket"
    return "How it is put back", [
        lines(
            "Time to heal",
            "From the arrival of the watch event to the API server's answer to the apply. All sources. The points are "
            "single heals (exemplars), each with its object.",
            line(quantile(0.5, seconds), "median"),
            line(quantile(0.95, seconds), "p95", exemplars=True),
            line(quantile(0.99, seconds), "p99"),
            unit="s",
        ),
        bars(
            "Heals by result",
            "success: the object is as Git has it. deferred: tried again, or waits for an event. failed: needs "
            "somebody.",
            line(total(HEALS, ["result"]), "{{result}}"),
            words=RESULTS,
        ),
    ]


def _health() -> Section:
    findings = f"driftwatch_audit_findings_total{{{SOURCE}, {KIND}}}"
    return "Whether it is seen at all", [
        states(
            "Watches",
            "Whether the watch of each kind is open and complete; where it is down, drift is not seen until it is up.",
            line(f"min by (kind) (driftwatch_watch_up{{{KIND}}})", "{{kind}}"),
            UP,
        ),
        lines(
            "Since Git last answered",
            "By source. While Git is away, the last commit stays in force.",
            line(f"time() - driftwatch_git_last_success_timestamp_seconds{{{SOURCE}}}", "{{source}}"),
            unit="s",
            steps=((None, GREEN), (900, RED)),
        ),
        listing(
            "Commits in force",
            "What each source's snapshot is of, and when it came into force here.",
            {
                "In force since": f"driftwatch_source_commit_timestamp_seconds{{{SOURCE}}} * 1000"
                " * on (job, instance, source) group_left (commit) driftwatch_source_commit_info"
            },
            {"source": "Source", "commit": "Commit"},
            unit="dateTimeFromNow",
            span=12,
            height=8,
        ),
        lines(
            "Found by the audit alone",
            "Drift that the audit found and no event had told of, by source, in each hour. It should stay at zero.",
            line(f"sum by (source) {happened(findings, '1h')}", "{{source}}"),
            steps=((None, GREEN), (1, RED)),
        ),
    ]
