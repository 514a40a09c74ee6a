"""Values of Hypothesis' strategies for whoever is no property test: the same for the same number."""

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")


def drawn(strategy: st.SearchStrategy[T], number: int, count: int = 1) -> list[T]:
    """About so many values, drawn at random from where `number` begins; there is at least one."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=count + 1,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    draw: Callable[[], None] = take
    draw()
    return found[1:] or found  # the first is the simplest that there is, whatever the number
