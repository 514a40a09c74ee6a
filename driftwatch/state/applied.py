"""Stores on disk which manifest of each object was last applied.

After a restart this separates drift from sync. A difference to an applied manifest is drift, also when it arose while
driftwatch was down. A difference from a new commit is sync. The file also has the snooze request of each object, with
its start, so that a restart does not extend the longest snooze. A lost file loses only the separation, and the start of
snoozes whose annotation has no owner.
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
    100  # rows written before yielding to the event loop, so that reconciles can run; a quarter of a millisecond
)

log = structlog.get_logger()


class _Stored(msgspec.Struct, array_like=True):
    """An object's row in the file. Fields that older files lack come last."""

    group: str
    kind: str
    namespace: str
    name: str
    digest: str
    stamp: str
    version: int
    snooze: SnoozeRequest | None = None


class Remembered(NamedTuple):
    """The stored state of one object: digest of the applied manifest, stamp of driftwatch's managedFields entry.

    `version` is the resourceVersion at which the object was in sync. It is 0 when it was not in sync: then the object
    is read and compared after a restart. `snooze` is the last snooze request seen.
    """

    digest: str = ""
    stamp: str = ""
    version: int = 0
    snooze: SnoozeRequest | None = None


class AppliedState:
    """Loads the file at the start and keeps it up to date."""

    def __init__(self, detector: Detector) -> None:
        self._file: SavedFile | None = None
        self._detector = detector
        self._saved = -1
        self._encoder = msgspec.msgpack.Encoder()

    def keep_in(self, path: Path) -> None:
        """Set the file."""
        self._file = SavedFile(path)

    def load(self) -> dict[ObjectKey, Remembered]:
        """The stored state of each object. Empty without a readable file."""
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
        """Write the file if anything changed. A full disk is logged and does not stop reconciling."""
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
        """The content of the file. Each row is consistent, the whole file is not. Later changes are saved again."""
        states = list(self._detector.states.items())
        rows, count = bytearray(), 0
        for first in range(0, len(states), YIELD_EVERY):
            for key, state in states[first : first + YIELD_EVERY]:
                if state.last_applied and not state.observed:  # driftwatch has applied nothing in observe mode
                    self._encoder.encode_into(self._row(key, state), rows, -1)
                    count += 1
            await asyncio.sleep(0)
        return _ARRAY + count.to_bytes(4, "big") + rows

    def _row(self, key: ObjectKey, state: ObjectState) -> _Stored:
        return _Stored(*key, state.last_applied, state.stamp, self._in_order(state), state.snooze)
