"""The wait before another try."""

import pytest
from driftwatch.backoff import backoff


@pytest.mark.parametrize(("failures", "seconds"), [(0, 1.0), (1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (5000, 10.0)])
def test_the_wait_doubles_up_to_the_longest(failures: int, seconds: float) -> None:
    """By each failure in a row after the first, and without end."""
    assert backoff(failures, 1.0, 10.0, draw=lambda: 1.0) == seconds


def test_jitter_takes_at_most_its_part() -> None:
    """Half of the wait, or what the caller says."""
    assert backoff(3, 1.0, 10.0, draw=lambda: 0.0) == 2.0
    assert backoff(3, 1.0, 10.0, draw=lambda: 0.0, least=0.75) == 3.0
    assert 2.0 <= backoff(3, 1.0, 10.0) <= 4.0
