"""Claims of several sources on the same objects, and kinds that nobody knows yet."""

import pytest
from driftwatch.drift.desired_state import Declared
from driftwatch.model import GroupKind, Manifest, ManifestId, ObjectKey

CONFIG_MAP = ObjectKey("", "ConfigMap", "shop", "settings")
WIDGET = GroupKind("example.com", "Widget")


def manifest(kind="ConfigMap", group="", namespace="shop", name="settings", digest="d1"):
    return Manifest(group, "v1", kind, namespace, name, b"{}", digest, "a.yaml", 1)


@pytest.fixture
def scopes():
    return {GroupKind("", "ConfigMap"): True, GroupKind("", "Namespace"): False}


@pytest.fixture
def declared(scopes):
    return Declared(["first", "second"], scopes.get)


def owner(declared):
    declaration = declared.get(CONFIG_MAP)
    return declaration and declaration.source


@pytest.mark.parametrize("arrival", [["first", "second"], ["second", "first"]])
def test_a14_the_first_source_owns_whatever_arrives_first(declared, arrival):
    """Ownership follows the configuration's order, so that a restart decides as before."""
    for source in arrival:
        declared.replace(source, [manifest()])
    assert owner(declared) == "first"
    (conflict,) = declared.conflicts()
    assert (conflict.owner.source, conflict.refused.source) == ("first", "second")


def test_a14_the_second_takes_over_when_the_first_drops_it(declared):
    """A waiting claim comes into force when the owner's is withdrawn, and the object is named as affected."""
    declared.replace("first", [manifest()])
    declared.replace("second", [manifest(digest="d2")])
    assert declared.replace("first", []) == {CONFIG_MAP}
    assert owner(declared) == "second"
    assert not declared.conflicts()


def test_a14_a_refused_claim_can_be_withdrawn(declared):
    """The owner is not touched when the refused source gives up."""
    declared.replace("first", [manifest()])
    declared.replace("second", [manifest()])
    assert declared.replace("second", []) == set()
    assert owner(declared) == "first"
    assert not declared.conflicts()


def test_a_change_names_what_it_affects(declared):
    """Upserts and removals are what has to be looked at again, nothing else."""
    declared.replace("first", [manifest(), manifest(name="other")])
    gone = ManifestId("", "ConfigMap", "shop", "other")
    affected = declared.change("first", [manifest(digest="d2")], [gone])
    assert affected == {CONFIG_MAP, CONFIG_MAP._replace(name="other")}
    assert declared.keys(GroupKind("", "ConfigMap")) == [CONFIG_MAP]


def test_cluster_scoped_kinds_have_no_namespace(declared):
    """The namespace of a manifest counts for kinds that have namespaces only."""
    declared.replace("first", [manifest(kind="Namespace", name="shop")])
    assert declared.keys(GroupKind("", "Namespace")) == [ObjectKey("", "Namespace", "", "shop")]


def test_unknown_kinds_wait_until_they_are_served(declared, scopes):
    """Without the scope there is no key; with it the objects are named."""
    assert declared.replace("first", [manifest("Widget", "example.com")]) == set()
    assert list(declared.unknown_kinds) == [WIDGET]
    scopes[WIDGET] = True
    assert declared.resolve(WIDGET) == {ObjectKey("example.com", "Widget", "shop", "settings")}
    assert not declared.unknown_kinds


def test_an_unknown_kind_can_leave_git_again(declared):
    """A manifest that was withdrawn while its kind was unknown does not come back with the kind."""
    declared.replace("first", [manifest("Widget", "example.com")])
    declared.replace("first", [])
    assert not declared.unknown_kinds


def test_h01_what_git_drops_while_its_kind_is_not_served_does_not_come_back_with_it(declared, scopes):
    """A claim is withdrawn under the key under which it was filed, whatever the API server serves by now."""
    scopes[WIDGET] = True
    declared.replace("first", [manifest("Widget", "example.com")])
    scopes[WIDGET] = None
    assert declared.replace("first", []) == {ObjectKey("example.com", "Widget", "shop", "settings")}
    scopes[WIDGET] = True
    assert declared.resolve(WIDGET) == set()
    assert declared.keys(WIDGET) == []


def test_h01_a_source_that_leaves_while_a_kind_is_not_served_leaves_nothing_behind(declared, scopes):
    """Another source may declare the same object afterwards, and owns it."""
    scopes[WIDGET] = True
    declared.replace("first", [manifest("Widget", "example.com")])
    scopes[WIDGET] = None
    declared.follow(["second"])
    scopes[WIDGET] = True
    (key,) = declared.replace("second", [manifest("Widget", "example.com")])
    assert declared.get(key).source == "second"


def test_h01_a_kind_that_comes_back_with_another_scope_has_its_objects_under_the_new_one(declared, scopes):
    """The keys of the old scope are named as affected, and nothing is left under them."""
    scopes[WIDGET] = True
    declared.replace("first", [manifest("Widget", "example.com")])
    scopes[WIDGET] = False
    before, after = (ObjectKey("example.com", "Widget", namespace, "settings") for namespace in ("shop", ""))
    assert declared.resolve(WIDGET) == {before, after}
    assert declared.keys(WIDGET) == [after]


def test_h01_two_namespaces_of_a_kind_without_any_are_one_object_declared_twice(declared):
    """The first one is in force, the other takes over when it goes, and neither takes the other along."""
    one, other = manifest("Namespace", namespace="a", name="shop"), manifest("Namespace", namespace="b", name="shop")
    declared.replace("first", [one, other])
    key = ObjectKey("", "Namespace", "", "shop")
    assert declared.states.of(key).manifest is one
    assert [conflict.refused.manifest for conflict in declared.conflicts()] == [other]
    assert declared.replace("first", [other]) == {key}
    assert declared.states.of(key).manifest is other
