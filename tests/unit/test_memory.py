"""How long the collector of garbage stops everything is told."""

import gc

from driftwatch import memory


def test_a_full_collection_is_told_with_its_seconds() -> None:
    """Young generations are not: they take microseconds, and there are many."""
    told: list[float] = []
    with memory.pauses_told(told.append):
        gc.collect(0)
        gc.collect(1)
        assert told == []
        gc.collect()
    assert len(told) >= 1
    assert all(0.0 < seconds < 60.0 for seconds in told)


def test_what_is_kept_is_not_looked_at_again() -> None:
    """Not even by a full collection, until it is let go of."""
    kept: list[object] = []
    kept.append(kept)
    try:
        memory.keep()
        assert not any(found is kept for found in gc.get_objects())
    finally:
        gc.unfreeze()


def test_nothing_is_told_afterwards() -> None:
    """The hook goes with the context, whatever happens in it."""
    told: list[float] = []
    before = list(gc.callbacks)
    with memory.pauses_told(told.append):
        pass
    gc.collect()
    assert told == []
    assert gc.callbacks == before
