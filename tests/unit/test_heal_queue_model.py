"""The queue, parking, backoff and concurrency together, as the healer uses them, against a model that is simple enough.

Random requests, answers, refusals, pauses and events at random times. The model knows what was asked for and what is
out; everything else that is asserted is what the queue promises.
"""

import math
from collections.abc import Callable

from driftwatch.drift.object_state import ObjectStates
from driftwatch.model import GroupKind, ObjectKey, Priority
from driftwatch.reconcile.apply_errors import Blocked
from driftwatch.reconcile.concurrency import CEILING, LINGER, LONGEST_HOLD, SYNC_BESIDE_DRIFT, Concurrency
from driftwatch.reconcile.queue import BACKOFF_FIRST, BACKOFF_LONGEST, HUNG, SPREAD, KeyedQueue
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.hypothesis_profiles import examples

KINDS = ("ConfigMap", "Widget")
NAMESPACES = ("shop", "bank")
KEYS = [ObjectKey("", kind, namespace, name) for kind in KINDS for namespace in NAMESPACES for name in "abcd"]
EPSILON = 1e-6

keys = st.sampled_from(KEYS)
seconds = st.floats(0.001, 3.0)


class QueueMachine(RuleBasedStateMachine):
    """`wanted` is what must still be handed out, `out` what is, `barred` until when the API server asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.wanted: dict[ObjectKey, Priority] = {}
        self.out: dict[ObjectKey, float] = {}
        self.due: dict[ObjectKey, float] = {}
        self.barred: dict[ObjectKey, float] = {}
        self.parked: dict[ObjectKey, str | GroupKind] = {}
        self.failures: dict[ObjectKey, tuple[int, float]] = {}
        self.paused = 0.0
        self.drift_at = -math.inf
        self.states = ObjectStates()
        self.blocked = Blocked(self.states)

    @initialize(
        ceiling=st.integers(1, max(CEILING.values())), draws=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5)
    )
    def begin(self, ceiling: int, draws: list[float]) -> None:
        self.ceiling = ceiling
        self.concurrency = Concurrency(lambda: self.now, ceiling)
        self.queue = KeyedQueue(self.states, self.concurrency, lambda: self.now, _in_turn(draws))

    # --- What the healer does -----------------------------------------------------------------------------------------

    @rule(key=keys, priority=st.sampled_from(Priority), times=st.integers(1, 5))
    def mark(self, key: ObjectKey, priority: Priority, times: int) -> None:
        """Events, a commit: the key is asked for, once or several times."""
        for _ in range(times):
            self.queue.add(key, priority)
        self._want(key, priority)

    @rule(changed=st.sets(keys, min_size=5))
    def commit(self, changed: set[ObjectKey]) -> None:
        """A commit changes many objects: most of them will have to wait."""
        for key in changed:
            self.mark(key, Priority.SYNC, 1)

    def _want(self, key: ObjectKey, priority: Priority) -> None:
        self.wanted[key] = min(priority, self.wanted.get(key, priority))
        if self.barred.get(key, 0.0) <= self.now:
            self.due.pop(key, None)

    @rule(most=st.integers(1, 2 * max(CEILING.values())))
    def take(self, most: int) -> None:
        """Keys are handed out for as long as there is a place."""
        for _ in range(most):
            if not self._take():
                return

    def _take(self) -> ObjectKey | None:
        ready = self._ready()
        if any(priority is Priority.DRIFT for priority in ready.values()) or self._lanes_out(Priority.DRIFT):
            self.drift_at = self.now
        full = {priority: self._is_full(priority, self.concurrency.limit(priority)) for priority in Priority}
        key = self.queue.take()
        if key is None:
            assert not ready or self._is_blocked(ready), f"{ready} wait for nothing"
            return None
        priority = self.queue.priority(key)
        assert key in ready, "handed out twice, not asked for, or before its time"
        assert priority is ready[key]
        assert self.now >= self.paused
        assert not full[priority], "one more than the limit"
        if priority is Priority.SYNC and Priority.DRIFT in ready.values():
            assert full[Priority.DRIFT], "a sync went before drift for which there was a place"
        del self.wanted[key]
        self.due.pop(key, None)
        self.out[key] = self.now
        return key

    def _ready(self) -> dict[ObjectKey, Priority]:
        return {
            key: priority
            for key, priority in self.wanted.items()
            if key not in self.out and self.due.get(key, 0.0) <= self.now and self.barred.get(key, 0.0) <= self.now
        }

    def _is_blocked(self, ready: dict[ObjectKey, Priority]) -> bool:
        if self.now < self.paused:
            return True
        return all(self._is_full(priority, self.concurrency.limit(priority)) for priority in set(ready.values()))

    def _lanes_out(self, priority: Priority) -> list[float]:
        return [since for key, since in self.out.items() if self.queue.priority(key) is priority]

    def _is_full(self, priority: Priority, limit: int) -> bool:
        out = self._lanes_out(priority)
        hung = sum(since + HUNG <= self.now for since in out)
        return len(out) - min(hung, limit) >= limit

    @precondition(lambda self: self.out)
    @rule(data=st.data(), slow=st.booleans())
    def succeed(self, data: st.DataObject, slow: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.out)))
        priority = self.queue.priority(key)
        self.concurrency.answered(priority, key.kind, 1.0 if slow else 0.002, self.queue.in_flight_of(priority))
        self.queue.succeeded(key)
        self.failures.pop(key, None)
        self._done(key)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), asked=st.one_of(st.just(0.0), st.floats(0.1, 20.0)))
    def fail(self, data: st.DataObject, asked: float) -> None:
        """A refusal of the one object: it comes again within the bounds of its backoff, and never sooner than asked."""
        key = data.draw(st.sampled_from(sorted(self.out)))
        count, due = self.failures.get(key, (0, self.now))
        count += self.now >= due
        priority = self.queue.priority(key)
        delay = self.queue.failed(key, asked)
        self.failures[key] = count, self.now + delay
        full = min(BACKOFF_FIRST * 2.0 ** (count - 1), BACKOFF_LONGEST)
        assert max(full / 2, asked) - EPSILON <= delay <= max(full, asked * (1 + SPREAD)) + EPSILON
        again = key in self.wanted  # it was asked for while it was out
        if asked or not again:
            self.due[key] = self.now + delay
        if asked:
            self.barred[key] = self.now + delay
        self.wanted[key] = min(priority, self.wanted.get(key, priority)) if asked or not again else self.wanted[key]
        self._done(key)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), asked=st.one_of(st.just(0.0), st.floats(0.1, 100.0)))
    def overload(self, data: st.DataObject, asked: float) -> None:
        """A refusal that is about the API server: fewer are let out, and none while it asks for a pause."""
        key = data.draw(st.sampled_from(sorted(self.out)))
        before = {priority: self.concurrency._shares[priority].at(self.now) for priority in Priority}
        self.concurrency.overloaded(self.now - self.out[key], asked)
        for priority in Priority:
            assert 1 <= self.concurrency._shares[priority].limit <= before[priority]
        if asked:
            self.paused = max(self.paused, self.now + min(asked, LONGEST_HOLD))
        self.fail(data, asked)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), at_kind=st.booleans())
    def park(self, data: st.DataObject, at_kind: bool) -> None:
        """The key waits for an event; only what was asked for meanwhile comes without it."""
        key = data.draw(st.sampled_from(sorted(self.out)))
        if at_kind:
            self.blocked.at_kind(key)
            self.parked[key] = key.group_kind
        else:
            self.blocked.at_namespace(key)
            self.parked[key] = key.namespace
        self._done(key)

    @precondition(lambda self: self.parked)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A namespace or a kind is there: everything that waited for it comes, and nothing else."""
        event = data.draw(st.sampled_from(sorted(set(map(str, self.parked.values())))))
        [what] = {what for what in self.parked.values() if str(what) == event}
        released = self.blocked.kind_ready(what) if isinstance(what, GroupKind) else self.blocked.namespace_ready(what)
        assert {key for key, waits_for in self.parked.items() if waits_for == what} <= released
        for key in released:
            if self.parked.get(key) == what:
                del self.parked[key]
            self.mark(key, Priority.DRIFT, 1)

    def _done(self, key: ObjectKey) -> None:
        self.queue.done(key)
        del self.out[key]

    @rule(by=seconds)
    def time_passes(self, by: float) -> None:
        self.now += by

    # --- What holds at any time ---------------------------------------------------------------------------------------

    @invariant()
    def no_more_than_the_limit_are_out(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.in_flight == len(self.out)
        for priority in Priority:
            limit = self.concurrency.limit(priority)
            assert 1 <= limit <= self.ceiling
            assert len(self._lanes_out(priority)) <= 2 * self.ceiling, "hung ones included"
        if self.now - self.drift_at < LINGER:
            assert self.concurrency.limit(Priority.SYNC) <= SYNC_BESIDE_DRIFT

    @invariant()
    def it_never_asks_to_be_asked_again_at_once(self) -> None:
        """After `take` has given nothing, time must pass or something must happen: no busy loop."""
        if not hasattr(self, "queue"):
            return
        while self._take() is not None:
            pass
        wait = self.queue.wait()
        assert wait is None or wait > 0.0
        if self._ready() and self.now < self.paused:
            assert wait is not None
            assert wait <= self.paused - self.now + EPSILON, "it oversleeps the end of a pause"
        if wait is None:
            ready = self._ready()
            assert all(due <= self.now for due in self.due.values()), "a backoff of which nobody knows"
            assert not ready or self.out, "something waits, nothing is out, and no time is named"

    def teardown(self) -> None:
        """From any state on, if all answers are good, everything that was asked for is handed out, by time alone."""
        if not hasattr(self, "queue"):
            return
        owed, rounds = set(self.wanted), 0
        while self.wanted or self.out:
            rounds += 1
            assert rounds < 1000, f"{self.wanted} never come"
            while (key := self._take()) is not None:
                owed.discard(key)
            if self.out:
                for key in sorted(self.out):
                    self.queue.succeeded(key)
                    self._done(key)
                continue
            wait = self.queue.wait()
            assert wait is not None, f"{self.wanted} wait, and nothing will bring them"
            assert wait <= max(BACKOFF_LONGEST, LONGEST_HOLD, 100.0 * (1 + SPREAD)) + EPSILON
            self.now += wait + EPSILON
        assert not owed
        assert self.queue.idle
        assert len(self.queue) == 0


def _in_turn(draws: list[float]) -> Callable[[], float]:
    """The drawn numbers, over and over."""
    position = [0]

    def draw() -> float:
        position[0] += 1
        return draws[position[0] % len(draws)]

    return draw


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
