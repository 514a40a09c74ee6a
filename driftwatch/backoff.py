"""Exponential backoff with jitter."""

import random
from collections.abc import Callable

_MOST_DOUBLED = 20  # doublings: far above any maximum wait, and no overflow


def backoff(
    failures: int,
    first: float,
    longest: float,
    *,
    least: float = 0.5,
    draw: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after `failures` failures in a row: `first`, doubled with each further one, up to `longest`.

    Jitter keeps at least the fraction `least` of the wait, so that clients do not retry at the same moment. `draw`
    returns random numbers from 0 to 1.
    """
    return min(first * 2.0 ** min(max(failures - 1, 0), _MOST_DOUBLED), longest) * (least + (1.0 - least) * draw())
