"""A queue of keys, like client-go's workqueue: each key at most once, one reconcile at a time, drift before sync.

It holds keys, never events: a reconcile reads the newest state, so ten edits in a burst cost one apply or two. A key
that is added while it is in flight comes back afterwards, since the reconcile may have read before the change. A key
that has failed waits here as well, with its priority, and for no longer than its own backoff.
"""

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from itertools import takewhile

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Resource
from driftwatch.drift.object_state import Delay, Failures, ObjectState, ObjectStates
from driftwatch.model import PRIORITIES, ObjectKey, Priority
from driftwatch.reconcile.concurrency import Concurrency

BACKOFF_FIRST = 0.05  # seconds
BACKOFF_LONGEST = 60.0
LONGEST_RETRY_AFTER = 600.0
"""Longest `Retry-After` in seconds that is obeyed for one object. A webhook or a proxy may ask for a day, and drift
stays meanwhile. A refused manifest is retried after the same time."""

SPREAD = 0.2  # of `Retry-After`, added at random, so that clients do not all return at the same moment
SLACK = 64  # alarms of ended delays that may stay in the heap
HUNG = 1.0  # seconds; a longer reconcile probably waits for a webhook, and no longer counts towards the limit


class KeyedQueue:
    """Pure: no tasks, and no clock but the one it is given. `concurrency` limits how many keys are in flight.

    The object's state stores whether its key waits or is in flight. This class orders the keys. `waited` is called for
    each key that is taken, with its priority and the seconds since it was first added. `draw` gives random numbers from
    0 to 1.
    """

    def __init__(
        self,
        states: ObjectStates,
        concurrency: Concurrency,
        clock: Callable[[], float],
        draw: Callable[[], float] = random.random,
        waited: Callable[[Priority, float], None] = lambda _priority, _seconds: None,
    ) -> None:
        self._states = states
        self.concurrency = concurrency
        self._clock = clock
        self._draw = draw
        self._waited = waited
        self._lines: dict[Priority, deque[ObjectKey]] = {priority: deque() for priority in Priority}
        self._in_flight: dict[Priority, dict[ObjectKey, float]] = {priority: {} for priority in Priority}  # by age
        self._alarms: list[tuple[float, int, ObjectKey]] = []
        self._order = itertools.count()
        self._waiting: Counter[Priority] = Counter()
        self._delayed = 0

    def __len__(self) -> int:
        return self._waiting.total()

    @property
    def idle(self) -> bool:
        """Whether no key waits, is in flight or is delayed."""
        return not len(self) and not self.in_flight and not self._delayed

    @property
    def waiting(self) -> Counter[Priority]:
        """How many keys wait, by priority. Those that wait for their backoff are not among them."""
        return +self._waiting

    @property
    def in_flight(self) -> int:
        """How many keys are in flight."""
        return sum(map(len, self._in_flight.values()))

    def priority(self, key: ObjectKey) -> Priority | None:
        """The priority with which a key that is in flight was taken, None if it is not in flight."""
        state = self._states.get(key)
        return state.in_flight if state is not None else None

    def has_waiting(self, priority: Priority) -> bool:
        """Whether a key with this priority waits. After `take`, this means that there is no slot for it."""
        return self._first(priority) is not None

    def is_held(self, key: ObjectKey) -> bool:
        """Whether the API server's `Retry-After` delays the key. No event ends this delay."""
        state = self._states.get(key)
        return state is not None and self._is_held(state)

    def add(self, key: ObjectKey, priority: Priority) -> None:
        """Request a reconcile of the key. A second request only raises the priority.

        It ends the backoff of the key, because the object may have changed. A delay that the API server has asked for
        stays.
        """
        state = self._states.of(key)
        delay = state.delay
        if delay is not None:
            if self._is_held(state):
                delay.priority = min(delay.priority, priority)
                return
            self._end_delay(state)
            priority = min(delay.priority, priority)
        present = state.queued
        if present is not None and present <= priority:
            return
        if present is None:
            state.queued_since = self._clock()
        self._queue(state, priority)
        if state.in_flight is None:
            self._lines[priority].append(key)

    def take(self) -> ObjectKey | None:
        """The next key to reconcile. None if no key waits or no slot is free. `done` must follow."""
        self._wake()
        if self.in_flight_of(Priority.DRIFT) or self.has_waiting(Priority.DRIFT):
            self.concurrency.drift_is_about()
        if self.concurrency.pause():
            return None
        for priority in PRIORITIES:
            key = self._first(priority)
            if key is not None and self._has_room(priority):
                self._lines[priority].popleft()
                state = self._states.of(key)
                self._queue(state, None)
                now = self._clock()
                state.in_flight = priority
                self._in_flight[priority][key] = now
                self._waited(priority, now - state.queued_since)
                return key
        return None

    def wait(self) -> float | None:
        """Seconds until `take`, which has just returned None, may return a key. None: not by time alone."""
        now, times = self._clock(), []
        if (alarm := self._next_alarm()) is not None:
            times.append(alarm)
        blocked = [priority for priority in PRIORITIES if self.has_waiting(priority)]
        if blocked and (pause := self.concurrency.pause()):
            times.append(now + pause)
        elif blocked:
            for priority in blocked:
                if recovers := self.concurrency.recovers(priority):
                    times.append(now + recovers)
                times += [since + HUNG for since in self._in_flight[priority].values() if since + HUNG > now][:1]
            drifts = Priority.DRIFT in blocked or self.in_flight_of(Priority.DRIFT)
            if not drifts and (linger := self.concurrency.lingers()):
                times.append(now + linger)
        return max(0.0, min(times) - now) if times else None

    def done(self, key: ObjectKey) -> None:
        """End the reconcile of the key. The key is queued again if it was added meanwhile."""
        state = self._states.of(key)
        if state.in_flight is not None:
            self._in_flight[state.in_flight].pop(key, None)
            state.in_flight = None
        if state.queued is not None:
            self._lines[state.queued].append(key)

    def failed(
        self,
        key: ObjectKey,
        at_least: float = 0.0,
        *,
        first: float = BACKOFF_FIRST,
        longest: float = BACKOFF_LONGEST,
    ) -> float:
        """Delay a key that is in flight after a failure, and keep its priority. Returns the delay in seconds.

        The delay grows exponentially with each failure, with jitter, from `first` to `longest`. A retry that an event
        has brought forward does not increase it. Another value of `first` means another reason, and starts over. The
        delay that the API server asks for, `at_least`, is obeyed up to `LONGEST_RETRY_AFTER`.
        """
        state = self._states.of(key)
        now, before = self._clock(), state.failures
        count = 1 if before is None or before.first != first else before.count + (now >= before.due)
        delay = backoff(count, first, longest, draw=self._draw)
        delay = max(delay, min(at_least, LONGEST_RETRY_AFTER) * (1.0 + SPREAD * self._draw()))
        state.failures = Failures(count, first, now + delay)
        self.later(key, delay, not_before=at_least > 0.0)
        return delay

    def later(self, key: ObjectKey, seconds: float, *, not_before: bool = False) -> None:
        """Delay a key that is in flight by at most `seconds`, and keep its priority.

        `not_before`: events of the object do not shorten the delay.
        """
        state = self._states.of(key)
        priority = state.in_flight
        assert priority is not None, f"{key} is not in flight"  # noqa: S101  only a bug of driftwatch fails this
        if state.queued is not None:
            if not not_before:
                return  # the key was added while it was in flight
            priority = min(priority, state.queued)
            self._queue(state, None)
        self._end_delay(state)
        due = self._clock() + seconds
        state.delay = Delay(due, priority, not_before, next(self._order))
        self._delayed += 1
        heapq.heappush(self._alarms, (due, state.delay.alarm, key))
        if len(self._alarms) > 2 * self._delayed + SLACK:  # drop the alarms of ended delays
            self._alarms = [alarm for alarm in self._alarms if self._rings(alarm)]
            heapq.heapify(self._alarms)

    def withdraw(self, key: ObjectKey) -> None:
        """Remove a key that is in flight from the queue. The request to reconcile it is fulfilled already."""
        self._queue(self._states.of(key), None)

    def succeeded(self, key: ObjectKey) -> None:
        """Forget the failures of the key."""
        self._states.of(key).failures = None

    def forget(self, key: ObjectKey) -> None:
        """Git no longer declares the object. A key that was added before is still taken."""
        state = self._states.get(key)
        if state is None:
            return
        state.failures = None
        if state.delay is not None and not state.delay.not_before:
            self._end_delay(state)

    def answered(self, resource: Resource, namespace: str, name: str, seconds: float, *, dry_run: bool) -> None:
        """The API server has accepted an apply of this object after `seconds`. Adapts the limit of its priority."""
        key = ObjectKey(resource.group, resource.kind, namespace, name)
        if (priority := self.priority(key)) is not None:
            self.concurrency.answered(priority, (key.group_kind, dry_run), seconds, self.in_flight_of(priority))

    def in_flight_of(self, priority: Priority) -> int:
        """How many keys of a priority are in flight."""
        return len(self._in_flight[priority])

    def _is_held(self, state: ObjectState) -> bool:
        return state.delay is not None and state.delay.not_before and state.delay.due > self._clock()

    def _queue(self, state: ObjectState, priority: Priority | None) -> None:
        """Set the priority with which the key waits. None if it does not wait."""
        if state.queued is not None:
            self._waiting[state.queued] -= 1
        if priority is not None:
            self._waiting[priority] += 1
        state.queued = priority

    def _end_delay(self, state: ObjectState) -> None:
        if state.delay is not None:
            state.delay = None
            self._delayed -= 1

    def _has_room(self, priority: Priority) -> bool:
        in_flight, limit = self._in_flight[priority], self.concurrency.limit(priority)
        if len(in_flight) < limit:
            return True
        now = self._clock()
        hung = sum(1 for _ in takewhile(lambda since: since + HUNG <= now, in_flight.values()))
        return len(in_flight) - min(hung, limit) < limit

    def _first(self, priority: Priority) -> ObjectKey | None:
        """The first key that waits with this priority and is not in flight."""
        line = self._lines[priority]
        while line:
            key = line[0]
            state = self._states.get(key)
            if state is not None and state.queued is priority and state.in_flight is None:
                return key
            line.popleft()
        return None

    def _rings(self, alarm: tuple[float, int, ObjectKey]) -> bool:
        """Whether the alarm belongs to the current delay of its key."""
        _, number, key = alarm
        state = self._states.get(key)
        return state is not None and state.delay is not None and state.delay.alarm == number

    def _next_alarm(self) -> float | None:
        """When the first delay ends."""
        while self._alarms:
            if self._rings(self._alarms[0]):
                return self._alarms[0][0]
            heapq.heappop(self._alarms)
        return None

    def _wake(self) -> None:
        """Queue the keys whose delay has ended."""
        now = self._clock()
        while (due := self._next_alarm()) is not None and due <= now:
            key = heapq.heappop(self._alarms)[2]
            state = self._states.of(key)
            delay = state.delay
            if delay is not None:
                self._end_delay(state)
                self.add(key, delay.priority)
