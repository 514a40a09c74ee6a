"""The dashboards are what their source makes, legible, and name only what there is."""

import itertools
import re
from typing import Any

import pytest
from grafana.dashboards import files

from tests.support import grafana_panels, metrics_page, prometheus_objects
from tests.support.grafana_panels import Dashboard, Query

DASHBOARDS = grafana_panels.dashboards()
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in grafana_panels.panels(dashboard)]
QUERIES = list(grafana_panels.queries())
FAMILIES = {metrics_page.exported(family): family for family in metrics_page.families()}
# Prometheus' own, about a scrape and about alerts.
PROMETHEUS_OWN = {"ALERTS", "scrape_samples_scraped", "scrape_duration_seconds"}
# What no panel is for: what Python this is, and address space, which says nothing.
NOT_SHOWN = {"python_info", "process_virtual_memory_bytes"}
COLUMNS = 24

each_dashboard = pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=list(DASHBOARDS))
each_panel = pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=[f"{n}-{p['id']}" for n, p in PANELS])
each_query = pytest.mark.parametrize("query", QUERIES, ids=[f"{each.dashboard}-{each.asker}" for each in QUERIES])


def test_the_committed_dashboards_are_what_their_source_makes() -> None:
    """`python -m grafana` would change nothing."""
    made = files()
    assert {path.name for path in made} == {path.name for path in grafana_panels.FOLDER.glob("*.json")}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, "run: python -m grafana"


@each_dashboard
def test_panels_have_ids_of_their_own(dashboard: Dashboard) -> None:
    """Grafana finds a panel by its id."""
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert all(ids)
    assert len(ids) == len(set(ids))


@each_dashboard
def test_panels_fill_the_grid_and_do_not_overlap(dashboard: Dashboard) -> None:
    """Every cell of the grid from the first row to the last has one panel, so that there are no holes."""
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= COLUMNS, panel["title"]
        taken |= cells
    assert len(taken) == COLUMNS * (1 + max(y for _, y in taken))


@each_dashboard
def test_no_two_panels_have_one_title(dashboard: Dashboard) -> None:
    """Who is told of a panel finds it."""
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) == len(set(titles))


@each_panel
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """Title, description, unit, what is shown where there is no data, and the data source that is chosen."""
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["noValue"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert panel["targets"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@each_panel
def test_series_of_a_graph_have_names(panel: dict[str, Any]) -> None:
    """Where there are several series, the legend says which is which; tables have columns."""
    if panel["type"] not in ("table", "stat"):
        assert all(target["legendFormat"] for target in panel["targets"])


@each_query
def test_a_query_names_only_metrics_that_there_are(query: Query) -> None:
    """Everything of ours is in docs/metrics.md, with its type: counters and histograms are not asked for as gauges."""
    page = metrics_page.PAGE.read_text(encoding="utf-8")
    for name in _metrics(query.expression):
        assert name in FAMILIES, name
        assert f"| `{name}` |" in page
    for suffixed in re.findall(r"\bdriftwatch_\w+_bucket\b", query.expression):
        assert FAMILIES[suffixed.removesuffix("_bucket")].type == "histogram"


@each_query
def test_a_query_heeds_the_variables_that_its_metrics_have_labels_for(query: Query) -> None:
    """Source, kind and namespace narrow every family that has them, but where a join on the source does it."""
    for selector, name in re.findall(r"((driftwatch_\w+)(?:\{[^}]*\})?)", query.expression):
        if name == "driftwatch_source_commit_info":
            continue
        family = FAMILIES[_family(name)]
        for label in {"source", "kind", "namespace"} & set(family.labels) - _deliberately_whole(name):
            assert f'{label}=~"${label}"' in selector, f"{selector} does not narrow by {label}"


def _deliberately_whole(name: str) -> set[str]:
    """Hooks of sources that there are none of have no source's name; they are what one wants to see."""
    return {"source"} if name == "driftwatch_webhooks_total" else set()


def test_every_family_is_on_a_dashboard() -> None:
    """What is worth exporting is worth looking at."""
    shown = {name for query in QUERIES for name in _metrics(query.expression)}
    assert set(FAMILIES) - shown == NOT_SHOWN


@each_dashboard
def test_labels_of_legends_and_columns_are_those_of_the_query(dashboard: Dashboard) -> None:
    """A name in a legend that the query does not give would be blank."""
    for panel in grafana_panels.panels(dashboard):
        for target in panel["targets"]:
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            assert wanted <= _labels(target["expr"]), panel["title"]


@each_dashboard
def test_variables_are_the_data_source_source_kind_and_namespace(dashboard: Dashboard) -> None:
    """Several of each can be chosen, and all are at first."""
    found = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert list(found) == ["datasource", "source", "kind", "namespace", "filters"]
    assert (found["datasource"]["type"], found["datasource"]["query"]) == ("datasource", "prometheus")
    for name in ("source", "kind", "namespace"):
        assert found[name]["multi"]
        assert found[name]["includeAll"]
        assert found[name]["current"]["value"] == ["$__all"]


def test_the_dashboards_lead_to_each_other() -> None:
    """With the time range and what is chosen; and to the runbooks that the alerts lead to."""
    one, other = DASHBOARDS.values()
    for here, there in ((one, other), (other, one)):
        [link] = [each for each in here["links"] if each["url"] == f"/d/{there['uid']}"]
        assert link["keepTime"]
        assert link["includeVars"]
        [runbooks] = [each for each in here["links"] if each["title"] == "Runbooks"]
        rules = [rule for group in prometheus_objects.rules()["groups"] for rule in group["rules"] if "alert" in rule]
        assert all(rule["annotations"]["runbook_url"].startswith(f"{runbooks['url']}#") for rule in rules)


@each_dashboard
def test_alerts_and_commits_are_annotations(dashboard: Dashboard) -> None:
    """Every alert of the rules is shown by the annotation's pattern."""
    found = {each["name"]: each for each in dashboard["annotations"]["list"]}
    assert list(found) == ["Alerts", "Commits", "Starts"]
    assert all(each["enable"] for each in found.values())
    [pattern] = re.findall(r'alertname=~"([^"]+)"', found["Alerts"]["expr"])
    alerts = [
        rule["alert"] for group in prometheus_objects.rules()["groups"] for rule in group["rules"] if "alert" in rule
    ]
    assert all(re.fullmatch(pattern, alert) for alert in alerts)


def _metrics(expression: str) -> set[str]:
    """The families that an expression names, without those of Prometheus itself."""
    found = set(re.findall(r"\b(?:driftwatch|process|python|scrape)_\w+|\bALERTS\b", expression)) - PROMETHEUS_OWN
    return {_family(name) for name in found}


def _family(name: str) -> str:
    """The family of a series: a histogram has three."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def _labels(expression: str) -> set[str]:
    """Labels that series of an expression can have."""
    aggregated = re.search(r"\b(?:sum|min|max) by \(([^)]*)\)", expression)
    if aggregated:
        return set(aggregated[1].split(", "))
    names = {name for each in re.findall(r"driftwatch_\w+", expression) for name in _of_family(each)}
    return {"instance", "job"} | names


def _of_family(name: str) -> tuple[str, ...]:
    return tuple(FAMILIES[_family(name)].labels)
