"""Detects fights: objects that another manager changes again and again. Slows down their heals.

Five heals a minute make an object contested, and the fight is reported. A person who deletes the same object all day
does not slow down its heals. Each object has a bucket of heals, which only a machine can empty. Then each heal waits
longer than the one before, so that two conflicting controllers do not overload the API server. The waits end when the
other manager stops.
"""

import math

from driftwatch.drift.object_state import Fight, ObjectStates
from driftwatch.model import ObjectKey

RATE_SECONDS = 60.0
"""The rate grows by one with each heal and decays by the factor e in this time."""

CONTESTED_RATE = 5.0
RESOLVED_RATE = 1.0
"""Below this rate a fight is over. A single heal does not exceed it."""

FORGOTTEN_RATE = 0.05
"""Below this rate a fight is dropped. A single heal decays to it in three minutes."""

BUCKET = 100.0
"""Heals of one object without a wait. One token is added each second."""

FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
RESOLVED_SECONDS = 60.0
"""Seconds without drift after a heal that end the waits."""


class FightDetector:
    """Detects fights and computes the waits between heals. Pure: the caller passes the time.

    The state of an object stores its fight. `_fighting` lists the objects with a fight, so that the end of a fight is
    found without a scan of all objects.
    """

    def __init__(self, states: ObjectStates) -> None:
        self._states = states
        self._fighting: set[ObjectKey] = set()

    def wait(self, key: ObjectKey, now: float) -> float:
        """Seconds until drift of the object may be healed. 0 means at once."""
        fight = self._fight(key)
        if fight is None or not fight.wait:
            return 0.0
        if fight.drifted_at < 0.0:  # first call since the last heal: the object drifted now
            fight.drifted_at = now
        if fight.drifted_at - fight.healed_at >= RESOLVED_SECONDS:
            fight.wait, fight.tokens = 0.0, BUCKET
            return 0.0
        return max(0.0, fight.due - now)

    def healed(self, key: ObjectKey, opponent: str, now: float) -> Fight:
        """Count a heal. Returns the fight: whether the object is contested, and by which manager."""
        state = self._states.of(key)
        fight = state.fight = state.fight or Fight(tokens=BUCKET, healed_at=now)
        self._fighting.add(key)
        fight.rate = rate_at(fight, now) + 1.0
        fight.tokens = min(BUCKET, fight.tokens + now - fight.healed_at) - 1.0
        fight.healed_at, fight.drifted_at = now, -1.0
        fight.opponent = opponent or fight.opponent
        fight.contested = fight.contested or fight.rate >= CONTESTED_RATE
        if fight.wait or fight.tokens < 1.0:
            fight.wait = min(LONGEST_WAIT, max(FIRST_WAIT, fight.wait * 2.0))
            fight.due = now + fight.wait
        return fight

    def forget(self, key: ObjectKey) -> bool:
        """Drop the fight after a new commit, or if Git drops the object. Returns whether it was contested."""
        fight = self._fight(key)
        self._end(key)
        return fight is not None and fight.contested

    @property
    def any_left(self) -> bool:
        """Whether any fight is left for `resolved` to check."""
        return bool(self._fighting)

    def resolved(self, now: float) -> list[ObjectKey]:
        """Objects whose fights have ended since the last call. Drops fights below `FORGOTTEN_RATE`."""
        over = []
        for key in list(self._fighting):
            fight = self._fight(key)
            if fight is None:
                self._end(key)
                continue
            rate = rate_at(fight, now)
            if rate >= RESOLVED_RATE or (fight.wait and now < fight.due + RESOLVED_SECONDS):
                continue
            if fight.contested:
                fight.contested = False
                over.append(key)
            if rate < FORGOTTEN_RATE:
                self._end(key)
        return over

    def _fight(self, key: ObjectKey) -> Fight | None:
        state = self._states.get(key)
        return state.fight if state is not None else None

    def _end(self, key: ObjectKey) -> None:
        self._fighting.discard(key)
        state = self._states.get(key)
        if state is not None:
            state.fight = None


def rate_at(fight: Fight, now: float) -> float:
    """Heals a minute, decayed since the last heal."""
    return fight.rate * math.exp(-(now - fight.healed_at) / RATE_SECONDS)
