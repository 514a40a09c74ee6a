"""Every query of the dashboards is answered by the real Prometheus that scraped a daemon through the story of drift."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana.queries import happened

from tests.support import grafana_panels
from tests.support.drift_story import LOST, NAMESPACE, PAINTER, SOURCE, Story
from tests.support.grafana_panels import Query, substituted, variables
from tests.support.prometheus import Sample, promtool
from tests.support.waiting import until

QUERIES = list(grafana_panels.queries())
DASHBOARDS = grafana_panels.dashboards()
STEP = 5.0
RATE_INTERVAL = "1m"


def _asked(story: Story, query: Query, chosen: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The series that Grafana would get, over the time of the story."""
    since = time.time() - story.began
    expression = substituted(
        query.expression, chosen, interval="5m", rate_interval=RATE_INTERVAL, over=f"{math.ceil(since) + 30}s"
    )
    if query.instant:
        return [{"metric": each.labels, "values": [[0, each.value]]} for each in story.prometheus.query(expression)]
    return story.prometheus.query_range(expression, story.began, time.time(), STEP)


def _finite(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in series if any(math.isfinite(float(value)) for _, value in each["values"])]


def _values(story: Story, dashboard: str) -> dict[str, list[str]]:
    """What each variable offers, as the first of it is chosen from, and so on."""
    found = {}
    for name, (selector, label) in variables(DASHBOARDS[dashboard]).items():
        expression = substituted(selector, {}, interval="5m", rate_interval=RATE_INTERVAL, over="1h")
        samples = story.prometheus.query(f"count by ({label}) ({expression})")
        found[name] = sorted({sample.labels[label] for sample in samples if label in sample.labels})
    return found


def _panel(story: Story, dashboard: str, title: str, chosen: dict[str, list[str]] | None = None) -> list[Sample]:
    """What a panel's first query gives now."""
    [query] = [each for each in QUERIES if each.dashboard == dashboard and each.asker == f"{title}, A"]
    since = math.ceil(time.time() - story.began) + 30
    expression = substituted(query.expression, chosen or {}, interval="5m", rate_interval="5m", over=f"{since}s")
    return story.prometheus.query(expression)


@pytest.mark.parametrize("query", QUERIES, ids=[f"{each.dashboard}-{each.asker}" for each in QUERIES])
def test_a_query_has_data_after_the_story(story: Story, query: Query) -> None:
    """With All chosen, and with everything chosen by name, as Grafana would ask."""
    by_name = _values(story, query.dashboard)
    for chosen in ({}, by_name):
        # A scrape that was missed leaves a hole, where the range may have no other step that counts.
        until(lambda chosen=chosen: _finite(_asked(story, query, chosen)), query.expression)


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_variables_offer_what_the_sources_declare(story: Story, dashboard: str) -> None:
    """Every source, kind and namespace of the story, also where nothing has happened."""
    found = _values(story, dashboard)
    assert {SOURCE, "watched", "pruned"} <= set(found["source"])
    assert {"ConfigMap", "Deployment", "Secret", "Service", "Namespace"} <= set(found["kind"])
    assert NAMESPACE in found["namespace"]


def test_what_is_chosen_narrows_the_panels(story: Story) -> None:
    """One source, one kind, a namespace that there is none of."""
    by_manager = {each.labels["manager"] for each in _panel(story, "driftwatch-overview", "By manager")}
    of_deployments = _panel(story, "driftwatch-overview", "By manager", {"kind": ["Deployment"]})
    assert PAINTER in by_manager
    assert {each.labels["manager"] for each in of_deployments} == {"kubectl-set", "kubectl-label"}
    assert _panel(story, "driftwatch-overview", "By manager", {"source": ["watched", "pruned"]})
    assert _panel(story, "driftwatch-overview", "By manager", {"namespace": ["no.such[namespace"]}) == []


def test_the_panels_tell_the_story(story: Story) -> None:
    """Who drifted what, where, what is not healed, and that first edits count though no series was there before."""
    dashboard = "driftwatch-overview"
    by_manager = {each.labels["manager"]: each.value for each in _panel(story, dashboard, "By manager")}
    assert by_manager["kubectl-set"] >= 1
    assert by_manager["kubectl-label"] >= 1
    assert by_manager[PAINTER] >= 8
    assert "(cluster)" in {each.labels["namespace"] for each in _panel(story, dashboard, "By namespace")}
    latest = {(each.labels["kind"], each.labels["name"]) for each in _panel(story, dashboard, "Latest drifts")}
    assert {("Namespace", LOST), ("Deployment", "web"), ("ConfigMap", "settings")} <= latest
    [contested] = _panel(story, dashboard, "Contested in this time range", {"source": [SOURCE]})
    assert (contested.labels["name"], contested.labels["manager"]) == ("fought-over", PAINTER)
    assert "refused" in {each.labels["name"] for each in _panel(story, dashboard, "Refused by the API server")}
    assert {"watched", "asleep"} <= {each.labels["name"] for each in _panel(story, dashboard, "Differ now")}
    assert [each.value for each in _panel(story, dashboard, "Ready")]
    [alerts] = _panel(story, dashboard, "Alerts firing")
    assert alerts.value >= 1


@pytest.mark.parametrize(
    ("daemon", "drift", "count"),
    [
        ("1x300", "_x199 2+0x100", 2),  # the first edits by a manager: the birth of a series
        ("_x199 1x100", "_x199 2+0x100", 0),  # Prometheus was away, and the daemon is older
        ("_x199 1x100", "_x199 2+0x10 3+0x50", 1),  # what has happened since is counted
        ("1x300", "2+0x300", 0),  # it was there all the time
    ],
    ids=["first", "outage", "after an outage", "known"],
)
def test_a_bar_has_first_edits_and_none_of_the_time_before_prometheus_knew_the_daemon(
    tmp_path: Path, daemon: str, drift: str, count: int
) -> None:
    """A daemon of four hours: what its counters had counted when Prometheus came back is not of the last hour."""
    _count(tmp_path, {"driftwatch_build_info": daemon, "driftwatch_drift_total": drift}, count)


def test_a_bar_has_the_first_edits_of_a_daemon_that_has_just_started(tmp_path: Path) -> None:
    """Nothing was known of it since it was not there."""
    series = {"driftwatch_build_info": "_x199 1x100", "driftwatch_drift_total": "_x199 2+0x100"}
    _count(tmp_path, series, 2, started=199 * 60)


def _count(folder: Path, series: dict[str, str], count: int, started: int = 0) -> None:
    """What a bar of an hour shows after four, with a sample a minute."""
    labels = '{job="driftwatch",instance="a:9464"}'
    known = {**series, "process_start_time_seconds": series["driftwatch_build_info"].replace("1x", f"{started}x")}
    case = {
        "interval": "1m",
        "input_series": [{"series": name + labels, "values": values} for name, values in known.items()],
        "promql_expr_test": [
            {
                "expr": f"round({happened('driftwatch_drift_total', '1h')})",
                "eval_time": "220m",
                "exp_samples": [{"labels": labels, "value": count}],
            }
        ],
    }
    file = folder / "bar.test.yaml"
    file.write_text(yaml.safe_dump({"tests": [case]}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_tables_have_the_columns_that_they_show(story: Story) -> None:
    """A label that a table has a column for is on some row: only the namespace can be missing everywhere."""
    for name, dashboard in DASHBOARDS.items():
        for panel in grafana_panels.panels(dashboard):
            if panel["type"] == "table":
                [shown] = [each for each in panel["transformations"] if each["id"] == "organize"]
                labels = set().union(*(each.labels for each in _panel(story, name, panel["title"])))
                columns = {each for each in shown["options"]["renameByName"] if not each.startswith("Value")}
                assert columns <= labels, panel["title"]


def test_commits_are_annotated_at_the_time_they_came_into_force(story: Story) -> None:
    """The value is the time, in milliseconds, and the commit is named."""
    [query] = [each for each in QUERIES if each.asker == "annotation Commits" and each.dashboard.endswith("overview")]

    def found() -> list[dict[str, Any]]:
        # The last commit came seconds ago: it may lie between two steps of the range.
        series = _asked(story, query, {"source": [SOURCE]})
        return series if len({value for each in series for _, value in each["values"]}) >= 2 else []

    series = until(found, "two commits are annotated")
    times = {float(value) / 1000 for each in series for _, value in each["values"]}
    assert all(story.began - 60 < each < time.time() for each in times)
    assert all(len(each["metric"]["commit"]) >= 7 for each in series)
