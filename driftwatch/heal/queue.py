"""Keys that wait for work: each at most once, each worked on by one worker at a time, drift before sync.

It holds keys, never events: whoever takes a key reads the newest state, so ten edits in a burst cost one or two
applies. A key that is added while it is worked on comes again afterwards, since the worker may have read before the
change.
"""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from enum import IntEnum

from driftwatch.model import ObjectKey

BACKOFF_FIRST = 0.05  # seconds
BACKOFF_LONGEST = 60.0


class Lane(IntEnum):
    """Which keys go first."""

    DRIFT = 0
    SYNC = 1


class KeyedQueue:
    """Pure: no tasks, and no clock but the one it is given. `limit` keys are out at the same time.

    `waited` is told of each key that is taken: its lane, and the seconds since it was first asked for.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._limit = limit
        self._clock = clock
        self.waited: Callable[[Lane, float], None] = lambda _lane, _seconds: None
        self._since: dict[ObjectKey, float] = {}
        self._heap: list[tuple[Lane, int, ObjectKey]] = []
        self._order = itertools.count()
        self._waiting: dict[ObjectKey, Lane] = {}
        self._out: set[ObjectKey] = set()
        self._failures: dict[ObjectKey, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is worked on."""
        return not self._waiting and not self._out

    @property
    def waiting(self) -> Counter[Lane]:
        """How many keys wait in each lane."""
        return Counter(self._waiting.values())

    @property
    def out(self) -> int:
        """How many keys are worked on."""
        return len(self._out)

    def add(self, key: ObjectKey, lane: Lane) -> None:
        """Ask for work on the key; asking again changes nothing, but to a faster lane."""
        present = self._waiting.get(key)
        if present is not None and present <= lane:
            return
        if present is None:
            self._since[key] = self._clock()
        self._waiting[key] = lane
        if key not in self._out:
            heapq.heappush(self._heap, (lane, next(self._order), key))

    def take(self) -> ObjectKey | None:
        """The next key to work on, or None while there is none or the limit is reached. `done` must follow."""
        if len(self._out) >= self._limit:
            return None
        while self._heap:
            lane, _, key = heapq.heappop(self._heap)
            if self._waiting.get(key) == lane and key not in self._out:
                del self._waiting[key]
                self._out.add(key)
                self.waited(lane, self._clock() - self._since.pop(key))
                return key
        return None

    def done(self, key: ObjectKey) -> None:
        """The work on the key has ended; it goes back in line if it was added meanwhile."""
        self._out.discard(key)
        lane = self._waiting.get(key)
        if lane is not None:
            heapq.heappush(self._heap, (lane, next(self._order), key))

    def failed(self, key: ObjectKey, at_least: float = 0.0) -> float:
        """Count a failure. Returns the seconds until the next try: exponential, jittered, never sooner than asked."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(BACKOFF_FIRST * 2.0 ** min(count, 20), BACKOFF_LONGEST) * random.uniform(0.5, 1.0)  # noqa: S311
        return max(delay, at_least)

    def succeeded(self, key: ObjectKey) -> None:
        """Forget the failures of the key."""
        self._failures.pop(key, None)
