"""Keys that wait for work: each at most once, each worked on by one worker at a time, drift before sync.

It holds keys, never events: whoever takes a key reads the newest state, so ten edits in a burst cost one apply or two.
A key that is added while it is worked on comes again afterwards, since the worker may have read before the change. A
key that has failed waits here as well, in its lane, and for no longer than its own backoff.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from itertools import takewhile

import msgspec

from driftwatch.backoff import backoff
from driftwatch.model import ObjectKey
from driftwatch.reconcile.concurrency import PRIORITIES, Concurrency, Priority

BACKOFF_FIRST = 0.05  # seconds
BACKOFF_LONGEST = 60.0
LONGEST_RETRY_AFTER = 600.0
"""Seconds of a `Retry-After` for one object that are obeyed. A webhook or a proxy may ask for a day, and drift stays
meanwhile. A manifest that was refused for good is tried again after as long."""

SPREAD = 0.2  # of what the API server asks for, added at random: not everybody is to come back at that moment
SLACK = 64  # alarms that may be there in vain
HUNG = 1.0  # seconds; work that takes longer waits for a webhook, most likely, and holds no place from then on


class _Delay(msgspec.Struct):
    """A key that comes again at `due`; `firm`: not before, whatever happens to the object."""

    due: float
    priority: Priority
    firm: bool


class _Failures(msgspec.Struct):
    """Tries of a key in a row that failed, with a backoff that begins with `first` and lasts until `due`."""

    count: int
    first: float
    due: float


class KeyedQueue:
    """Pure: no tasks, and no clock but the one it is given. `concurrency` says how many keys are out at the same time.

    `waited` is told of each key that is taken: its lane, and the seconds since it was first asked for. `draw` gives
    random numbers from 0 to 1.
    """

    def __init__(
        self, concurrency: Concurrency, clock: Callable[[], float], draw: Callable[[], float] = random.random
    ) -> None:
        self._concurrency = concurrency
        self._clock = clock
        self._draw = draw
        self.waited: Callable[[Priority, float], None] = lambda _priority, _seconds: None
        self._since: dict[ObjectKey, float] = {}
        self._lines: dict[Priority, deque[ObjectKey]] = {priority: deque() for priority in Priority}
        self._waiting: dict[ObjectKey, Priority] = {}
        self._out: dict[Priority, dict[ObjectKey, float]] = {
            priority: {} for priority in Priority
        }  # the longest out first
        self._failures: dict[ObjectKey, _Failures] = {}
        self._delays: dict[ObjectKey, _Delay] = {}
        self._alarms: list[tuple[float, int, ObjectKey]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is worked on, and nothing comes again by itself."""
        return not self._waiting and not self.out and not self._delays

    @property
    def waiting(self) -> Counter[Priority]:
        """How many keys wait in each lane; those that wait for their backoff are not among them."""
        return Counter(self._waiting.values())

    @property
    def out(self) -> int:
        """How many keys are worked on."""
        return sum(map(len, self._out.values()))

    def priority(self, key: ObjectKey) -> Priority | None:
        """The lane from which a key that is out was taken, None if it is not out."""
        for priority, out in self._out.items():
            if key in out:
                return priority
        return None

    def stands_in(self, priority: Priority) -> bool:
        """Whether a key stands in the lane's line, which is when the last `take` had no place for it."""
        return self._first(priority) is not None

    def is_barred(self, key: ObjectKey) -> bool:
        """Whether the key is not handed out yet, whatever happens, because the API server has asked for that."""
        delay = self._delays.get(key)
        return delay is not None and delay.firm and delay.due > self._clock()

    def add(self, key: ObjectKey, priority: Priority) -> None:
        """Ask for work on the key; asking again changes nothing, but to a faster lane.

        It ends the backoff of a key, for what is there now may be another object; what the API server has asked for
        is waited for all the same.
        """
        delay = self._delays.get(key)
        if delay is not None:
            if self.is_barred(key):
                delay.priority = min(delay.priority, priority)
                return
            del self._delays[key]
            priority = min(delay.priority, priority)
        present = self._waiting.get(key)
        if present is not None and present <= priority:
            return
        if present is None:
            self._since[key] = self._clock()
        self._waiting[key] = priority
        if self.priority(key) is None:
            self._lines[priority].append(key)

    def take(self) -> ObjectKey | None:
        """The next key to work on, or None while there is none or there is no place for it. `done` must follow."""
        self._wake()
        if self.out_of(Priority.DRIFT) or self.stands_in(Priority.DRIFT):
            self._concurrency.drift_is_about()
        if self._concurrency.pause():
            return None
        for priority in PRIORITIES:
            key = self._first(priority)
            if key is not None and self._has_room(priority):
                self._lines[priority].popleft()
                del self._waiting[key]
                now = self._clock()
                self._out[priority][key] = now
                self.waited(priority, now - self._since.pop(key))
                return key
        return None

    def wait(self) -> float | None:
        """Seconds until `take`, which has just given nothing, may give something; None: not by time alone."""
        now, times = self._clock(), []
        if (alarm := self._next_alarm()) is not None:
            times.append(alarm)
        blocked = [priority for priority in PRIORITIES if self.stands_in(priority)]
        if blocked and (pause := self._concurrency.pause()):
            times.append(now + pause)
        elif blocked:
            for priority in blocked:
                if recovers := self._concurrency.recovers(priority):
                    times.append(now + recovers)
                times += [since + HUNG for since in self._out[priority].values() if since + HUNG > now][:1]
            if (
                Priority.DRIFT not in blocked
                and not self.out_of(Priority.DRIFT)
                and (linger := self._concurrency.lingers())
            ):
                times.append(now + linger)
        return max(0.0, min(times) - now) if times else None

    def done(self, key: ObjectKey) -> None:
        """The work on the key has ended; it goes back in line if it was added meanwhile."""
        for out in self._out.values():
            out.pop(key, None)
        priority = self._waiting.get(key)
        if priority is not None:
            self._lines[priority].append(key)

    def failed(
        self,
        key: ObjectKey,
        at_least: float = 0.0,
        *,
        first: float = BACKOFF_FIRST,
        longest: float = BACKOFF_LONGEST,
    ) -> float:
        """Have a key that is out come again, in its lane. Returns the seconds until then.

        They grow exponentially with each failure, with jitter, from `first` to `longest`. A try that news of the object
        has brought forward says nothing more about how long the reason lasts, and another `first` is another reason.
        What the API server asks for, `at_least`, is kept to, up to `LONGEST_RETRY_AFTER`.
        """
        now, before = self._clock(), self._failures.get(key)
        count = 1 if before is None or before.first != first else before.count + (now >= before.due)
        delay = backoff(count, first, longest, draw=self._draw)
        delay = max(delay, min(at_least, LONGEST_RETRY_AFTER) * (1.0 + SPREAD * self._draw()))
        self._failures[key] = _Failures(count, first, now + delay)
        self.later(key, delay, firm=at_least > 0.0)
        return delay

    def later(self, key: ObjectKey, seconds: float, *, firm: bool = False) -> None:
        """Have a key that is out come again in its lane, at the latest after so long; `firm`: not before, either."""
        priority = next(priority for priority, out in self._out.items() if key in out)
        if (waiting := self._waiting.get(key)) is not None:
            if not firm:
                return  # it was added while it was out
            del self._waiting[key], self._since[key]
            priority = min(priority, waiting)
        due = self._clock() + seconds
        self._delays[key] = _Delay(due, priority, firm)
        if len(self._alarms) > 2 * len(self._delays) + SLACK:  # what was given up is not kept until its time comes
            self._alarms = [(delay.due, next(self._order), key) for key, delay in self._delays.items()]
            heapq.heapify(self._alarms)
            return
        heapq.heappush(self._alarms, (due, next(self._order), key))

    def withdraw(self, key: ObjectKey) -> None:
        """What a key that is out was asked for again is done already."""
        if self._waiting.pop(key, None) is not None:
            del self._since[key]

    def succeeded(self, key: ObjectKey) -> None:
        """Forget the failures of the key."""
        self._failures.pop(key, None)

    def forget(self, key: ObjectKey) -> None:
        """The object is not declared any more. What was asked for all the same still comes."""
        self._failures.pop(key, None)
        delay = self._delays.get(key)
        if delay is not None and not delay.firm:
            del self._delays[key]

    def out_of(self, priority: Priority) -> int:
        """How many keys of a lane are worked on."""
        return len(self._out[priority])

    def _has_room(self, priority: Priority) -> bool:
        out, limit = self._out[priority], self._concurrency.limit(priority)
        if len(out) < limit:
            return True
        now = self._clock()
        hung = sum(1 for _ in takewhile(lambda since: since + HUNG <= now, out.values()))
        return len(out) - min(hung, limit) < limit

    def _first(self, priority: Priority) -> ObjectKey | None:
        """The first key in a lane's line that still waits there, and is not out."""
        line = self._lines[priority]
        while line:
            key = line[0]
            if self._waiting.get(key) is priority and self.priority(key) is None:
                return key
            line.popleft()
        return None

    def _next_alarm(self) -> float | None:
        """When the first delay ends."""
        while self._alarms:
            due, _, key = self._alarms[0]
            delay = self._delays.get(key)
            if delay is not None and delay.due == due:
                return due
            heapq.heappop(self._alarms)
        return None

    def _wake(self) -> None:
        """Put the keys whose delay has ended in line."""
        now = self._clock()
        while (due := self._next_alarm()) is not None and due <= now:
            key = heapq.heappop(self._alarms)[2]
            self.add(key, self._delays.pop(key).priority)
