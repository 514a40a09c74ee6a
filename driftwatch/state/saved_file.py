"""A state file that is saved again and again, one save at a time."""

import asyncio
from pathlib import Path

from driftwatch.files import write_private


class SavedFile:
    """A private file that is saved again and again: saves never overlap, and the last content wins.

    A save goes on in its thread when the task that waits for it is cancelled; the next one waits for it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: asyncio.Future[None] | None = None

    async def save(self, content: bytes) -> None:
        """Write the content. Raises `OSError`."""
        self._last = asyncio.ensure_future(self._write(content, after=self._last))
        self._last.add_done_callback(lambda save: save.cancelled() or save.exception())  # nobody may be left to take it
        await asyncio.shield(self._last)

    async def _write(self, content: bytes, after: asyncio.Future[None] | None) -> None:
        if after is not None:
            await asyncio.wait({after})
        await asyncio.to_thread(write_private, self.path, content)
