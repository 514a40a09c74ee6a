"""Claims of several sources on the same objects, and kinds that nobody knows yet."""

import pytest
from driftwatch.drift.declared import Declared
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
    claim = declared.get(CONFIG_MAP)
    return claim and claim.source


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
