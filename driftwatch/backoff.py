"""How long to wait before what has failed is tried again."""

import random
from collections.abc import Callable

_MOST_DOUBLED = 20  # times: a number that is far above every longest wait, and never overflows


def backoff(
    failures: int,
    first: float,
    longest: float,
    *,
    least: float = 0.5,
    draw: Callable[[], float] = random.random,
) -> float:
    """Seconds to wait after so many failures in a row: `first`, doubled with each one after that, up to `longest`.

    Jitter leaves at least the part `least` of it, so that not everybody comes back at the same moment. `draw` gives
    random numbers from 0 to 1.
    """
    return min(first * 2.0 ** min(max(failures - 1, 0), _MOST_DOUBLED), longest) * (least + (1.0 - least) * draw())
