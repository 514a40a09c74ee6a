"""How an object is compared with what an apply would make of it."""

from driftwatch.drift.fieldset import text
from driftwatch.drift.metadata import Annotations, Labels, ManagedFieldsEntry, Metadata
from driftwatch.reconcile.dry_run import difference, is_tracked

ENV = {"f:env": {'k:{"name":"A"}': {}, 'k:{"name":"B"}': {}, 'k:{"name":"C"}': {}}}
PORTS = {"f:ports": {'k:{"port":53,"protocol":"TCP"}': {}, 'k:{"port":53,"protocol":"UDP"}': {}}}


def paths(wanted: object, live: object, owned: dict | None = None) -> list[str]:
    return [text(path) for path in difference(wanted, live, owned or {})]


def test_equal_values_do_not_differ():
    assert paths({"a": [{"b": 1}]}, {"a": [{"b": 1}]}) == []


def test_a_difference_is_named_as_deep_as_both_have_the_same_shape():
    assert paths({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}) == ["a.c", "a.d"]
    assert paths({"a": [{"b": 1}]}, {"a": [{"b": 2}]}) == ["a[0].b"]
    assert paths({"a": [1, 2]}, {"a": [1]}) == ["a"]
    assert paths({"a": {}}, {"a": ""}) == ["a"]


def test_items_of_a_keyed_list_are_told_apart_by_their_keys():
    live = {"env": [{"name": "B", "value": "x"}, {"name": "C", "value": "3"}]}
    wanted = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    assert paths(wanted, live, ENV) == ['env[name="A"]', 'env[name="B"].value', 'env[name="C"]']


def test_a_key_may_have_several_fields():
    wanted = {"ports": [{"port": 53, "protocol": "TCP", "name": "t"}, {"port": 53, "protocol": "UDP", "name": "u"}]}
    live = {"ports": [{"port": 53, "protocol": "UDP", "name": "x"}, {"port": 53, "protocol": "TCP", "name": "t"}]}
    assert paths(wanted, live, PORTS) == ['ports[port=53,protocol="UDP"].name']


def test_a12_a_keyed_list_in_another_order_does_not_differ():
    assert paths({"env": [{"name": "A"}, {"name": "B"}]}, {"env": [{"name": "B"}, {"name": "A"}]}, ENV) == []


def test_members_of_a_set_are_told_apart_by_their_values():
    assert paths({"f": ["a", "b"]}, {"f": ["b", "c"]}, {"f:f": {'v:"a"': {}, 'v:"b"': {}, 'v:"c"': {}}}) == [
        'f["a"]',
        'f["c"]',
    ]


def test_of_a_mapping_or_keyed_list_that_is_gone_as_a_whole_it_is_named_what_was_in_it():
    owned = {"f:labels": {".": {}, "f:a": {}, "f:b": {}}, "f:args": {}, **ENV}
    wanted = {"labels": {"a": "1", "b": "2"}, "env": [{"name": "A", "value": "1"}], "args": ["x"], "none": {}}
    assert paths(wanted, {}, owned) == ["args", 'env[name="A"]', "labels.a", "labels.b", "none"]
    assert paths({}, wanted, owned) == ["args", 'env[name="A"]', "labels.a", "labels.b", "none"]


def test_an_object_is_tracked_by_whatever_is_left_of_our_marks():
    ours = ManagedFieldsEntry(manager="driftwatch", operation="Apply")
    theirs = ManagedFieldsEntry(manager="kubectl-edit", operation="Update")
    assert not is_tracked(Metadata(labels=Labels(), annotations=Annotations(), managedFields=[theirs]))
    assert is_tracked(Metadata(labels=Labels(source="apps")))
    assert is_tracked(Metadata(annotations=Annotations(id="x")))
    assert is_tracked(Metadata(managedFields=[theirs, ours]))
