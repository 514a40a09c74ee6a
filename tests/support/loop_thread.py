"""An event loop in a thread of its own, for what serves while a test goes on in the main thread."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
WORK_SECONDS = 10.0
CLOSING_SECONDS = 0.05  # a connection is closed some turns of the loop later


class LoopThread:
    """The loop runs from the beginning; `end` it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Have the loop do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout=WORK_SECONDS)

    def end(self) -> None:
        """Cancel whatever still goes on, and end the thread."""

        async def stop() -> None:
            tasks = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(CLOSING_SECONDS)

        self.do(stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
