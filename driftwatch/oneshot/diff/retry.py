"""Asks the API server once, and again where that may help: commands that run once have no queue that tries later.

A kind whose definition has just come answers 429 until its storage is there; a busy API server answers so as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from driftwatch.backoff import backoff
from driftwatch.cluster.errors import ApiError, ClusterError
from driftwatch.reconcile.outcome import Outcome, classify

TRIES = 5
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 10.0  # seconds between tries, whatever the API server asks for

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives. Raises the last `ClusterError` when it helps nothing, or nothing any more, to ask again."""
    for attempt in range(1, TRIES):
        try:
            return await ask()
        except ClusterError as error:
            if classify(error) is not Outcome.RETRY:
                raise
            asked_for = error.retry_after if isinstance(error, ApiError) else 0.0
            await asyncio.sleep(min(LONGEST_PAUSE, max(asked_for, backoff(attempt, FIRST_PAUSE, LONGEST_PAUSE))))
    return await ask()
