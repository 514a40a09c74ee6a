"""Which declared objects are told of as absent, and why: by what is known, whether or not anything was ever tried."""

import pytest
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.policy import Policy
from driftwatch.metrics.registry import Metrics
from driftwatch.model import GroupKind, Manifest, Mode, ObjectKey
from driftwatch.reconcile.apply_errors import Blocked
from driftwatch.reconcile.outcome import Outcome
from driftwatch.report.absent import AbsentObjects
from driftwatch.report.drift_report import Report

MAP, WIDGET = GroupKind("", "ConfigMap"), GroupKind("example.com", "Widget")


def manifest(name: str, kind: GroupKind = MAP, version: str = "v1") -> Manifest:
    return Manifest(kind.group, version, kind.kind, "shop", name, b"{}", "d1", "a.yaml", 7)


class Cluster:
    """Two sources, the kinds that are served, and everything that tells of absence."""

    def __init__(self) -> None:
        self.served = {MAP: ["v1"]}
        self.declared = Declared(["first", "second"], lambda kind: True if kind in self.served else None)
        self.detector = Detector(self.declared.states, lambda: 0.0, Managers())
        self.blocked, self.report, self.unlisted = Blocked(self.declared.states), Report(Metrics()), set[GroupKind]()
        self.absent = AbsentObjects(
            self.declared, self.detector, self, self.blocked, self.report, lambda: self.unlisted
        )

    def preferred(self, kind: GroupKind) -> Resource | None:
        versions = self.served.get(kind)
        return Resource(kind.group, versions[0], kind.kind, "x", namespaced=True, prefix="/x") if versions else None

    def resource(self, manifest: Manifest) -> Resource | None:
        kind = manifest.group_kind
        return self.preferred(kind) if manifest.version in self.served.get(kind, ()) else None

    def declare(self, *manifests: Manifest, source: str = "first", live: bool = False) -> ObjectKey:
        """Have a source declare these; `live` is whether the watch shows them."""
        for key in self.declared.replace(source, manifests):
            self.detector.states.of(key).live = live
        last = manifests[-1]
        return ObjectKey(last.group, last.kind, last.namespace, last.name)

    def refuse(self, key: ObjectKey, outcome: Outcome) -> None:
        self.report.refused(key, self.declared.get(key), outcome, ClusterError("no"), None)

    def told(self) -> list[tuple[str, str, str]]:
        return [(each.source, each.key.name, each.reason) for each in self.absent]


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_h09_what_is_there_is_not_absent(cluster: Cluster) -> None:
    """Nothing is said of objects that the watch shows."""
    cluster.declare(manifest("one"), live=True)
    assert cluster.told() == []


def test_h09_objects_of_a_kind_that_was_never_served_are_absent(cluster: Cluster) -> None:
    """No record and no refusal tells of them."""
    cluster.declare(manifest("one", WIDGET))
    assert cluster.told() == [("first", "one", "kind_not_served")]


@pytest.mark.parametrize("live", [True, False])
def test_h09_objects_of_a_kind_that_is_gone_are_absent(cluster: Cluster, live: bool) -> None:
    """Also those whose deletion no watch has shown."""
    cluster.served[WIDGET] = ["v1"]
    cluster.declare(manifest("one", WIDGET), live=live)
    del cluster.served[WIDGET]
    assert cluster.told() == [("first", "one", "kind_not_served")]


def test_h09_an_object_at_a_version_that_is_not_served_is_absent(cluster: Cluster) -> None:
    """Another version of its kind is served, and nothing can be applied."""
    cluster.declare(manifest("one", version="v2"))
    assert cluster.told() == [("first", "one", "kind_not_served")]


def test_h09_the_second_source_of_an_object_is_told_of(cluster: Cluster) -> None:
    """Its manifest is not in force, and the owner is named."""
    cluster.declare(manifest("one"), live=True)
    cluster.declare(manifest("one"), source="second", live=True)
    [absent] = cluster.absent
    assert (absent.source, absent.reason, absent.owner) == ("second", "declared_twice", "first")
    cluster.declared.replace("first", [])
    assert cluster.told() == []


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.FAILED, "refused"),
        (Outcome.IMMUTABLE, "refused"),
        (Outcome.RETRY, "waiting"),
        (Outcome.NAMESPACE_MISSING, "namespace"),
        (Outcome.NAMESPACE_TERMINATING, "namespace"),
        (Outcome.KIND_MISSING, "kind_not_served"),
    ],
)
def test_h09_a_refused_object_is_absent_by_what_the_refusal_means(
    cluster: Cluster, outcome: Outcome, reason: str
) -> None:
    """Until an apply succeeds."""
    key = cluster.declare(manifest("one"))
    cluster.refuse(key, outcome)
    assert cluster.told() == [("first", "one", reason)]
    cluster.detector.states.of(key).live = True
    assert cluster.told() == []


def test_h09_an_object_that_was_parked_without_a_try_is_absent(cluster: Cluster) -> None:
    """Another object of the namespace has met the refusal; and one that is only queued waits."""
    key = cluster.declare(manifest("one"))
    assert cluster.told() == [("first", "one", "waiting")]
    cluster.blocked.at_namespace(key._replace(name="other"))
    assert cluster.told() == [("first", "one", "namespace")]


@pytest.mark.parametrize(("mode", "reported"), [(Mode.OBSERVE, True), (Mode.IGNORE, True), (Mode.PAUSED, False)])
def test_h09_an_object_that_is_not_healed_is_absent_where_that_is_known(
    cluster: Cluster, mode: Mode, reported: bool
) -> None:
    """A paused one that was never applied may be there without our label; one that was applied would be seen."""
    record = cluster.detector.states.of(cluster.declare(manifest("one")))
    record.policy = Policy(mode=mode)
    assert bool(cluster.told()) is reported
    record.last_applied = "d1"
    assert cluster.told() == [("first", "one", "not_healed")]


def test_h09_nothing_is_said_of_a_kind_before_its_first_list(cluster: Cluster) -> None:
    """Its objects may all be there."""
    cluster.declare(manifest("one"))
    cluster.unlisted.add(MAP)
    assert cluster.told() == []
