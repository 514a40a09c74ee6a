"""Series of what left Git do not stay for ever, and those of what is still there do."""

from collections import Counter

import pytest
from driftwatch.metrics import registry
from driftwatch.metrics.registry import Metrics
from driftwatch.model import DriftType, GroupKind

MAP = GroupKind("", "ConfigMap")


def places(*found):
    return Counter(found)


def labelled(metrics, namespace):
    """Names of the families that have a series of the namespace."""
    return {
        family.name
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.labels.get("namespace") == namespace
    }


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(registry, "monotonic", lambda: now[0])
    return now


def test_h12_what_is_counted_of_a_place_after_it_left_git_goes_after_an_hour(clock):
    """Its orphans, prunes and late heals are counted, so that somebody can scrape them, and go."""
    metrics = Metrics()
    metrics.set_managed(places(("apps", MAP, "preview-1"), ("apps", MAP, "shop")))
    metrics.set_managed(places(("apps", MAP, "shop")))
    place = "apps", "ConfigMap", "preview-1"
    metrics.drift.labels(*place, str(DriftType.ORPHANED), "unknown", "unknown").inc()
    metrics.prunes.labels(*place, "success").inc()
    metrics.heals.labels(*place, "success").inc()
    metrics.snoozes.labels(*place).inc()
    counted = {"driftwatch_drift", "driftwatch_prunes", "driftwatch_heals", "driftwatch_snoozes"}

    metrics.set_managed(places(("apps", MAP, "shop")))
    assert labelled(metrics, "preview-1") == counted
    clock[0] += 3600
    metrics.set_managed(places(("apps", MAP, "shop")))

    assert labelled(metrics, "preview-1") == set()
    assert "driftwatch_heals" in labelled(metrics, "shop")


def test_h12_a_place_that_is_declared_again_keeps_its_counters(clock):
    """What was counted meanwhile is not taken away later."""
    metrics = Metrics()
    metrics.prunes.labels("apps", "ConfigMap", "shop", "success").inc()
    metrics.set_managed(places())
    metrics.set_managed(places(("apps", MAP, "shop")))
    clock[0] += 7200
    metrics.set_managed(places(("apps", MAP, "shop")))
    assert "driftwatch_prunes" in labelled(metrics, "shop")
