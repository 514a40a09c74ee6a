"""The tasks of the daemon's parts: ended together, and one that crashes is reported."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Made on a running event loop. `crash` has the first exception that ended a task."""

    def __init__(self) -> None:
        self.crash: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._running: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task. It may end by itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._on_end)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their end."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.crash.done():
            self.crash.set_result(error)
