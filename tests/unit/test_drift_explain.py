"""What a drift is said to be: fields, values and managers, and never the value of a Secret."""

import msgspec
import orjson
import pytest
from driftwatch.drift.additions import additions, take_over
from driftwatch.drift.explain import HIDDEN, Shown, Subject, explain_added, explain_modified
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, decode_head
from driftwatch.drift.rules import Rule
from driftwatch.model import DriftType, ObjectKey

KEY = ObjectKey("apps", "Deployment", "shop", "web")
SECRET = ObjectKey("", "Secret", "shop", "password")
CONTAINER = 'k:{"name":"web"}'


def spec(image, *more):
    return {"containers": [{"name": "web", "image": image}, *more]}


def owned(*fields):
    return {"f:spec": {"f:containers": {CONTAINER: {".": {}, "f:name": {}, **{f"f:{field}": {} for field in fields}}}}}


def live(entries, **content):
    return orjson.dumps({"metadata": {"name": "web", "managedFields": entries}, **content})


def entry(manager, operation, fields, time="2026-01-01T00:00:00Z"):
    return {"manager": manager, "operation": operation, "time": time, "fieldsV1": fields}


OURS = entry("driftwatch", "Apply", owned("image"))
HEALED = decode_head(live([OURS], spec=spec("nginx:1"))).metadata
BODY = orjson.dumps({"spec": spec("nginx:1")})


def modified(before, key=KEY, body=BODY, healed=HEALED):
    return explain_modified(Subject(key, "shop"), body, before, decode_head(before).metadata, healed)


def test_a_changed_field_names_both_values_and_who_did_it():
    """The field that our entry lost belongs to another manager now."""
    thief = entry("kubectl-set", "Update", owned("image"), "2026-01-01T00:00:07Z")
    drift = modified(live([entry("driftwatch", "Apply", owned()), thief], spec=spec("nginx:9")))
    (field,) = drift.fields
    assert field.path == 'spec.containers[name="web"].image'
    assert (field.declared, field.live) == ('"nginx:1"', '"nginx:9"')
    assert (field.manager, field.operation, field.time) == ("kubectl-set", "Update", "2026-01-01T00:00:07Z")
    assert (drift.type, drift.manager) == (DriftType.MODIFIED, "kubectl-set")


def test_a_removed_item_is_named_once_and_not_field_by_field():
    """A container that is gone is one difference."""
    drift = modified(
        live([entry("driftwatch", "Apply", {"f:metadata": {"f:labels": {"f:a": {}}}})], spec={"containers": []})
    )
    assert [field.path for field in drift.fields] == ['spec.containers[name="web"]']
    assert drift.fields[0].live == "<none>"
    assert drift.fields[0].manager == ""


def test_stripped_ownership_is_named_when_no_value_differs():
    """Without managedFields all values are compared; equal ones are not reported."""
    drift = modified(live([], spec=spec("nginx:1")))
    assert [field.path for field in drift.fields] == ["metadata.managedFields"]


def test_a11_a_forged_apply_is_explained_by_values():
    """An apply under our own name leaves our entry whole; the values still differ."""
    drift = modified(live([OURS], spec=spec("nginx:9")))
    (field,) = drift.fields
    assert (field.live, field.manager) == ('"nginx:9"', "driftwatch")


def test_values_of_a_secret_are_hidden():
    """A Secret shows key names only."""
    data = {"f:data": {"f:password": {}}}
    healed = decode_head(live([entry("driftwatch", "Apply", data)])).metadata
    thief = entry("kubectl-edit", "Update", data)
    before = live([entry("driftwatch", "Apply", {"f:type": {}}), thief], data={"password": "c3RvbGVu"})
    body = orjson.dumps({"data": {"password": "c2VjcmV0"}})
    drift = modified(before, SECRET, body, healed)
    assert [field.path for field in drift.fields] == ["data.password"]
    assert "c3RvbGVu" not in repr(drift)
    assert "c2VjcmV0" not in repr(drift)
    assert drift.manager == "kubectl-edit"


@pytest.mark.parametrize(
    ("key", "rules", "shown"),
    [
        (SECRET, (), {"driftwatch.io/id": "x", "driftwatch.io/desired-hash": HIDDEN, "example.com/note": HIDDEN}),
        (
            KEY,
            (Rule("token", pointers=(("data", "token"),), sensitive=True),),
            {"driftwatch.io/id": "x", "driftwatch.io/desired-hash": HIDDEN, "example.com/note": "x"},
        ),
        (KEY, (), {"driftwatch.io/id": "x", "driftwatch.io/desired-hash": "x", "example.com/note": "x"}),
    ],
    ids=["secret", "sensitive", "plain"],
)
def test_b05_our_digest_is_hidden_where_a_value_is_and_our_other_annotations_are_not(key, rules, shown):
    """A guess at a short value could be tried by the digest."""
    declared = {"metadata": {"annotations": dict.fromkeys(shown, "x")}, "data": {"token": "hunter2"}}
    found = Shown(Subject(key, "shop", rules), declared, {}, Metadata())
    said = {name: found.field(("f:metadata", "f:annotations", f"f:{name}")).declared.strip('"') for name in shown}
    assert said == shown
    assert ("hunter2" in repr(found.field(("f:data", "f:token")))) is (key == KEY and not rules)


def test_b01_added_fields_are_taken_over_exactly():
    """Only what the intruder added moves into our entry; what it co-owns with nobody else stays described."""
    side = 'k:{"name":"side"}'
    added_fields = {"f:spec": {"f:containers": {side: {".": {}, "f:image": {}, "f:name": {}}, **owned()["f:spec"]}}}
    intruder = entry("kubectl-patch", "Update", added_fields)
    controller = entry("injector", "Update", {"f:spec": {"f:volumes": {}}})
    before = live([OURS, intruder, controller], spec=spec("nginx:1", {"name": "side", "image": "x"}))
    metadata = decode_head(before).metadata
    added = additions(metadata, Managers())
    drift = explain_added(Subject(KEY, "shop"), before, metadata, added)
    assert 'spec.containers[name="side"]' in [field.path for field in drift.fields]
    assert drift.manager == "kubectl-patch"
    ours, *others = msgspec.json.decode(msgspec.json.encode(take_over(metadata, added)))
    assert side in ours["fieldsV1"]["f:spec"]["f:containers"]
    assert all(side not in str(other) for other in others)
    assert "f:volumes" in str(others)


def test_b02_what_a_controller_owns_too_is_no_addition():
    """A field that a person touched and a controller owns as well is kept."""
    fields = {"f:metadata": {"f:labels": {"f:team": {}}}}
    before = live([OURS, entry("kubectl-label", "Update", fields), entry("labeller", "Update", fields)])
    assert additions(decode_head(before).metadata, Managers()) == []
