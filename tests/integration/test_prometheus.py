"""Metrics and alerts with the real Prometheus: what is documented can be asked for, and the rules do what they say."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from driftwatch.report.recent import MOST

from tests.support import metrics_page, prometheus_objects
from tests.support.daemon import CANNOT_START
from tests.support.drift_story import LOST, NAMESPACE, PAINTER, SOURCE, Story
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.prometheus import Prometheus, promtool
from tests.support.scene import NewDaemon, daemons
from tests.support.self_signed import write_pair
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
RULE_TESTS = sorted((ROOT / "tests" / "prometheus").glob("*.test.yaml"))
# The first bookmark comes after about a minute.
LATE = {"driftwatch_watch_last_bookmark_timestamp_seconds"}
ALERTS = [rule for group in prometheus_objects.rules()["groups"] for rule in group["rules"] if "alert" in rule]


@pytest.fixture
def new_daemon(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDaemon]:
    """Make daemons of the test's own; they are stopped after it."""
    with daemons(cluster, live, tmp_path_factory) as new:
        yield new


# --- The rules, by promtool ---


def test_promtool_finds_nothing_wrong_with_the_rules() -> None:
    """`promtool check rules` with all lints."""
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", str(prometheus_objects.RULES))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_every_alert_fires_when_it_should(file: Path) -> None:
    """`promtool test rules`: labels and words of what fires, and what does not."""
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    """An alert without a test may never fire, or always."""
    cases = [
        case
        for file in RULE_TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_leads_to_a_section_of_the_runbooks(rule: dict) -> None:
    """The section says what the alert means, how to look and what to do; the alert has a severity and a summary."""
    runbooks = (ROOT / "docs" / "runbooks.md").read_text()
    section = re.search(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", runbooks, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert all(f"**{part}.**" in section[1] for part in ("Meaning", "How to look", "What to do"))
    assert rule["annotations"]["runbook_url"].endswith(f"/runbooks#{rule['alert'].lower()}")
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]


def test_the_operators_objects_are_made_of_the_rules() -> None:
    """PrometheusRule and ServiceMonitor say what the plain files say."""
    for file, text in prometheus_objects.pages().items():
        assert file.read_text() == text, "run: python -m tests.support.prometheus_objects"


def test_rules_and_runbooks_name_only_metrics_that_there_are() -> None:
    """What is not exported cannot alert anybody."""
    exported = {metrics_page.exported(family) for family in metrics_page.families()}
    for file in (prometheus_objects.RULES, ROOT / "docs" / "runbooks.md"):
        named = set(re.findall(r"\bdriftwatch_\w+", file.read_text()))
        assert named
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in named} <= exported


# --- A daemon's story, by Prometheus ---


def test_promtool_finds_nothing_wrong_with_the_metrics(story: Story) -> None:
    """`promtool check metrics` on the answer of a daemon that has lived through something."""
    code, text = story.daemon.get("/metrics")
    assert code == 200
    done = promtool("check", "metrics", text=text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_scrape_has_no_error_and_is_openmetrics_with_exemplars(story: Story) -> None:
    """Prometheus takes in every sample, and an observation of healing names its object."""
    [target] = story.prometheus.targets()
    assert (target["health"], target["lastError"]) == ("up", "")
    found = story.prometheus.exemplars("driftwatch_heal_duration_seconds_bucket", story.began, time.time() + 1)
    objects = {exemplar["labels"]["object"] for each in found for exemplar in each["exemplars"]}
    assert any(NAMESPACE in name for name in objects), objects


def test_every_documented_metric_has_data_after_the_story(story: Story) -> None:
    """Every name in docs/metrics.md is asked for; what the story makes happen has samples."""
    for family in metrics_page.families():
        name = metrics_page.exported(family)
        series = f"{name}_count" if family.type == "histogram" else name
        found = story.prometheus.query(series)
        assert found or name in LATE, name
        assert all(set(family.labels) - {"version"} <= set(sample.labels) | _EMPTY for sample in found), name


_EMPTY = {"namespace"}  # Prometheus drops a label whose value is empty, as that of cluster-scoped objects


def test_every_rule_is_evaluated_without_error(story: Story) -> None:
    """Each expression, and the templates of each alert, against real samples."""
    story.prometheus.wait("driftwatch:drift:increase5m", "rules are evaluated")
    for rule in story.prometheus.rules():
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule["name"]
    for rule in ALERTS:
        story.prometheus.query(rule["expr"])


def test_the_metrics_tell_the_story(story: Story) -> None:
    """Who drifted what, how it was put back, what is refused, contested, snoozed, invalid, and what Git says."""
    ask = story.prometheus.value
    where = f'source="{SOURCE}",namespace="{NAMESPACE}"'
    assert ask(f'driftwatch_drift_total{{{where},kind="ConfigMap",type="deleted",manager="unknown"}}') == 1
    assert ask(f'driftwatch_drift_total{{{where},type="modified",manager="kubectl-set",actor="person"}}') == 1
    assert ask(f'driftwatch_drift_total{{{where},type="added",manager="kubectl-label",actor="person"}}') == 1
    assert ask(f'driftwatch_drift_total{{{where},manager="{PAINTER}",actor="controller"}}') == 8
    assert ask(f'driftwatch_heals_total{{{where},kind="ConfigMap",result="success"}}') == 9
    assert ask(f'driftwatch_heals_total{{{where},kind="Service",result="failed"}}') >= 1
    [contested] = story.prometheus.query('max_over_time(driftwatch_object_contested{name="fought-over"}[5m])')
    assert contested.labels["manager"] == PAINTER
    [refused] = story.prometheus.query('driftwatch_object_refused_since_timestamp_seconds{name="refused"}')
    assert (refused.labels["kind"], refused.labels["outcome"]) == ("Service", "failed")
    assert ask(f"driftwatch_snoozed_objects{{{where}}}") == 1
    assert ask('driftwatch_drifted_objects{source="watched"}') == 1
    assert ask(f'driftwatch_source_invalid_manifests{{source="{SOURCE}"}}') == 1
    assert ask('driftwatch_git_failures_total{source="nowhere"}') >= 1
    assert ask('driftwatch_config_reloads_total{result="failure"}') == 1
    assert ask("driftwatch_detection_lag_seconds_count") >= 10
    assert ask('driftwatch_queue_wait_seconds_count{priority="drift"}') >= 10
    assert ask('driftwatch_api_requests_total{verb="apply",code="200"}') >= 10
    assert ask("driftwatch_audit_findings_total") == 0
    assert ask(f'driftwatch_orphaned_objects{{source="{SOURCE}"}}') == 1
    assert ask('driftwatch_prunes_total{source="pruned",result="success"}') == 1


def test_an_increase_from_zero_is_seen(story: Story) -> None:
    """The first heal in a place counts in `increase()`, for its counter was there before, at zero."""
    assert story.prometheus.value('increase(driftwatch_heals_total{kind="Namespace",result="success"}[10m])') > 0
    # A missed scrape makes a series look as if it had been there before: the rule is right again after the next one.
    painted = f'driftwatch:drift:increase5m{{namespace="{NAMESPACE}",manager="{PAINTER}"}} >= 8'
    story.prometheus.wait(painted, "the first edit by a manager counts")


def test_the_alerts_of_the_story_fire_and_name_what_it_is_about(story: Story) -> None:
    """Alerts without a waiting time fire at once; what they say names object and manager."""
    story.prometheus.wait('ALERTS{alertname="DriftwatchNamespaceDeleted",alertstate="firing"}', "it fires")
    [deleted] = story.prometheus.alerts("DriftwatchNamespaceDeleted")
    assert deleted["annotations"]["summary"] == f"Namespace {LOST} was deleted (by unknown)"
    by_hand = story.prometheus.alerts("DriftwatchDriftByPersonInProduction")
    said = {alert["annotations"]["summary"] for alert in by_hand if alert["state"] == "firing"}
    assert f"Deployment {NAMESPACE}/web was changed by hand (added by kubectl-label)" in said
    [invalid] = story.prometheus.alerts("DriftwatchInvalidManifests")
    assert invalid["state"] == "pending"  # for five minutes


def test_the_alerts_by_name_fire_whatever_else_drifts_before_a_scrape(
    new_daemon: NewDaemon, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    """The namespace comes back first, and more of what was in it than there are names; a person's edit was before that.

    Prometheus begins when all of it is over: that is a scrape which comes late.
    """
    namespace = f"{namespace}-prod"
    home, maps = namespace_of(namespace), [config_map(f"map-{number}", namespace) for number in range(MOST + 10)]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [home, *maps]})
    daemon.start(ready=False)
    daemon.wait(daemon.is_ready, "all is there", timeout=90.0)
    kubectl("label", "configmap", "map-0", "team=night-shift", "-n", namespace)
    daemon.wait_drift(namespace=namespace, name="map-0", manager="kubectl-label")
    kubectl("delete", "namespace", namespace, "--wait=false")
    daemon.wait(
        lambda: len(daemon.events("drift healed", type="deleted")) == len([home, *maps]), "all is back", timeout=90.0
    )

    with Prometheus(tmp_path / "late", [daemon.events("listening")[-1]["address"]]) as prometheus:
        for alert, summary in (
            ("DriftwatchNamespaceDeleted", f"Namespace {namespace} was deleted (by unknown)"),
            (
                "DriftwatchDriftByPersonInProduction",
                f"ConfigMap {namespace}/map-0 was changed by hand (added by kubectl-label)",
            ),
        ):
            prometheus.wait(f'ALERTS{{alertname="{alert}",alertstate="firing"}}', f"{alert} fires")
            assert [each["annotations"]["summary"] for each in prometheus.alerts(alert)] == [summary]


# --- TLS and token ---


def test_prometheus_scrapes_a_daemon_with_tls_and_a_token(new_daemon: NewDaemon, tmp_path: Path) -> None:
    """As docs/metrics.md says it is configured; without the token it is refused, and told so."""
    certificate, key, token = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "token"
    write_pair(certificate, key, "driftwatch")
    token.write_text("open sesame\n")
    daemon = new_daemon()
    daemon.commit({"README.md": "Nothing is declared."})
    daemon.configuration["server"].update(
        {"certificateFile": str(certificate), "keyFile": str(key), "tokenFile": str(token)}
    )
    daemon.start(ready=False)
    [listening] = daemon.wait(lambda: daemon.events("listening"), "it listens")
    assert listening["scheme"] == "https"
    tls = {"scheme": "https", "tls_config": {"ca_file": str(certificate)}}
    with_token = {**tls, "authorization": {"credentials_file": str(token)}}
    with Prometheus(tmp_path / "one", [listening["address"]], job=with_token, rules=()) as prometheus:
        prometheus.wait("driftwatch_build_info", "it is scraped")
    with Prometheus(tmp_path / "two", [listening["address"]], job=tls, rules=()) as prometheus:
        until(lambda: any("401" in target["lastError"] for target in prometheus.targets()), "it is refused")
    assert "open sesame" not in daemon.text()


def test_a_daemon_with_a_broken_certificate_does_not_start(new_daemon: NewDaemon, tmp_path: Path) -> None:
    """One clear error that names the files, exit status 1."""
    (tmp_path / "tls.crt").write_text("no certificate")
    (tmp_path / "tls.key").write_text("no key")
    daemon = new_daemon()
    daemon.commit({"README.md": "Nothing is declared."})
    daemon.configuration["server"].update(
        {"certificateFile": str(tmp_path / "tls.crt"), "keyFile": str(tmp_path / "tls.key")}
    )
    daemon.start(ready=False)
    assert daemon.wait_exit(60.0) == 1
    [told] = daemon.events(CANNOT_START)
    assert told["error"].startswith(f"server: certificate {tmp_path}/tls.crt with key {tmp_path}/tls.key")
