"""Hypothesis profiles: `short` draws the same examples in every run, `long` at random and twenty times as many."""

from hypothesis import settings

USUAL = 100  # examples of a test that asks for no number, as Hypothesis has it
TIMES = 20

settings.register_profile("short", derandomize=True, max_examples=USUAL)
settings.register_profile("long", max_examples=TIMES * USUAL, print_blob=True)


def examples(number: int) -> int:
    """How many examples a test draws that takes `number` of them in the short profile."""
    return number * settings().max_examples // USUAL
