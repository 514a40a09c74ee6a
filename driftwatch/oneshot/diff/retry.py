"""Retries requests of commands that run once and so have no queue.

A kind whose CustomResourceDefinition is new answers 429 until its storage is ready. So does a busy API server.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from driftwatch.backoff import backoff
from driftwatch.cluster.errors import ApiError, ClusterError
from driftwatch.reconcile.outcome import Outcome, classify

TRIES = 5
FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 10.0  # seconds between tries, also if Retry-After is longer

T = TypeVar("T")


async def with_retries(request: Callable[[], Awaitable[T]]) -> T:
    """Return the result of `request`, after up to `TRIES` tries. Raises the last `ClusterError`."""
    for attempt in range(1, TRIES):
        try:
            return await request()
        except ClusterError as error:
            if classify(error) is not Outcome.RETRY:
                raise
            asked_for = error.retry_after if isinstance(error, ApiError) else 0.0
            await asyncio.sleep(min(LONGEST_PAUSE, max(asked_for, backoff(attempt, FIRST_PAUSE, LONGEST_PAUSE))))
    return await request()
