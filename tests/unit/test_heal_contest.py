"""When an object is contested, and how fast it is put back then."""

import pytest
from driftwatch.drift.object_state import ObjectStates
from driftwatch.model import ObjectKey
from driftwatch.reconcile.fights import BUCKET, LONGEST_WAIT, RESOLVED_SECONDS, FightDetector
from hypothesis import given
from hypothesis import strategies as st

WEB = ObjectKey("apps", "Deployment", "shop", "web")


def _heal_often(contest: FightDetector, times: int, apart: float, start: float = 0.0) -> float:
    """Let the object be changed and put back so many times; returns when the last heal was."""
    now = start
    for _ in range(times):
        now += apart
        now += contest.wait(WEB, now)
        contest.healed(WEB, "operator", now)
    return now


def test_the_sixth_heal_within_a_minute_makes_an_object_contested():
    """Five heals at once are five of heat; spread over a minute it takes one or two more."""
    contest = FightDetector(ObjectStates())
    assert [contest.healed(WEB, "operator", 0.0).contested for _ in range(5)] == [False] * 4 + [True]


def test_a_heal_a_minute_is_no_contest():
    """Who changes something now and then is no opponent."""
    contest = FightDetector(ObjectStates())
    _heal_often(contest, 1000, 60.0)
    assert not contest.healed(WEB, "", 60_001.0).contested


@given(st.lists(st.floats(1.0, 3600.0), min_size=1, max_size=300))
def test_a_person_is_never_slowed_down(pauses):
    """Who changes an object at most once a second, all day, has it put back at once each time."""
    contest, now = FightDetector(ObjectStates()), 0.0
    for pause in pauses:
        now += pause
        assert contest.wait(WEB, now) == 0.0
        contest.healed(WEB, "kubectl-edit", now)


def test_a_machine_is_slowed_down_to_one_heal_in_five_minutes():
    """A hundred heals at full speed, then each waits twice as long as the one before."""
    contest = FightDetector(ObjectStates())
    now = _heal_often(contest, int(BUCKET), 0.001)
    waits = []
    for _ in range(12):
        waits.append(contest.wait(WEB, now))
        now += waits[-1]
        contest.healed(WEB, "operator", now)
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300], abs=0.01)


@given(st.integers(1, 400), st.floats(0.0, 0.5))
def test_no_fight_costs_more_than_the_bucket_and_its_refill(heals, apart):
    """Whatever the pace, heals at full speed are never more than the bucket and one a second."""
    contest, now = FightDetector(ObjectStates()), 0.0
    for count in range(1, heals + 1):
        now += apart
        if contest.wait(WEB, now):
            break
        contest.healed(WEB, "operator", now)
        assert count <= BUCKET + now + 1


def test_calm_ends_the_waiting():
    """What stayed as it was put back for a minute is healed at full speed when it drifts the next time."""
    contest = FightDetector(ObjectStates())
    now = _heal_often(contest, 105, 0.001)
    assert contest.wait(WEB, now) > 0.0

    now += contest.wait(WEB, now)
    contest.healed(WEB, "operator", now)
    assert contest.wait(WEB, now + RESOLVED_SECONDS + 1.0) == 0.0
    assert not contest.healed(WEB, "operator", now + LONGEST_WAIT).wait


def test_waiting_is_not_calm():
    """An object that drifted at once and waits for five minutes to be healed is fought over all the same."""
    contest = FightDetector(ObjectStates())
    now = _heal_often(contest, 110, 0.001)
    wait = contest.wait(WEB, now)
    assert wait > RESOLVED_SECONDS
    assert contest.wait(WEB, now + wait - 1.0) == pytest.approx(1.0)
    assert contest.healed(WEB, "operator", now + wait).wait > wait


def test_a_new_commit_begins_anew():
    """What Git changes is no part of the fight."""
    contest = FightDetector(ObjectStates())
    now = _heal_often(contest, 110, 0.001)
    assert contest.forget(WEB)
    assert contest.wait(WEB, now) == 0.0
    assert not contest.healed(WEB, "operator", now).contested


def test_a_contested_object_cools_down():
    """It is told of once, and nothing is remembered afterwards."""
    contest = FightDetector(ObjectStates())
    now = _heal_often(contest, 6, 0.1)
    assert contest.healed(WEB, "operator", now).contested
    assert not list(contest.resolved(now + 30.0))
    assert list(contest.resolved(now + 150.0)) == [WEB]
    assert not list(contest.resolved(now + 151.0))
    assert not contest.healed(WEB, "operator", now + 151.0).contested


def test_the_opponent_is_the_last_that_was_named():
    """A deletion names nobody; then it is whoever was named before."""
    contest = FightDetector(ObjectStates())
    contest.healed(WEB, "operator", 0.0)
    assert contest.healed(WEB, "", 1.0).opponent == "operator"


OTHER = ObjectKey("", "ConfigMap", "shop", "other")


def test_looking_for_calm_objects_forgets_no_warm_one():
    """Five heals a minute are a contest, however often it is looked whether others have calmed down meanwhile."""
    contest = FightDetector(ObjectStates())
    for now in range(1000, 1240, 12):
        fight = contest.healed(WEB, "operator", float(now))
        for look in range(now, now + 12, 5):
            assert not list(contest.resolved(float(look)))
    assert fight.contested


def test_what_is_cold_is_forgotten():
    """Who heals ten thousand objects once remembers none of them for long, contested or not."""
    contest = FightDetector(ObjectStates())
    contest.healed(WEB, "operator", 0.0)
    _heal_often(contest, 6, 0.1)
    contest.healed(OTHER, "", 1.0)
    assert list(contest.resolved(3600.0)) == [WEB]
    assert not contest.any_left
