"""What the dashboards have in common: variables, annotations, links, and how rows of panels become one."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders.dashboard import (
    AdHocVariable,
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as model

from grafana.panels import BLUE, DATASOURCE, GREEN, RED
from grafana.queries import KIND, SOURCE, ours

OVERVIEW, DETAIL = "driftwatch-overview", "driftwatch-detail"
TITLES = {OVERVIEW: "driftwatch", DETAIL: "driftwatch, in detail"}
TAG = "driftwatch"
RUNBOOKS = "https://driftwatch.io/docs/runbooks"

Section = tuple[str, Sequence[Builder[model.Panel]]]


class Variable(NamedTuple):
    """A variable whose values are those of a label."""

    label: str
    description: str
    family: str


# Families that have a series for whatever Git declares, whether or not anything has happened to it.
VARIABLES: Mapping[str, Variable] = {
    "source": Variable("Source", "Sources of the configuration.", "driftwatch_managed_objects"),
    "kind": Variable("Kind", "Kinds that the sources declare.", f"driftwatch_managed_objects{{{SOURCE}}}"),
    "namespace": Variable(
        "Namespace",
        "Namespaces of the objects that the sources declare; all of them include objects that have none.",
        f"driftwatch_heals_total{{{SOURCE}, {KIND}}}",
    ),
}


def assembled(uid: str, description: str, sections: Sequence[Section]) -> Dashboard:
    """A dashboard of rows of panels."""
    other = DETAIL if uid == OVERVIEW else OVERVIEW
    dashboard = (
        Dashboard(TITLES[uid])
        .uid(uid)
        .description(description)
        .tags([TAG])
        .editable()
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .variables(_variables())
        .annotations(_annotations())
        .link(_link(TITLES[other], f"/d/{other}").keep_time(True).include_vars(True))
        .link(_link("Runbooks", RUNBOOKS).icon("doc").target_blank(True))
    )
    number = 0
    for title, panels in sections:
        number += 1
        dashboard.with_row(Row(title).id(number))
        for panel in panels:
            number += 1
            panel.build().id_val = number
            dashboard.with_panel(panel)
    return dashboard


def _link(title: str, url: str) -> DashboardLink:
    return DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).icon("dashboard")


def _variables() -> list[Builder[model.VariableModel]]:
    found: list[Builder[model.VariableModel]] = [
        DatasourceVariable("datasource").label("Data source").description("A Prometheus.").type("prometheus")
    ]
    for name, (label, description, family) in VARIABLES.items():
        query = f"label_values({family}, {name})"
        found.append(
            QueryVariable(name)
            .label(label)
            .description(description)
            .datasource(DATASOURCE)
            .query({"query": query, "qryType": 1, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
            .definition(query)
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            # Also what has no such label: cluster-scoped objects have no namespace.
            .all_value(".*")
            .current(model.VariableOption(text=["All"], value=["$__all"], selected=True))
        )
    found.append(
        AdHocVariable("filters")
        .label("Filters")
        .description("Any other label, such as the cluster's where one Prometheus has several.")
        .datasource(DATASOURCE)
    )
    return found


def _annotations() -> list[Builder[model.AnnotationQuery]]:
    commits = (
        f"driftwatch_source_commit_timestamp_seconds{{{SOURCE}}} * 1000"
        " * on (job, instance, source) group_left (commit) driftwatch_source_commit_info"
    )
    return [
        _annotation("Alerts", RED, 'ALERTS{alertname=~"Driftwatch.+", alertstate="firing"}')
        .title_format("{{alertname}}")
        .text_format("{{severity}} {{source}} {{kind}} {{namespace}} {{name}} {{manager}}")
        .tag_keys("severity,source"),
        _annotation("Commits", BLUE, commits)
        .title_format("Commit of {{source}}")
        .text_format("{{commit}} has come into force")
        .tag_keys("source")
        .use_value_for_time(True),
        _annotation("Starts", GREEN, f"{ours('process_start_time_seconds')} * 1000")
        .title_format("driftwatch has started")
        .text_format("{{instance}}")
        .use_value_for_time(True),
    ]


def _annotation(name: str, colour: str, expression: str) -> AnnotationQuery:
    return (
        AnnotationQuery().name(name).datasource(DATASOURCE).enable(True).icon_color(colour).expr(expression).step("60s")
    )
