"""How CPU time grows with the size of the input, measured so that other load on the machine does not matter."""

import gc
import time
from collections.abc import Callable

LEAST_ROUNDS = 5
MOST_ROUNDS = 40
CLEAR = 1.5
"""So many times the limit is no doubt."""


def assert_linear(work: Callable[[int], Callable[[], object]], few: int, times: int = 8) -> None:
    """Assert that `times` the size costs less than `times ** 1.5` the CPU: between linear and quadratic.

    `work(size)` prepares work of a size and returns it. The sizes take turns, so that load meets both, and the
    cheapest round of each counts. While it is in doubt, there are more rounds.
    """
    small, large = work(few), work(times * few)
    limit = times**1.5
    least, most = float("inf"), float("inf")
    gc.collect()
    gc.disable()  # a full collection costs what other tests have left behind
    try:
        for each in range(MOST_ROUNDS):
            least, most = min(least, _seconds(small)), min(most, _seconds(large))
            if each + 1 >= LEAST_ROUNDS and most < limit * least:
                return
            if each + 1 >= LEAST_ROUNDS and most > CLEAR * limit * least:
                break
    finally:
        gc.enable()
    raise AssertionError(f"{times} times the size cost {most / least:.1f} times the CPU")


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
