"""Field sets: walking, covering, looking up, cutting and joining."""

import msgspec
import pytest
from driftwatch.drift.fieldset import (
    MISSING,
    contains,
    covers,
    insert,
    leaves,
    live_paths,
    lookup,
    remove,
    text,
    tree,
)
from hypothesis import given
from hypothesis import strategies as st

CONTAINERS = {
    "f:containers": {
        'k:{"name":"web"}': {
            ".": {},
            "f:image": {},
            "f:name": {},
            "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
        }
    }
}

STEPS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'k:{"name":"y"}', "v:1", "i:0"])
PATHS = st.lists(STEPS, min_size=1, max_size=4).map(tuple)


def covered(value: object) -> bool:
    return covers(CONTAINERS, {"containers": [value]})


@pytest.mark.parametrize(
    "container",
    [
        {"name": "web", "image": "nginx"},
        {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]},
        {"name": "web", "ports": [{"containerPort": 80, "protocol": "TCP"}], "image": "x"},
    ],
    ids=["plain", "default-list-key-left-out", "subset"],
)
def test_an_entry_covers_what_it_owns(container):
    """A field set covers a declared value although the manifest leaves out the default of a list key."""
    if "protocol" in str(container):
        container = {**container, "ports": [{"containerPort": 80}]}
    assert covered(container)


@pytest.mark.parametrize(
    "container",
    [
        {"name": "other", "image": "nginx"},
        {"name": "web", "image": "nginx", "command": ["x"]},
        {"name": "web", "ports": [{"containerPort": 81}]},
        {"name": "web", "ports": [{"containerPort": 80, "protocol": "UDP"}]},
    ],
    ids=["item", "field", "nested-item", "list-key"],
)
def test_an_entry_does_not_cover_what_it_does_not_own(container):
    """A declared item, field or list key that the entry lacks is not covered."""
    assert not covered(container)


def test_an_atomic_field_covers_all_that_is_in_it():
    """An empty node owns the whole value below it, as for a selector."""
    assert covers({"f:selector": {}}, {"selector": {"matchLabels": {"a": "b"}}})


def test_a_map_that_only_exists_does_not_cover_its_fields():
    """A node that owns just itself says nothing of the fields in it."""
    assert covers({"f:labels": {".": {}}}, {"labels": {}})
    assert not covers({"f:labels": {".": {}}}, {"labels": {"a": "b"}})


def test_sets_are_covered_value_by_value():
    """Each value of a set has a node of its own."""
    assert covers({"f:finalizers": {'v:"a"': {}, 'v:"b"': {}}}, {"finalizers": ["b", "a"]})
    assert not covers({"f:finalizers": {'v:"a"': {}}}, {"finalizers": ["a", "b"]})


def test_lookup_follows_keys_values_and_positions():
    """A path leads to the value that the API server means by it."""
    value = {"containers": [{"name": "web", "image": "nginx", "args": ["-v"]}], "set": ["a"]}
    web = ("f:containers", 'k:{"name":"web"}')
    assert lookup(value, (*web, "f:image")) == "nginx"
    assert lookup(value, (*web, "f:args", "i:0")) == "-v"
    assert lookup(value, ("f:set", 'v:"a"')) == "a"
    assert lookup(value, ("f:containers", 'k:{"name":"db"}')) is MISSING
    assert lookup(value, ("f:nothing", "f:there")) is MISSING


def test_a_path_reads_as_people_write_it():
    """List keys are resolved, and names with dots are quoted."""
    path = ("f:spec", "f:containers", 'k:{"containerPort":80,"name":"web"}', "f:image")
    assert text(path) == 'spec.containers[containerPort=80,name="web"].image'
    assert text(("f:metadata", "f:labels", "f:app.kubernetes.io/name")) == 'metadata.labels["app.kubernetes.io/name"]'


def test_unreadable_fields_own_nothing():
    """Whatever stands in fieldsV1, the decision is the API server's."""
    assert tree(msgspec.Raw(b'["no", "tree"]')) == {}


@given(st.lists(PATHS, max_size=8))
def test_inserted_paths_are_contained(paths):
    """What is put into a field set is in it, whatever was there before."""
    node: dict[str, object] = {}
    for path in paths:
        insert(node, path)
    for path in paths:
        assert contains(node, path)
    assert set(leaves(node)) >= set(paths)


@given(st.lists(PATHS, max_size=8), PATHS)
def test_a_removed_path_is_gone_and_the_others_stay(paths, gone):
    """Removing a path takes away that one alone, and leaves no empty branch that would own a whole field."""
    node: dict[str, object] = {}
    for path in paths:
        insert(node, path)
    before = set(leaves(node))
    remove(node, gone)
    assert set(leaves(node)) == before - {gone}


def test_paths_of_an_object_go_by_the_keys_of_other_items():
    """An item that nobody owns anything of is told by the keys of its neighbours, and so are the lists in it."""
    port = 'k:{"containerPort":90,"protocol":"UDP"}'
    value = {"containers": [{"name": "app", "ports": [{"containerPort": 90, "protocol": "UDP"}], "args": ["-v"]}]}

    found = live_paths(value, CONTAINERS)

    item = ("f:containers", 'k:{"name":"app"}')
    assert found[:4] == [item[:1], item, (*item, "f:name"), (*item, "f:ports")]
    assert (*item, "f:ports", port, "f:protocol") in found
    assert found[-1] == (*item, "f:args")
    assert all(lookup(value, path) is not MISSING for path in found)
    assert live_paths(value, {}) == [item[:1]]
