"""A state file with one save at a time."""

import asyncio
from pathlib import Path

from driftwatch.files import write_private


class SavedFile:
    """A file that only its owner can read. Saves never overlap, and the last content wins.

    When the waiting task is cancelled, the save continues in its thread. The next save waits for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: asyncio.Future[None] | None = None

    async def save(self, content: bytes) -> None:
        """Write the content. Raises `OSError`."""
        self._last = asyncio.ensure_future(self._write(content, after=self._last))
        # Retrieve the exception even if no task waits any more: asyncio would log it.
        self._last.add_done_callback(lambda save: save.cancelled() or save.exception())
        await asyncio.shield(self._last)

    async def _write(self, content: bytes, after: asyncio.Future[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        await asyncio.to_thread(write_private, self.path, content)
