"""Waiting for something to come true: always with a bound, and with a message that helps when it does not."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0  # seconds; far beyond what anything here takes, so that only what never happens fails


def until(
    condition: Callable[[], T], what: str, *, timeout: float = PATIENCE, evidence: Callable[[], str] = lambda: ""
) -> T:
    """Return what `condition` gives once it is truthy; fail with `what` and `evidence` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {timeout:.0f} s: {what}\n{evidence()}")
        time.sleep(0.01)
    return result
