"""What differed last, by name: few objects, and none that an alert waits for is hidden by others."""

import pytest
from driftwatch.model import NAMESPACE, Drift, DriftType, GroupKind, ObjectKey
from driftwatch.report.drift_event import UNKNOWN
from driftwatch.report.recent import CONTROLLER, KEPT_SECONDS, MOST, PERSON, Latest, Seen
from hypothesis import given
from hypothesis import strategies as st

MAP = GroupKind("", "ConfigMap")
NOW = 1_000_000_000.0


def seen(name, namespace="shop", *, kind=MAP, drift_type=DriftType.MODIFIED, actor=CONTROLLER, source="apps", time=NOW):
    return Seen(time, Drift(ObjectKey(*kind, namespace, name), source, drift_type, actor, ()), actor)


def lost(name):
    return seen(name, "", kind=NAMESPACE, drift_type=DriftType.DELETED, actor=UNKNOWN)


def added(*drifts):
    latest = Latest()
    for each in drifts:
        latest.add(each)
    return set(latest.since(0.0))


CONTENTS = [seen(f"map-{number}", drift_type=DriftType.DELETED, actor=UNKNOWN) for number in range(2 * MOST)]
NAMESPACES = [seen(f"lab-{number}", "", kind=NAMESPACE, drift_type=DriftType.ADDED) for number in range(2 * MOST)]
EVERYWHERE = [seen("map", f"lab-{number}") for number in range(2 * MOST)]
BY_HAND = [seen(f"map-{number}", "lab", actor=PERSON) for number in range(2 * MOST)]


@pytest.mark.parametrize("noise", [CONTENTS, NAMESPACES, EVERYWHERE, BY_HAND])
def test_a_deleted_namespace_is_named_whatever_drifts_after_it(noise):
    """It is healed first, and then what was in it, all before a scrape."""
    assert lost("shop") in added(lost("shop"), *noise)


def test_a_deleted_namespace_is_named_though_it_differs_again_in_another_way():
    again = seen("shop", "", kind=NAMESPACE, drift_type=DriftType.ADDED)
    assert added(lost("shop"), again) == {lost("shop"), again}


@pytest.mark.parametrize("noise", [CONTENTS, NAMESPACES, EVERYWHERE, BY_HAND])
def test_what_a_person_changed_is_named_whatever_drifts_after_it(noise):
    """Though it be by hand as well, so long as it is elsewhere: what is production the rule says, not the daemon."""
    edit = seen("web", "shop-prod", actor=PERSON)
    assert edit in added(edit, *noise)


def test_what_a_person_changed_is_named_though_a_controller_changes_it_again():
    edit, again = seen("web", actor=PERSON), seen("web", actor=CONTROLLER)
    assert added(edit, again) == {edit, again}


def test_an_object_is_named_with_its_last_drift():
    """One drift a list, wherever the object is declared by now."""
    assert added(seen("web", time=NOW - 60), seen("web", source="infra")) == {seen("web", source="infra")}


def test_of_one_place_the_latest_are_named():
    assert added(*CONTENTS) == set(CONTENTS[-MOST:])


def test_what_is_told_of_no_more_gives_way_first():
    """Else what is over for long would keep out what has just happened where more has."""
    old = [seen(f"map-{number}", "lab", time=NOW - KEPT_SECONDS - 1) for number in range(MOST // 4)]
    new = [seen(f"map-{number}") for number in range(MOST)]
    assert added(*old, *new) == set(new)


@given(
    st.lists(
        st.builds(
            seen,
            st.sampled_from("abcdef"),
            st.sampled_from(["", "shop", "lab", "shop-prod"]),
            kind=st.sampled_from([MAP, NAMESPACE]),
            drift_type=st.sampled_from(DriftType),
            actor=st.sampled_from([PERSON, CONTROLLER, UNKNOWN]),
            source=st.sampled_from(["apps", "infra"]),
            time=st.floats(NOW, NOW + 2 * KEPT_SECONDS),
        ),
        min_size=1,
        max_size=100,
    )
)
def test_however_much_drifts_the_names_are_few_and_each_makes_one_series(drifts):
    """No series twice, which Prometheus would refuse, and the last drift is always told of."""
    latest = Latest(most=3)
    for each in drifts:
        latest.add(each)
        named = list(latest.since(0.0))
        assert len(named) <= 3 * 3
        assert len({(*one.drift.key, one.drift.type, one.drift.manager, one.actor) for one in named}) == len(named)
        assert each in named
