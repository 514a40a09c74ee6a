"""Remembers on disk which manifest of each object was last in force.

After a restart it tells drift from sync: what changed under a manifest that had been applied is drift, also while we
were down; what a new commit changed is not. Beside it stands since when an object is snoozed, so that the cap on that
does not begin anew. Losing the file loses only that distinction, and of a snooze the beginning where nobody owns it.
"""

import asyncio
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from driftwatch.drift.detector import Detector
from driftwatch.drift.object_state import ObjectState
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.model import ObjectKey
from driftwatch.state.saved_file import SavedFile

SAVE_PERIOD = 5.0  # seconds
_ARRAY = b"\xdd"  # of MessagePack, with a length of four bytes
YIELD_EVERY = (
    100  # rows, a quarter of a millisecond; after so many the loop goes on to whatever else is to be done: heals
)

log = structlog.get_logger()


class _Stored(msgspec.Struct, array_like=True):
    """An object's row in the file; what a file of an earlier version does not have stands last."""

    group: str
    kind: str
    namespace: str
    name: str
    digest: str
    stamp: str
    version: int
    snooze: SnoozeRequest | None = None


class Remembered(NamedTuple):
    """Of an object: the digest in force, the stamp of our entry, and the resourceVersion in which it was in order.

    The version is 0 where it was not: it is looked at closely after a restart. `snooze` is what it wished when last
    seen.
    """

    digest: str = ""
    stamp: str = ""
    version: int = 0
    snooze: SnoozeRequest | None = None


class AppliedState:
    """Loads the file at start and keeps it up to date."""

    def __init__(self, detector: Detector) -> None:
        self._file: SavedFile | None = None
        self._detector = detector
        self._saved = -1
        self._encoder = msgspec.msgpack.Encoder()

    def keep_in(self, path: Path) -> None:
        """The file to use from now on."""
        self._file = SavedFile(path)

    def load(self) -> dict[ObjectKey, Remembered]:
        """What is remembered of each object; empty where there is no readable file."""
        if self._file is None:
            return {}
        try:
            stored = msgspec.msgpack.decode(self._file.path.read_bytes(), type=list[_Stored])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(
                "state file cannot be read; drift from before the start counts as sync",
                file=str(self._file.path),
                error=str(error),
            )
            return {}
        return {
            ObjectKey(row.group, row.kind, row.namespace, row.name): Remembered(
                row.digest, sys.intern(row.stamp), row.version, row.snooze
            )
            for row in stored
        }

    def _in_order(self, state: ObjectState) -> int:
        waits = state.accepted is None or state.observation is not None
        return 0 if waits else state.version

    async def run(self) -> None:
        """Save after changes, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_PERIOD)
            await self.save()

    async def save(self) -> None:
        """Write the file if anything changed. A full disk is reported and does not stop healing."""
        changes = self._detector.states.changes
        if changes == self._saved or self._file is None:
            return
        content = await self._content()
        try:
            await self._file.save(content)
        except OSError as error:
            log.warning("state file cannot be written; it is tried again", file=str(self._file.path), error=str(error))
            return
        self._saved = changes

    async def _content(self) -> bytes:
        """The whole file. Each row is of one moment; all of them are not, and what changes meanwhile is saved again."""
        states = list(self._detector.states.items())
        rows, count = bytearray(), 0
        for first in range(0, len(states), YIELD_EVERY):
            for key, state in states[first : first + YIELD_EVERY]:
                if state.last_applied and not state.observed:  # of what is only observed nothing is ours yet
                    self._encoder.encode_into(self._row(key, state), rows, -1)
                    count += 1
            await asyncio.sleep(0)
        return _ARRAY + count.to_bytes(4, "big") + rows

    def _row(self, key: ObjectKey, state: ObjectState) -> _Stored:
        return _Stored(*key, state.last_applied, state.stamp, self._in_order(state), state.snooze)
