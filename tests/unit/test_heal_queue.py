"""The queue: each key at most once, by one worker at a time, drift first; checked against a simple model."""

from driftwatch.heal.queue import BACKOFF_LONGEST, KeyedQueue, Lane
from driftwatch.model import ObjectKey
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

LIMIT = 3


def key(name: str) -> ObjectKey:
    return ObjectKey("", "ConfigMap", "default", name)


def test_a_burst_of_edits_is_one_job():
    """Ten additions of a waiting key are one piece of work."""
    queue = KeyedQueue(LIMIT)
    for _ in range(10):
        queue.add(key("a"), Lane.DRIFT)
    assert queue.take() == key("a")
    assert queue.take() is None


def test_a_key_added_during_work_comes_again():
    """The worker may have read before the change, so the key comes back, but not while it is out."""
    queue = KeyedQueue(LIMIT)
    queue.add(key("a"), Lane.DRIFT)
    queue.take()
    queue.add(key("a"), Lane.DRIFT)
    assert queue.take() is None
    queue.done(key("a"))
    assert queue.take() == key("a")


def test_e09_drift_is_not_queued_behind_a_sync():
    """A deleted object goes before everything that a large first sync has put in line."""
    queue = KeyedQueue(1)
    for number in range(100):
        queue.add(key(f"sync-{number}"), Lane.SYNC)
    queue.add(key("drifted"), Lane.DRIFT)
    assert queue.take() == key("drifted")


def test_a_waiting_key_can_be_hurried():
    """A key that waits for its sync and drifts meanwhile moves to the faster lane."""
    queue = KeyedQueue(1)
    queue.add(key("a"), Lane.SYNC)
    queue.add(key("b"), Lane.SYNC)
    queue.add(key("b"), Lane.DRIFT)
    assert queue.take() == key("b")
    queue.done(key("b"))
    assert queue.take() == key("a")
    queue.done(key("a"))
    assert queue.take() is None


def test_failures_back_off_and_are_forgotten():
    """Delays grow to the cap, respect what the server asks, and start over after a success."""
    queue = KeyedQueue(LIMIT)
    delays = [queue.failed(key("a")) for _ in range(30)]
    assert delays[0] < 1 < delays[-1] <= BACKOFF_LONGEST
    assert queue.failed(key("a"), at_least=100) == 100
    queue.succeeded(key("a"))
    assert queue.failed(key("a")) < 1


class QueueMachine(RuleBasedStateMachine):
    """Random additions, takes and completions against a model of two sets."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.queue = KeyedQueue(LIMIT)
        self.waiting: dict[ObjectKey, Lane] = {}
        self.out: set[ObjectKey] = set()

    @rule(name=st.sampled_from("abcdef"), lane=st.sampled_from(Lane))
    def add(self, name: str, lane: Lane) -> None:
        self.queue.add(key(name), lane)
        self.waiting[key(name)] = min(lane, self.waiting.get(key(name), lane))

    @rule(target=taken)
    def take(self) -> ObjectKey | None:
        got = self.queue.take()
        free = {k: lane for k, lane in self.waiting.items() if k not in self.out}
        if len(self.out) == LIMIT or not free:
            assert got is None
            return None
        assert got is not None
        assert free[got] == min(free.values())
        del self.waiting[got]
        self.out.add(got)
        return got

    @rule(got=consumes(taken))
    def done(self, got: ObjectKey | None) -> None:
        if got is not None:
            self.queue.done(got)
            self.out.discard(got)

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.idle == (not self.waiting and not self.out)


TestQueueMachine = QueueMachine.TestCase


def test_it_tells_how_long_a_key_waited_since_it_was_first_asked_for():
    """Asking again does not begin anew; what is added during work waits from then on."""
    now, waits = [0.0], []
    queue = KeyedQueue(LIMIT, lambda: now[0])
    queue.waited = lambda lane, seconds: waits.append((lane, seconds))
    queue.add(key("a"), Lane.SYNC)
    now[0] = 2.0
    queue.add(key("a"), Lane.DRIFT)
    assert queue.waiting == {Lane.DRIFT: 1}
    now[0] = 5.0
    queue.take()
    queue.add(key("a"), Lane.SYNC)
    now[0] = 6.0
    queue.done(key("a"))
    queue.take()
    assert waits == [(Lane.DRIFT, 5.0), (Lane.SYNC, 1.0)]
    assert queue.out == 1
