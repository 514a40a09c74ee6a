"""Whose an object is that no snapshot declares, and what keeps it from being pruned."""

import orjson
import pytest
from driftwatch.drift.orphan import Orphan, PrunePolicy, kept_because, names_itself, read, taken_along
from driftwatch.model import CRD, NAMESPACE, GroupKind, Mode, ObjectKey
from hypothesis import given
from hypothesis import strategies as st

KEY = ObjectKey("", "ConfigMap", "shop", "settings")
ON = PrunePolicy(enabled=True)
WORDS = st.text("abz-./", min_size=1, max_size=6)


def orphan(**annotations: str) -> Orphan:
    return Orphan("apps", "uid", 1, 0.0, {}, {name.replace("__", "/"): said for name, said in annotations.items()})


@pytest.mark.parametrize(
    ("key", "identity", "own"),
    [
        (KEY, "/ConfigMap/shop/settings", True),
        (KEY, "/ConfigMap/shop/original", False),
        (KEY, "/ConfigMap/other/settings", False),
        (KEY, "/Secret/shop/settings", False),
        (KEY, "apps/ConfigMap/shop/settings", False),
        (KEY, "", False),
        (KEY, "/ConfigMap/shop/settings/", False),
        (ObjectKey("", "Namespace", "", "shop"), "/Namespace/default/shop", True),
        (ObjectKey("", "Namespace", "", "shop"), "/Namespace/default/other", False),
    ],
)
def test_an_object_is_ours_only_if_its_id_names_itself(key: ObjectKey, identity: str, own: bool) -> None:
    """A copy carries the id of its original."""
    assert names_itself(key, identity) is own


@given(group=WORDS, kind=WORDS, namespace=WORDS, name=WORDS, other=WORDS)
def test_a_copy_under_any_other_name_is_never_ours(
    group: str, kind: str, namespace: str, name: str, other: str
) -> None:
    """Whatever the names, an id names one object at most."""
    identity = f"{group}/{kind}/{namespace}/{name}"
    for copy in (
        ObjectKey(group, kind, namespace, other),
        ObjectKey(group, kind, other, name),
        ObjectKey(group, other, namespace, name),
        ObjectKey(other, kind, namespace, name),
    ):
        assert not names_itself(copy, identity) or copy == ObjectKey(group, kind, namespace, name)


def test_an_object_without_our_label_is_none_of_ours() -> None:
    """The label and the id must both be there."""
    metadata = {"resourceVersion": "7", "annotations": {"driftwatch.io/id": "/ConfigMap/shop/settings"}}
    assert read(KEY, orjson.dumps({"metadata": metadata}), 0.0) is None
    found = read(KEY, orjson.dumps({"metadata": {**metadata, "labels": {"driftwatch.io/source": "apps"}}}), 0.0)
    assert found is not None
    assert (found.source, found.version) == ("apps", 7)


@pytest.mark.parametrize("kind", ["Namespace", "PersistentVolumeClaim", "PersistentVolume"])
def test_kinds_that_take_others_along_need_consent(kind: str) -> None:
    """By the source, or by the object."""
    named = GroupKind("", kind)
    assert "needs consent" in kept_because(named, orphan(), ON, Mode.HEAL)
    assert not kept_because(named, orphan(), PrunePolicy(enabled=True, kinds=frozenset({kind})), Mode.HEAL)
    assert not kept_because(named, orphan(**{"driftwatch.io__prune": "confirmed"}), ON, Mode.HEAL)


def test_an_opt_out_counts_more_than_consent() -> None:
    """Whoever says that it stays is right."""
    consent = PrunePolicy(enabled=True, kinds=frozenset({"Namespace"}))
    assert kept_because(NAMESPACE, orphan(**{"driftwatch.io__prune": "disabled"}), consent, Mode.HEAL)
    assert kept_because(NAMESPACE, orphan(**{"helm.sh__resource-policy": "keep"}), consent, Mode.HEAL)
    assert kept_because(NAMESPACE, orphan(), consent, Mode.OBSERVE) == "mode observe"


@pytest.mark.parametrize("said", ["false", "confirm", "Disabled", "", "x" * 1000])
def test_a_wish_that_is_not_understood_keeps_the_object(said: str) -> None:
    """A deletion cannot be put back: whoever wrote it did not ask for one."""
    why = kept_because(KEY.group_kind, orphan(**{"driftwatch.io__prune": said}), ON, Mode.HEAL)
    assert why == f"the annotation driftwatch.io/prune is {said[:40]!r}, and must be disabled or confirmed"
    consent = PrunePolicy(enabled=True, kinds=frozenset({"Namespace"}))
    assert kept_because(NAMESPACE, orphan(**{"driftwatch.io__mode": said}), consent, Mode.HEAL).startswith(
        "the annotation driftwatch.io/mode is "
    )
    assert not kept_because(KEY.group_kind, orphan(**{"driftwatch.io__mode": "heal"}), ON, Mode.HEAL)


@given(count=st.integers(0, 500), stay=st.integers(0, 500), objects=st.integers(0, 50), percent=st.floats(0, 100))
def test_the_brake_needs_both_a_number_and_a_share(count: int, stay: int, objects: int, percent: float) -> None:
    """Few objects pass, however large their share; and a small share, however many they are."""
    policy = PrunePolicy(enabled=True, objects=objects, percent=percent)
    if policy.is_too_much(count, stay):
        assert count > objects
        assert count / (count + stay) * 100 > percent * 0.999
    elif count > objects:
        assert count / max(count + stay, 1) * 100 <= percent * 1.001


def test_what_goes_with_a_namespace_or_definition_is_named() -> None:
    """And nothing goes with anything else."""
    gadget = ObjectKey("example.com", "Gadget", "shop", "one")

    def crd_of(kind: GroupKind) -> str:
        return f"{kind.kind.lower()}s.{kind.group}"

    shop, lab = ObjectKey(*NAMESPACE, "", "shop"), ObjectKey(*NAMESPACE, "", "lab")
    gadgets = ObjectKey(*CRD, "", "gadgets.example.com")
    web = ObjectKey("apps", "Deployment", "shop", "web")
    assert taken_along([shop, lab, web], [KEY], crd_of) == {shop: KEY}
    assert taken_along([gadgets], [KEY, gadget], crd_of) == {gadgets: gadget}
    assert taken_along([web], [KEY, gadget], crd_of) == {}


def test_h12_what_leaves_is_checked_in_one_walk_over_what_stays():
    """Ten definitions and namespaces that leave cost one walk over all objects, and one name a kind."""
    stays = [ObjectKey("apps", "Deployment", f"n{number % 30}", f"d{number}") for number in range(1000)]
    leaving = [ObjectKey(*CRD, "", f"w{number}.x.io") for number in range(10)]
    leaving += [ObjectKey(*NAMESPACE, "", f"gone-{number}") for number in range(10)]
    walked, named = [], []

    def walk():
        for key in stays:
            walked.append(key)
            yield key

    def crd_of(kind):
        named.append(kind)
        return f"{kind.kind.lower()}s.{kind.group}"

    assert taken_along(leaving, walk(), crd_of) == {}
    assert len(walked) == len(stays)
    assert len(named) == 1
