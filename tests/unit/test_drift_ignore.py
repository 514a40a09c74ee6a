"""What a rule leaves to others: which fields go out of the body, which go with their live value, and what stays."""

import copy
import json

import msgspec
import orjson
import pytest
from driftwatch.drift.fieldset import MISSING, cut, leaves, lookup, merge, put
from driftwatch.drift.ignore import effective, ignored_paths, yielded_paths
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata
from driftwatch.drift.rules import FieldOwner, Rule, parse_path, parse_pointer
from hypothesis import given
from hypothesis import strategies as st

names = st.sampled_from("abcde")
scalars = st.integers(0, 9) | st.sampled_from(["x", "y"]) | st.booleans()


def _items(children):
    bodies = st.dictionaries(names, children, max_size=3)
    return st.lists(st.tuples(names, bodies), max_size=3, unique_by=lambda item: item[0]).map(
        lambda items: [{"name": name, **body} for name, body in items]
    )


values = st.recursive(
    scalars, lambda children: st.dictionaries(names, children, max_size=3) | _items(children), max_leaves=12
)
documents = st.dictionaries(names, values, min_size=1, max_size=4)


def key(name):
    return f"k:{json.dumps({'name': name})}"


def owned(value):
    """The field set of who has applied a value."""
    if isinstance(value, dict):
        return {f"f:{name}": owned(child) for name, child in value.items()}
    if isinstance(value, list) and value:
        return {key(item["name"]): {".": {}, **owned(item)} for item in value}
    return {}


def entry(manager, fields, operation="Apply", subresource=""):
    return ManagedFieldsEntry(manager, operation, fieldsV1=msgspec.Raw(orjson.dumps(fields)), subresource=subresource)


def applied(declared, live, rules, *others, ours=None):
    """What is applied to a live object of which we own all that is declared, or `ours`."""
    entries = [entry("driftwatch", owned(declared) if ours is None else ours), *others]
    body, ignored = effective(orjson.dumps(declared), live, Metadata(managedFields=entries), rules)
    return orjson.loads(body), ignored


def pointers(document, prefix=()):
    """Every path of maps in a document."""
    if isinstance(document, dict):
        for name, child in document.items():
            yield (*prefix, name)
            yield from pointers(child, (*prefix, name))


def rule(*written, **fields):
    return Rule("test", pointers=tuple(map(parse_pointer, written)), **fields)


@given(documents, st.data())
def test_what_we_own_goes_with_its_live_value_and_all_else_with_gits(declared, data):
    """Of the ignored fields the body has the live value, of every other one Git's."""
    chosen = data.draw(st.sampled_from(sorted(pointers(declared))))
    live = copy.deepcopy(declared)
    path = tuple(f"f:{name}" for name in chosen)
    put(live, path, data.draw(values))
    ours = owned(live)  # a write under our own name, so that we own what is there

    body, ignored = applied(declared, live, [Rule("test", pointers=(chosen,))], ours=ours)

    assert ignored == [path]
    assert body == live


@given(documents, st.data())
def test_what_others_own_is_left_out(declared, data):
    """A field that somebody else owns is not in the body, and its siblings are Git's."""
    chosen = data.draw(st.sampled_from(sorted(pointers(declared))))
    path = tuple(f"f:{name}" for name in chosen)
    without = copy.deepcopy(declared)
    cut(without, path)

    body, _ = applied(
        declared, declared, [Rule("test", pointers=(chosen,))], entry("other", owned(declared)), ours=owned(without)
    )

    assert body == without
    assert lookup(body, path) is MISSING


@given(documents, documents, st.data())
def test_leaving_out_twice_leaves_out_no_more(declared, live, data):
    """The body that was made for a live object is the body that is made of it again."""
    chosen = data.draw(st.lists(st.sampled_from(sorted(pointers(declared))), min_size=1, max_size=3))
    rules = [Rule("test", pointers=tuple(chosen))]
    ours = data.draw(st.sampled_from([owned(declared), owned(live), {}]))

    once, _ = applied(declared, live, rules, ours=ours)
    twice, _ = applied(once, live, rules, ours=ours)

    assert twice == once


@given(documents, documents)
def test_a_rule_that_matches_nothing_changes_nothing(declared, live):
    """Pointers, paths and managers of what is not there leave the body as it is, byte by byte."""
    nothing = [rule("/none/there"), Rule("path", paths=(parse_path("$.none[*].x"),)), Rule("owner", owners=(OTHER,))]
    body = orjson.dumps(declared)
    metadata = Metadata(managedFields=[entry("driftwatch", owned(declared))])

    assert effective(body, live, metadata, nothing) == (body, [])


OTHER = FieldOwner("other-*")
CONTAINERS = {
    "containers": [
        {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}]},
        {"name": "b", "image": "b:1"},
    ]
}


def _live(**changes):
    found = copy.deepcopy(CONTAINERS)
    found["containers"][0] |= changes
    return found


def test_an_ignored_item_stays_where_it_is_in_its_list():
    """The order of a keyed list means something: of containers, and of variables that refer to one another."""
    live = _live(env=[{"name": "X", "value": "2"}, {"name": "Y", "value": "1"}])
    path = parse_path('containers[?name=="a"].env[?name=="X"]')

    body, _ = applied(CONTAINERS, live, [Rule("test", paths=(path,))])

    assert body == live


def test_of_an_item_that_is_partly_ours_the_body_has_that_part():
    """Somebody owns the value of a variable: the variable stays ours, without its value."""
    ours = owned(CONTAINERS)
    del ours["f:containers"][key("a")]["f:env"][key("X")]["f:value"]
    theirs = {"f:containers": {key("a"): {"f:env": {key("X"): {"f:value": {}}}}}}
    live = _live(env=[{"name": "X", "value": "2"}, {"name": "Y", "value": "1"}])
    path = parse_path('containers[*].env[?name=="X"]')

    body, _ = applied(CONTAINERS, live, [Rule("test", paths=(path,))], entry("other-1", theirs, "Update"), ours=ours)

    assert body["containers"][0]["env"] == [{"name": "X"}, {"name": "Y", "value": "1"}]


def test_a_list_that_is_ignored_as_a_whole_goes_in_its_live_order():
    """Field sets are sorted by name; what is sent back is in the order of the live list."""
    live = _live(env=[{"name": "Y", "value": "1"}, {"name": "X", "value": "1"}])

    body, _ = applied(CONTAINERS, live, [Rule("test", paths=(parse_path("containers[*].env"),))])

    assert [one["name"] for one in body["containers"][0]["env"]] == ["Y", "X"]


def test_who_applies_a_field_of_an_item_owns_that_field_alone():
    """The item and its key are in such an entry, too: they are ours as well, and so is everything beside the field."""
    ours = owned(CONTAINERS)
    del ours["f:containers"][key("a")]["f:image"]
    theirs = {"f:containers": {key("a"): {".": {}, "f:name": {}, "f:image": {}}}}

    body, ignored = applied(
        CONTAINERS, _live(image="a:2"), [Rule("test", owners=(OTHER,))], entry("other-1", theirs), ours=ours
    )

    assert ignored == [("f:containers", key("a"), "f:image")]
    assert body == {
        "containers": [
            {k: v for k, v in CONTAINERS["containers"][0].items() if k != "image"},
            CONTAINERS["containers"][1],
        ]
    }


def test_an_item_that_is_nothing_of_ours_is_left_out_as_a_whole():
    """Half of somebody else's item, its key, would make us its owner and keep it from being removed."""
    ours = owned(CONTAINERS)
    del ours["f:containers"][key("b")]
    theirs = {"f:containers": {key("b"): owned(CONTAINERS)["f:containers"][key("b")]}}

    body, _ = applied(CONTAINERS, CONTAINERS, [Rule("test", owners=(OTHER,))], entry("other-1", theirs), ours=ours)

    assert [one["name"] for one in body["containers"]] == ["a"]


def test_fields_and_managers_together_hold_only_while_one_of_them_is_the_owner():
    """Replicas are the autoscaler's once it has scaled; scaled by hand they are Git's."""
    declared = {"spec": {"replicas": 2, "paused": False}}
    ours = {"f:spec": {"f:paused": {}}}
    scaled = {"f:spec": {"f:replicas": {}}}
    rules = [rule("/spec/replicas", owners=(FieldOwner("kube-controller-manager", "scale"),))]

    for manager, subresource, expected in (
        ("kube-controller-manager", "scale", {"spec": {"paused": False}}),
        ("kube-controller-manager", "", declared),
        ("kubectl", "scale", declared),
    ):
        other = entry(manager, scaled, "Update", subresource)
        assert applied(declared, declared, rules, other, ours=ours)[0] == expected


def test_a_place_in_an_atomic_field_means_all_of_that_field():
    """Nobody can own a part of a selector."""
    declared = {"selector": {"app": "x", "tier": "y"}, "ports": 1}

    body, ignored = applied(
        declared, declared, [rule("/selector/app")], entry("other", {"f:selector": {}}), ours={"f:ports": {}}
    )

    assert ignored == [("f:selector",)]
    assert body == {"ports": 1}


MARKS = {"driftwatch.io/id": "/ConfigMap/shop/settings", "driftwatch.io/desired-hash": "new"}
TRACKED = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {
        "name": "settings",
        "labels": {"driftwatch.io/source": "shop", "tier": "git"},
        "annotations": {**MARKS, "note": "git"},
    },
    "data": {"colour": "git"},
}
EVERYTHING = [
    *(
        [rule(pointer)]
        for pointer in ("/metadata", "/metadata/labels", "/metadata/annotations", "/apiVersion", "/kind")
    ),
    [rule(*(f"/metadata/{at}/driftwatch.io~1{name}" for at, name in (("labels", "source"), ("annotations", "id"))))],
    *(
        [Rule("path", paths=(parse_path(path),))]
        for path in ("$", "$.*", "$..*", "$.metadata.*.*", "$..name", "$.kind")
    ),
    [Rule("owner", owners=(FieldOwner("*"),))],
    [rule("/metadata", owners=(FieldOwner("*"),))],
]


def _identity(body):
    metadata = body["metadata"]
    return (
        body["apiVersion"],
        body["kind"],
        metadata["name"],
        metadata["labels"]["driftwatch.io/source"],
        {name: metadata["annotations"][name] for name in MARKS},
    )


@pytest.mark.parametrize("rules", EVERYTHING)
@pytest.mark.parametrize("lost", [False, True], ids=["forged", "lost"])
@pytest.mark.parametrize("owner", ["driftwatch", "other"])
def test_a06_what_tells_that_an_object_is_ours_is_gits_under_every_rule(rules, lost, owner):
    """Whoever owns it, and whether it has another value or is gone: the body has label, annotations and name."""
    live = copy.deepcopy(TRACKED)
    for field in ("labels", "annotations"):
        for name in live["metadata"][field]:
            live["metadata"][field][name] = "live"
    if lost:
        live["metadata"] = {"name": "settings", "labels": {"tier": "live"}}
    fields = {name: owned(live[name]) for name in ("metadata", "data")}
    fields = {f"f:{name}": field for name, field in fields.items()}
    fields["f:metadata"].pop("f:name")
    entries = [entry(owner, fields)]

    body, ignored = effective(orjson.dumps(TRACKED), live, Metadata(managedFields=entries), rules)

    assert _identity(orjson.loads(body)) == _identity(TRACKED)
    assert not [path for path in ignored if path[-1].startswith("f:driftwatch.io/")]


def test_a_rule_on_all_labels_leaves_to_others_those_that_are_not_ours_in_any_case():
    """Of what Git declares, and of what it declared once: the live values are kept."""
    live = copy.deepcopy(TRACKED)
    live["metadata"]["labels"] |= {"tier": "live", "dropped": "live"}
    ours = {"f:metadata": {"f:labels": {".": {}, **owned(live["metadata"]["labels"])}}, "f:data": {"f:colour": {}}}

    body, ignored = applied(TRACKED, live, [rule("/metadata/labels")], ours=ours)

    assert set(ignored) == {("f:metadata", "f:labels", f"f:{name}") for name in ("tier", "dropped")}
    assert body == {**TRACKED, "metadata": {**TRACKED["metadata"], "labels": live["metadata"]["labels"]}}


def test_a_rule_that_is_only_about_what_is_ours_in_any_case_leaves_nothing_to_others():
    """Nothing is to be looked at before such an object is created anew."""
    declared = {"metadata": {"name": "settings", "labels": {"driftwatch.io/source": "shop"}}}

    assert yielded_paths(declared, [], [rule("/metadata/labels"), rule("/metadata/name")]) == []


def test_of_a_secret_a_plain_pointer_is_enough():
    """No values are known by a Secret's event; who owns what tells which of its keys a rule is about."""
    entries = [entry("driftwatch", {"f:data": {"f:token": {}, "f:user": {}}})]

    assert ignored_paths({"metadata": {}}, entries, [rule("/data/token")]) == [("f:data", "f:token")]


@pytest.mark.parametrize("pointer", ["/spec/containers/1/image", "/spec/containers/1"])
def test_a_position_in_a_list_is_that_in_git(pointer):
    """Whatever the live order is: the field set tells items by their keys."""
    declared = {"spec": CONTAINERS}

    [path] = ignored_paths(declared, [entry("driftwatch", owned(declared))], [rule(pointer)])

    assert path[:3] == ("f:spec", "f:containers", key("b"))


@given(documents, st.data(), values)
def test_what_is_put_is_found_and_what_is_cut_is_gone(document, data, value):
    """`put` and `cut` touch their path and nothing beside it."""
    path = data.draw(st.sampled_from(leaves(owned(document))))
    if path[-1] == "f:name" or path[-1].startswith("k:"):
        return
    before = copy.deepcopy(document)
    put(document, path, value)
    assert lookup(document, path) == value
    cut(document, path)
    assert lookup(document, path) is MISSING
    cut(before, path)
    assert document == before


@given(documents, documents)
def test_a_merged_field_set_has_what_both_have(one, other):
    """Merging loses no path and invents none."""
    merged = {}
    merge(merged, owned(one))
    merge(merged, owned(other))

    both = {*leaves(owned(one)), *leaves(owned(other))}
    assert set(leaves(merged)) == both
