"""The two lanes in which keys wait: what has drifted goes before what Git has changed."""

from enum import IntEnum


class Lane(IntEnum):
    """Which keys go first."""

    DRIFT = 0
    SYNC = 1


LANES = tuple(Lane)
"""All of them, the fastest first; to go through an enumeration takes longer than what the queue does with each."""
