"""Objects that somebody changes again and again: who it is, and how fast they are still put back.

Five heals a minute make an object contested, and that is said. A person who deletes the same thing all day is healed
at full speed all the same. Only a machine can empty the bucket of heals that each object has; then every heal waits
longer than the one before, so that two controllers that disagree do not wear out the API server. Calm ends it.
"""

import math
from collections.abc import Iterable

import msgspec

from driftwatch.model import ObjectKey

RATE_SECONDS = 60.0
"""Heat grows by one with each heal and cools by the factor e in this time."""

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


class Fight(msgspec.Struct):
    """What is remembered of an object that was healed lately; times as the clock gives them, in seconds."""

    heat: float = 0.0
    healed_at: float = 0.0
    drifted_at: float = -1.0
    tokens: float = BUCKET
    wait: float = 0.0
    due: float = 0.0
    opponent: str = ""
    contested: bool = False

    def rate_at(self, now: float) -> float:
        """The heat, cooled down since the last heal."""
        return self.heat * math.exp(-(now - self.healed_at) / RATE_SECONDS)


class FightDetector:
    """All fights. Pure: whoever asks brings the time."""

    def __init__(self) -> None:
        self._fights: dict[ObjectKey, Fight] = {}

    def wait(self, key: ObjectKey, now: float) -> float:
        """Seconds until the object, which has drifted, may be healed, 0 for at once."""
        fight = self._fights.get(key)
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
        fight = self._fights.setdefault(key, Fight(healed_at=now))
        fight.heat = fight.rate_at(now) + 1.0
        fight.tokens = min(BUCKET, fight.tokens + now - fight.healed_at) - 1.0
        fight.healed_at, fight.drifted_at = now, -1.0
        fight.opponent = opponent or fight.opponent
        fight.contested = fight.contested or fight.heat >= CONTESTED_RATE
        if fight.wait or fight.tokens < 1.0:
            fight.wait = min(LONGEST_WAIT, max(FIRST_WAIT, fight.wait * 2.0))
            fight.due = now + fight.wait
        return fight

    def forget(self, key: ObjectKey) -> bool:
        """Begin anew with the object: a new commit, or it is declared no more. Returns whether it was contested."""
        fight = self._fights.pop(key, None)
        return fight is not None and fight.contested

    @property
    def remembers_any(self) -> bool:
        """Whether there is anything that `cooled` may find calm, or forget."""
        return bool(self._fights)

    def cooled(self, now: float) -> Iterable[ObjectKey]:
        """Objects that were contested and are calm now. What is cold is forgotten, so that this stays small."""
        calm = []
        for key, fight in list(self._fights.items()):
            heat = fight.rate_at(now)
            if heat >= RESOLVED_RATE or (fight.wait and now < fight.due + RESOLVED_SECONDS):
                continue
            if fight.contested:
                fight.contested = False
                calm.append(key)
            if heat < FORGOTTEN_RATE:
                del self._fights[key]
        return calm
