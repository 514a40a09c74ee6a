"""The ownership detector on plain values: what each event means after what we wrote last."""

import msgspec
import orjson
import pytest
from driftwatch.drift.detector import FORGERY_WINDOW, Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import decode_head
from driftwatch.drift.object_state import Verdict
from driftwatch.drift.policy import Policy
from driftwatch.drift.rules import FieldOwner, Rule
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import Manifest, ObjectKey

from tests.support.states import states_of

KEY = ObjectKey("apps", "Deployment", "shop", "web")
BODY = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "annotations": {"driftwatch.io/desired-hash": "abc"}},
    "spec": {"replicas": 2},
}
MANIFEST = Manifest("apps", "v1", "Deployment", "shop", "web", orjson.dumps(BODY), "abc", "web.yaml", 1)
OURS = {"f:metadata": {"f:annotations": {"f:driftwatch.io/desired-hash": {}}}, "f:spec": {"f:replicas": {}}}
LESS = {"f:metadata": {"f:annotations": {"f:driftwatch.io/desired-hash": {}}}}


def entry(manager="driftwatch", operation="Apply", fields=None, time="T1", subresource=""):
    made = {"manager": manager, "operation": operation, "time": time, "fieldsV1": OURS if fields is None else fields}
    return {**made, "subresource": subresource} if subresource else made


def raw(version, *entries, digest="abc", replicas=2, snooze=None, **metadata):
    wish = {"driftwatch.io/snooze-until": snooze} if snooze else {}
    return msgspec.Raw(
        orjson.dumps(
            {
                "metadata": {
                    "name": "web",
                    "namespace": "shop",
                    "uid": "u1",
                    "generation": 1,
                    "resourceVersion": str(version),
                    "annotations": {"driftwatch.io/desired-hash": digest, **wish},
                    "managedFields": list(entries),
                    **metadata,
                },
                "spec": {"replicas": replicas},
            }
        )
    )


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def detector(clock):
    """A detector that has just written the object at resourceVersion 10."""
    made = Detector(states_of({KEY: MANIFEST}), clock, Managers())
    made.states.of(KEY)
    made.accept(KEY, decode_head(raw(10, entry())), "abc")
    clock.now += FORGERY_WINDOW + 1
    return made


def see(detector, version, *entries, change="MODIFIED", **metadata):
    event = raw(version, *entries, **metadata)
    return detector.on_event(KEY, change, decode_head(event), lambda: bytes(event))


def test_our_own_echo_is_stale(detector):
    """The event of our own write, or an older one, says nothing new."""
    assert see(detector, 10, entry()) is Verdict.STALE
    assert see(detector, 9, entry(fields=LESS), change="DELETED") is Verdict.STALE


def test_a13_a_status_update_is_no_drift(detector):
    """Who writes status does not touch what is ours."""
    status = entry("kube-controller-manager", "Update", {"f:status": {}}, subresource="status")
    assert see(detector, 11, entry(), status) is Verdict.IN_SYNC
    assert detector.states.of(KEY).observation is None


def test_a04_a_field_that_is_not_ours_any_more_is_suspect(detector):
    """Somebody else wrote a field of ours: our entry has lost it."""
    scaled = entry("kubectl", "Update", {"f:spec": {"f:replicas": {}}}, subresource="scale")
    assert see(detector, 11, entry(fields=LESS), scaled) is Verdict.SUSPECT
    assert detector.states.of(KEY).observation.version == 11


def test_c02_replicas_taken_from_an_autoscaler_are_suspect_until_they_are_healed(detector):
    """A person scales by hand; the status that follows at once says nothing of it, and hides nothing of it either."""
    replicas = {"f:spec": {"f:replicas": {}}}
    autoscaler = entry("kube-controller-manager", "Update", replicas, subresource="scale")
    record = detector.states.of(KEY)
    owners = (FieldOwner("kube-controller-manager", "scale"),)
    record.policy = Policy(ignore=(Rule("autoscaled", pointers=(("spec", "replicas"),), owners=owners),))
    detector.accept(KEY, decode_head(raw(11, entry(fields=LESS), autoscaler)), "abc")
    record.yields = True
    status = entry("kube-controller-manager", "Update", {"f:status": {}}, subresource="status")
    assert see(detector, 12, entry(fields=LESS), autoscaler, status) is Verdict.IN_SYNC

    person = entry("kubectl", "Update", replicas, subresource="scale")
    assert see(detector, 13, entry(fields=LESS), person, status, replicas=9) is Verdict.SUSPECT
    assert see(detector, 14, entry(fields=LESS), person, {**status, "time": "T2"}, replicas=9) is Verdict.SUSPECT
    assert detector.states.of(KEY).observation.version == 14


def test_b02_what_a_controller_adds_is_kept(detector):
    """A field by a manager that is no person's is no drift."""
    assert see(detector, 11, entry(), entry("istio-injector", "Update", {"f:spec": {"f:x": {}}})) is Verdict.IN_SYNC


def test_b01_what_a_person_adds_is_found(detector):
    """A field by an interactive manager is an addition, and known without a request."""
    assert see(detector, 11, entry(), entry("kubectl-label", "Update", {"f:metadata": {"f:labels": {"f:x": {}}}})) is (
        Verdict.ADDED
    )


def test_b03_a_restart_is_a_wish_not_an_addition(detector):
    """`kubectl rollout restart` is left alone."""
    annotation = {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}
    fields = {"f:spec": {"f:template": {"f:metadata": annotation}}}
    for manager in ("kubectl-rollout", "kubectl"):
        detector.states.of(KEY).version = 10
        assert see(detector, 11, entry(), entry(manager, "Update", fields)) is Verdict.IN_SYNC


def test_a06_stripped_ownership_is_suspect(detector):
    """Without managedFields our entry is gone."""
    assert see(detector, 11) is Verdict.SUSPECT


@pytest.mark.parametrize("forged", [entry(time="T2"), entry(operation="Update")], ids=["apply", "update"])
def test_a11_an_entry_under_our_name_is_suspect(detector, forged):
    """A write with our field manager that is not our last write is suspect like any other."""
    assert see(detector, 11, forged) is Verdict.SUSPECT


def test_a11_a_forgery_within_our_second_is_suspect(detector, clock):
    """ManagedFields have whole seconds: right after our own write, a new generation with unchanged ownership counts."""
    detector.states.of(KEY).written_at = clock.now - FORGERY_WINDOW / 2
    assert see(detector, 11, entry(), generation=2, replicas=5) is Verdict.SUSPECT
    detector.states.of(KEY).version = 10
    assert see(detector, 11, entry(), generation=3) is Verdict.IN_SYNC


def test_a_deletion_is_found_and_forgotten_by_the_heal(detector):
    """After DELETED nothing of the object is kept; the answer to the apply settles it."""
    assert see(detector, 11, entry(), change="DELETED") is Verdict.DELETED
    assert detector.states.of(KEY).observation.head is None
    assert detector.accept(KEY, decode_head(raw(12, entry(time="T3"))), "abc") is Verdict.IN_SYNC
    assert detector.states.of(KEY).observation is None
    assert detector.states.of(KEY).live


def test_a_deletion_during_the_heal_is_not_lost(detector):
    """DELETED that is newer than the answer to our apply is still to be worked on."""
    see(detector, 11, entry(fields=LESS))
    see(detector, 13, change="DELETED")
    assert detector.accept(KEY, decode_head(raw(12, entry(time="T3"))), "abc") is Verdict.DELETED
    assert not detector.states.of(KEY).live


def test_an_event_newer_than_the_answer_is_judged_by_the_answer(detector):
    """A status update that came between our write and its answer is no drift, though it looked like one at first."""
    after = entry(time="T3")
    status = entry("kube-controller-manager", "Update", {"f:status": {}}, subresource="status")
    assert see(detector, 12, after, status) is Verdict.SUSPECT
    assert detector.accept(KEY, decode_head(raw(11, after)), "abc") is Verdict.IN_SYNC
    assert detector.states.of(KEY).observation is None


def test_a10_an_object_that_is_being_deleted_waits(detector):
    """With a deletionTimestamp there is nothing to mend before the object is gone."""
    assert see(detector, 11, entry(), deletionTimestamp="2026-01-01T00:00:00Z") is Verdict.TERMINATING
    assert detector.states.of(KEY).observation is None


def test_an_object_of_nobody_is_not_managed(detector):
    """What carries our label and is not declared is not healed."""
    other = ObjectKey("apps", "Deployment", "shop", "other")
    event = raw(11, entry())
    assert detector.on_event(other, "MODIFIED", decode_head(event), lambda: bytes(event)) is Verdict.UNMANAGED


def listed(detector, *entries, **metadata):
    event = raw(50, *entries, **metadata)
    return detector.on_listed(KEY, decode_head(event), lambda: bytes(event))


def test_b07_a_wish_begins_when_it_is_first_seen_and_ends_with_its_annotation():
    """No event of it is work for anybody, and each change of it is to be written to disk."""
    now = [1000.0]
    made = Detector(states_of({KEY: MANIFEST}), lambda: 0.0, Managers(), lambda: now[0])
    made.states.of(KEY)
    listed(made, entry())
    until = "2030-01-01T00:00:00Z"
    for version, at in ((60, 1000.0), (61, 1060.0)):
        now[0] = at
        assert see(made, version, entry(), snooze=until) is Verdict.IN_SYNC
        assert made.states.of(KEY).snooze == SnoozeRequest(until, 1000.0)
    changes = made.states.changes
    assert see(made, 62, entry()) is Verdict.IN_SYNC
    assert made.states.of(KEY).snooze is None
    assert made.states.changes == changes + 1
    see(made, 63, entry(), snooze=until)
    assert made.states.of(KEY).snooze == SnoozeRequest(until, 1060.0)
    made.on_absent(KEY, 70)
    assert made.states.of(KEY).snooze is None


@pytest.fixture
def fresh(clock):
    """A detector after a restart: nothing is known of the object."""
    made = Detector(states_of({KEY: MANIFEST}), clock, Managers())
    made.states.of(KEY)
    return made


def test_after_a_restart_hash_and_coverage_say_in_sync(fresh):
    """An object in sync costs no request after a restart."""
    assert listed(fresh, entry()) is Verdict.IN_SYNC
    assert fresh.states.of(KEY).last_applied == "abc"


@pytest.mark.parametrize(
    ("entries", "metadata"),
    [
        ([entry(fields=LESS)], {}),
        ([entry()], {"digest": "other"}),
        ([entry(operation="Update")], {}),
        ([], {}),
    ],
    ids=["field-lost", "other-commit", "forged", "stripped"],
)
def test_a08_after_a_restart_anything_else_is_suspect(fresh, entries, metadata):
    """What was edited while we were down is judged by the API server."""
    assert listed(fresh, *entries, **metadata) is Verdict.SUSPECT


def test_a08_deleted_while_down(fresh):
    """A declared object that the LIST does not show is deleted."""
    assert fresh.on_absent(KEY, 50) is Verdict.DELETED


def test_a_list_older_than_our_write_does_not_delete(detector):
    """What we created after the LIST was taken is not missing from it."""
    assert detector.on_absent(KEY, 9) is Verdict.STALE


def test_f02_an_object_older_than_it_was_in_a_newer_list_is_judged_anew(detector):
    """Etcd was restored, and the cluster's version has caught up before anybody looked: only the object tells."""
    assert see(detector, 20, entry()) is Verdict.IN_SYNC
    edited = decode_head(raw(15, entry(fields=LESS)))

    assert detector.is_another(KEY, edited)
    assert detector.on_another(KEY, edited, lambda: b"{}", 30) is Verdict.SUSPECT


def test_f02_an_object_older_than_it_was_in_an_older_list_is_stale(detector):
    """We have written it after the LIST was taken."""
    assert see(detector, 20, entry()) is Verdict.IN_SYNC
    assert detector.on_another(KEY, decode_head(raw(15, entry(fields=LESS))), lambda: b"{}", 19) is Verdict.STALE


def test_f02_an_object_of_the_version_that_was_known_may_be_another(detector):
    """The versions of a restored cluster met those from before: who owns what tells, and the same object is stale."""
    same, edited = decode_head(raw(10, entry())), decode_head(raw(10, entry(fields=LESS)))

    assert not detector.is_another(KEY, same)
    assert detector.is_another(KEY, edited)
    assert detector.on_another(KEY, edited, lambda: b"{}", 30) is Verdict.SUSPECT


def test_a11_after_a_restart_without_memory_values_tell(fresh):
    """An apply under our name while we were down leaves our entry whole; without memory, values are compared."""
    assert listed(fresh, entry(), replicas=5) is Verdict.SUSPECT


def test_a_restart_with_memory_compares_nothing(fresh):
    """What is at the version at which we left it costs no comparison."""
    record = fresh.states.of(KEY)
    record.stamp, record.left_at = "T1", 50
    assert listed(fresh, entry(), replicas=5) is Verdict.IN_SYNC


def test_a11_another_stamp_than_ours_is_suspect(fresh):
    """Somebody applied under our name later than we did."""
    record = fresh.states.of(KEY)
    record.stamp, record.left_at = "T0", 49
    assert listed(fresh, entry()) is Verdict.SUSPECT


@pytest.mark.parametrize("status", [True, False], ids=["a status", "another write"])
def test_b01_an_addition_that_a_list_shows_is_found_until_it_is_healed(clock, status):
    """After a restart; what comes before the healer's turn, a status above all, hides nothing of it."""
    made = Detector(states_of({KEY: MANIFEST}), clock, Managers())
    made.states.of(KEY)
    added = entry("kubectl-label", "Update", {"f:metadata": {"f:labels": {"f:x": {}}}})
    listed = raw(11, entry(), added)
    assert made.on_listed(KEY, decode_head(listed), lambda: bytes(listed)) is Verdict.ADDED
    fields, subresource = ({"f:status": {}}, "status") if status else ({"f:spec": {"f:x": {}}}, "")
    after = entry("kube-controller-manager", "Update", fields, subresource=subresource)
    assert see(made, 12, entry(), added, after).needs_work
    assert made.states.of(KEY).observation.version == 12
