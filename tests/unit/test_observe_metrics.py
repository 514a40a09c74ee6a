"""Metrics: bounded by construction, there from zero, gone with what they are about."""

from collections import Counter

import pytest
import yarl
from driftwatch.cluster.request_verbs import Verb, verb_of
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.object_state import Declaration
from driftwatch.git.errors import SourceError
from driftwatch.metrics.labels import OTHER, WELL_KNOWN, ManagerLabels, normalised
from driftwatch.metrics.registry import GIT_REASONS, Metrics
from driftwatch.model import Drift, DriftType, FieldDrift, GroupKind, Manifest, ObjectKey
from driftwatch.reconcile.outcome import Outcome
from driftwatch.report import metrics_binding
from driftwatch.report.drift_report import Report
from driftwatch.report.prune_report import PruneReport
from driftwatch.report.recent import KEPT_SECONDS, MOST
from hypothesis import given
from hypothesis import strategies as st

MAP, SECRET = GroupKind("", "ConfigMap"), GroupKind("", "Secret")
NOW = 1_000_000_000.0  # 2001-09-09T01:46:40Z


def key(name="settings", namespace="shop", kind=MAP):
    return ObjectKey(*kind, namespace, name)


def drift(name="settings", manager="kubectl-edit", time="", drift_type=DriftType.MODIFIED):
    fields = (FieldDrift("data.colour", '"blue"', '"green"', manager, time=time),)
    return Drift(key(name), "apps", drift_type, manager, fields)


def series(metrics, name):
    """Labels and value of every sample of a name."""
    return [
        (sample.labels, sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    ]


def places(*of):
    return Counter(dict.fromkeys(of, 1))


# --- Managers ---


@pytest.mark.parametrize(
    ("manager", "label"),
    [
        ("", "unknown"),
        ("kubectl-client-side-apply", "kubectl-client-side-apply"),
        ("kubectl-patch", "kubectl-patch"),
        ("argocd-controller", "argocd-controller"),
        ("terraform-1.9.8", "terraform"),
        ("operator/v2.0.0-rc.1", "operator"),
        ("agent-7d4b9c6f5d-x2k9p", "agent"),
        ("worker-12", "worker"),
        ("job-6f9619ff-8b86-d011-b42d-00c04fc964ff", "job"),
        ("build_9f3c2a1b7e", "build"),
        ("with\nbreak\x00and ünicode", "with_break_and _nicode"),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_managers_name_loses_what_makes_it_another_one_each_time(manager, label):
    assert normalised(manager) == label


@given(st.lists(st.text(max_size=40), max_size=300))
def test_however_many_managers_there_are_their_labels_are_few(managers):
    """No client can make series without end by its name."""
    labels = ManagerLabels(most=10)
    assert len({labels(manager) for manager in managers} - WELL_KNOWN) <= 10


def test_past_the_cap_a_manager_is_other_and_those_before_keep_their_names():
    """The well-known ones have theirs whenever they come."""
    labels = ManagerLabels(most=2)
    assert [labels(name) for name in ("a", "b", "c", "a", "kubectl-edit")] == ["a", "b", OTHER, "a", "kubectl-edit"]


# --- Series that come and go ---


def test_counters_of_a_place_begin_at_zero_and_go_with_it():
    """An alert sees the first increase, and no series outlives what Git declares."""
    metrics = Metrics()
    metrics.set_managed(places(("apps", MAP, "shop"), ("apps", MAP, "lab"), ("apps", SECRET, "shop")))
    begun = series(metrics, "driftwatch_heals_total")
    assert len(begun) == 9
    assert all(value == 0 for _, value in begun)
    assert ({labels["namespace"] for labels, _ in series(metrics, "driftwatch_drift_total")}) == {"shop", "lab"}
    metrics.heals.labels("apps", "ConfigMap", "shop", "success").inc()

    metrics.set_managed(places(("apps", MAP, "shop")))
    left = series(metrics, "driftwatch_heals_total")
    assert {(labels["kind"], labels["namespace"]) for labels, _ in left} == {("ConfigMap", "shop")}
    assert sum(value for _, value in left) == 1
    assert series(metrics, "driftwatch_managed_objects") == [({"source": "apps", "kind": "ConfigMap"}, 1)]
    assert [labels["kind"] for labels, _ in series(metrics, "driftwatch_audit_findings_total")] == ["ConfigMap"]


def test_a_dropped_source_leaves_no_series():
    """Nothing with its name is exported any more; the others keep theirs."""
    metrics = Metrics()
    metrics.follow(["apps", "infra"])
    for source in ("apps", "infra"):
        metrics.set_managed(places(("apps", MAP, "shop"), ("infra", MAP, "shop")))
        metrics.sources.snapshot(source, "c0ffee", NOW, size=10)
        metrics.git_success.labels(source).set(NOW)
        metrics.drift.labels(source, "ConfigMap", "shop", "added", "k9s", "person").inc()
    metrics.follow(["infra"])
    metrics.set_managed(places(("infra", MAP, "shop")))
    named = {
        sample.labels["source"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "source" in sample.labels
    }
    assert named == {"infra"}
    assert {labels["reason"] for labels, _ in series(metrics, "driftwatch_git_failures_total")} == set(GIT_REASONS)


def test_every_reason_for_which_a_source_fails_is_counted_from_zero():
    """The first failure of any kind is an increase."""

    def reasons(error):
        return {error.reason}.union(*map(reasons, error.__subclasses__()))

    assert reasons(SourceError) <= set(GIT_REASONS)


def test_a_source_has_one_commit():
    """The series of the commit before goes."""
    metrics = Metrics()
    metrics.sources.snapshot("apps", "one", NOW, size=1)
    metrics.sources.snapshot("apps", "two", NOW + 1, size=1)
    assert series(metrics, "driftwatch_source_commit_info") == [({"source": "apps", "commit": "two"}, 1)]


# --- What the report counts ---


class Scene:
    def __init__(self):
        self.now = NOW
        self.metrics = Metrics()
        self.report = Report(
            self.metrics, is_person=lambda manager: manager.startswith("kubectl"), now=lambda: self.now
        )
        self.orphans = PruneReport(self.report, self.metrics)
        metrics_binding._bind_objects(self.metrics, self.report, self.orphans)
        self.declaration = Declaration(
            "apps", Manifest("", "v1", "ConfigMap", "shop", "settings", b"{}", "digest", "a.yaml", 1)
        )

    def series(self, name):
        return series(self.metrics, name)


@pytest.mark.parametrize(("manager", "actor"), [("kubectl-edit", "person"), ("rogue", "controller"), ("", "unknown")])
def test_drift_is_counted_with_the_kind_of_actor(manager, actor):
    scene = Scene()
    scene.report.healed(drift(manager=manager), 0.01)
    [(labels, value)] = scene.series("driftwatch_drift_total")
    assert (labels["actor"], labels["manager"], value) == (actor, manager or "unknown", 1)


def test_the_lag_is_from_the_newest_change_to_the_event():
    """Seconds of healing are no part of it; a clock that is behind makes it zero, not negative."""
    scene = Scene()
    scene.report.healed(drift(time="2001-09-09T01:46:37Z"), 1.0)
    assert scene.series("driftwatch_detection_lag_seconds_sum") == [({}, 2.0)]
    scene.report.healed(drift(time="2001-09-09T02:00:00Z"), 1.0)
    scene.report.healed(drift(time=""), 1.0)
    assert scene.series("driftwatch_detection_lag_seconds_sum") == [({}, 2.0)]
    assert scene.series("driftwatch_detection_lag_seconds_count") == [({}, 2.0)]


def test_objects_that_differ_are_counted_and_named_until_they_do_not():
    scene = Scene()
    scene.report.drifted(drift())
    scene.now += 60
    [(labels, since)] = scene.series("driftwatch_object_drifted_since_timestamp_seconds")
    assert (labels["name"], labels["manager"], since) == ("settings", "kubectl-edit", NOW)
    assert [value for _, value in scene.series("driftwatch_drifted_objects")] == [1]
    scene.report.in_sync(key())
    assert scene.series("driftwatch_object_drifted_since_timestamp_seconds") == []
    assert scene.series("driftwatch_drifted_objects") == []


def test_a_refused_object_is_named_since_its_first_refusal():
    """Retries are counted; another kind of refusal begins anew."""
    scene = Scene()
    for outcome, expected in ((Outcome.RETRY, NOW), (Outcome.RETRY, NOW), (Outcome.FAILED, NOW + 20)):
        scene.report.refused(key(), scene.declaration, outcome, ValueError("no"), 1.0)
        scene.now += 10
        [(labels, since)] = scene.series("driftwatch_object_refused_since_timestamp_seconds")
        assert (labels["outcome"], since) == (str(outcome), expected)
    retried = {labels["outcome"]: value for labels, value in scene.series("driftwatch_heal_retries_total")}
    assert retried == {"retry": 2, "failed": 1}
    scene.report.healed(drift(), 0.01)
    assert scene.series("driftwatch_refused_objects") == []


def test_h12_a_snooze_of_an_object_that_left_git_is_forgotten():
    """Neither its gauges nor its record outlive the declaration."""
    scene = Scene()
    scene.report.snoozed(key(), scene.declaration, "2001-09-10T00:00:00Z", "kubectl-annotate")
    scene.report.declared(Declared(["apps"], lambda _kind: True))
    assert list(scene.report.open) == []
    assert scene.series("driftwatch_snoozed_objects") == []


def test_orphans_are_on_the_gauge_until_they_are_gone():
    """Also when Git declares nothing more in their namespace."""
    scene = Scene()
    scene.metrics.set_managed(places(("apps", MAP, "shop")))
    scene.orphans.orphaned(key(), "apps", "pruning is off")
    scene.metrics.set_managed(places())
    [(labels, count)] = scene.series("driftwatch_orphaned_objects")
    assert (labels["source"], labels["kind"], labels["namespace"], count) == ("apps", "ConfigMap", "shop", 1)
    scene.orphans.orphan_gone(key(), "apps")
    assert scene.series("driftwatch_orphaned_objects") == []


def test_h12_nothing_is_kept_of_an_object_when_all_of_it_is_over():
    scene = Scene()
    scene.report.drifted(drift())
    scene.report.refused(key(), scene.declaration, Outcome.RETRY, ValueError("no"), 1.0)
    scene.report.snoozed(key(), scene.declaration, "2001-09-10T00:00:00Z", "kubectl-annotate")
    scene.report.contested(key(), scene.declaration, "painter-12", 0.0)
    scene.report.healed(drift(), 0.01)
    scene.report.calm(key())
    assert list(scene.report.open) == []


def test_contested_and_snoozed_objects_are_on_the_gauges_until_it_is_over():
    scene = Scene()
    scene.report.contested(key(), scene.declaration, "painter-12", 0.0)
    scene.report.snoozed(key("asleep"), scene.declaration, "2001-09-10T00:00:00Z", "kubectl-annotate")
    [(labels, _)] = scene.series("driftwatch_object_contested")
    assert (labels["name"], labels["manager"]) == ("settings", "painter")
    assert [value for _, value in scene.series("driftwatch_contested_objects")] == [1]
    assert [value for _, value in scene.series("driftwatch_snoozed_objects")] == [1]
    [(labels, until)] = scene.series("driftwatch_object_snoozed_until_timestamp_seconds")
    assert (labels["name"], labels["manager"], until) == ("asleep", "kubectl-annotate", 1_000_080_000)
    scene.report.calm(key())
    scene.report.in_sync(key("asleep"))
    gone = ("object_contested", "contested_objects", "snoozed_objects", "object_snoozed_until_timestamp_seconds")
    for name in gone:
        assert scene.series(f"driftwatch_{name}") == []


def test_only_the_latest_hundred_drifts_have_names_and_for_an_hour(monkeypatch):
    """Objects make no series without end."""
    scene = Scene()
    monkeypatch.setattr(metrics_binding.time, "time", lambda: scene.now)
    for number in range(MOST + 50):
        scene.report.healed(drift(f"map-{number}"), 0.0)
    names = {labels["name"] for labels, _ in scene.series("driftwatch_object_drift_timestamp_seconds")}
    assert names == {f"map-{number}" for number in range(50, MOST + 50)}
    scene.now += KEPT_SECONDS + 1
    assert scene.series("driftwatch_object_drift_timestamp_seconds") == []


# --- Requests ---


@pytest.mark.parametrize(
    ("method", "query", "content", "verb"),
    [
        ("GET", "", "", Verb.GET),
        ("GET", "limit=500&labelSelector=x", "", Verb.LIST),
        ("PATCH", "fieldManager=driftwatch&force=true", "application/apply-patch+yaml", Verb.APPLY),
        ("PATCH", "fieldManager=driftwatch&force=true&dryRun=All", "application/apply-patch+yaml", Verb.DRY_RUN),
        ("PATCH", "fieldManager=driftwatch", "application/json-patch+json", Verb.PATCH),
        ("PUT", "dryRun=All", "application/json", Verb.DRY_RUN),
        ("POST", "", "application/json", Verb.CREATE),
        ("DELETE", "", "", Verb.DELETE),
    ],
)
def test_a_request_is_called_by_kubernetes_verbs(method, query, content, verb):
    url = yarl.URL(f"https://cluster/api/v1/configmaps?{query}", encoded=True)
    assert verb_of(method, url, {"Content-Type": content}) is verb
