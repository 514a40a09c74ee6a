"""Objects that somebody changes again and again: who it is, and how fast they are still put back.

Five heals a minute make an object contested, and that is said. A person who deletes the same thing all day is healed
at full speed all the same. Only a machine can empty the bucket of heals that each object has; then every heal waits
longer than the one before, so that two controllers that disagree do not wear out the API server. Calm ends it.
"""

import math

from driftwatch.drift.object_state import Fight, ObjectStates
from driftwatch.model import ObjectKey

RATE_SECONDS = 60.0
"""The rate grows by one with each heal and decays by the factor e in this time."""

CONTESTED_RATE = 5.0
RESOLVED_RATE = 1.0
"""Below it an object is not contested any more; a single heal is not above it."""

FORGOTTEN_RATE = 0.05
"""Below it nothing is left of a heal, three minutes after a single one: it is forgotten."""

BUCKET = 100.0
"""Heals of one object at full speed; one comes back each second."""

FIRST_WAIT = 1.0
LONGEST_WAIT = 300.0
RESOLVED_SECONDS = 60.0
"""An object that stays as it was put back for so long is not fought over."""


class FightDetector:
    """Finds objects that are changed again and again. Pure: the caller brings the time.

    A fight is in the state of its object. `_fighting` names the objects that have one, so that the end of a fight is
    found without a look at all objects.
    """

    def __init__(self, states: ObjectStates) -> None:
        self._states = states
        self._fighting: set[ObjectKey] = set()

    def wait(self, key: ObjectKey, now: float) -> float:
        """Seconds until the object, which has drifted, may be healed, 0 for at once."""
        fight = self._fight(key)
        if fight is None or not fight.wait:
            return 0.0
        if fight.drifted_at < 0.0:  # asked for the first time since the last heal: this is when it drifted
            fight.drifted_at = now
        if fight.drifted_at - fight.healed_at >= RESOLVED_SECONDS:
            fight.wait, fight.tokens = 0.0, BUCKET
            return 0.0
        return max(0.0, fight.due - now)

    def healed(self, key: ObjectKey, opponent: str, now: float) -> Fight:
        """Count a heal. The answer says whether the object is contested, and by whom."""
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
        """Start over with the object: a new commit, or Git does not declare it. Returns whether it was contested."""
        fight = self._fight(key)
        self._end(key)
        return fight is not None and fight.contested

    @property
    def any_left(self) -> bool:
        """Whether there is a fight that `resolved` may find over."""
        return bool(self._fighting)

    def resolved(self, now: float) -> list[ObjectKey]:
        """Objects that were contested and are not any more. Fights that are long over are dropped."""
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
