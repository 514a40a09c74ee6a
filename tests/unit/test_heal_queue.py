"""The queue: each key at most once, by one worker at a time, drift first; backoff, and pauses that are asked for."""

from driftwatch.drift.object_state import ObjectStates
from driftwatch.model import ObjectKey, Priority
from driftwatch.reconcile.concurrency import LINGER, Concurrency
from driftwatch.reconcile.queue import BACKOFF_FIRST, BACKOFF_LONGEST, HUNG, SPREAD, KeyedQueue

LIMIT = 3


class Clock:
    """A time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key(name: str) -> ObjectKey:
    return ObjectKey("", "ConfigMap", "default", name)


def queue_of(limit: int, clock: Clock | None = None) -> KeyedQueue:
    """A queue whose random numbers are all 1."""
    clock = clock or Clock()
    return KeyedQueue(ObjectStates(), Concurrency(clock, limit), clock, lambda: 1.0)


def test_a_burst_of_edits_is_one_job():
    """Ten additions of a waiting key are one piece of work."""
    queue = queue_of(LIMIT)
    for _ in range(10):
        queue.add(key("a"), Priority.DRIFT)
    assert queue.take() == key("a")
    assert queue.take() is None


def test_a_key_added_during_work_comes_again():
    """The worker may have read before the change, so the key comes back, but not while it is out."""
    queue = queue_of(LIMIT)
    queue.add(key("a"), Priority.DRIFT)
    queue.take()
    queue.add(key("a"), Priority.DRIFT)
    assert queue.take() is None
    queue.done(key("a"))
    assert queue.take() == key("a")


def test_e09_drift_is_not_queued_behind_a_sync():
    """A deleted object goes before everything that a large first sync has put in line."""
    queue = queue_of(1)
    for number in range(100):
        queue.add(key(f"sync-{number}"), Priority.SYNC)
    queue.add(key("drifted"), Priority.DRIFT)
    assert queue.take() == key("drifted")


def test_a_waiting_key_can_be_hurried():
    """A key that waits for its sync and drifts meanwhile moves to the higher priority."""
    queue = queue_of(1)
    queue.add(key("a"), Priority.SYNC)
    queue.add(key("b"), Priority.SYNC)
    queue.add(key("b"), Priority.DRIFT)
    assert queue.take() == key("b")
    queue.done(key("b"))
    assert queue.take() == key("a")
    queue.done(key("a"))
    assert queue.take() is None


def test_failures_back_off_and_are_forgotten():
    """Delays grow to the cap, respect what the server asks, and start over after a success."""
    clock = Clock()
    queue = queue_of(LIMIT, clock)
    queue.add(key("a"), Priority.DRIFT)
    queue.take()
    delays = []
    for _ in range(30):
        delays.append(queue.failed(key("a")))
        clock.now += delays[-1]
    assert delays[0] == BACKOFF_FIRST
    assert delays[-1] == BACKOFF_LONGEST
    assert delays == sorted(delays)
    assert queue.failed(key("a"), at_least=100) == 100 * (1 + SPREAD)
    queue.succeeded(key("a"))
    assert queue.failed(key("a")) == BACKOFF_FIRST


def test_news_of_an_object_does_not_lengthen_its_backoff():
    """It is edited ten times while the API server refuses: that is no longer a reason than one, and another is new."""
    clock = Clock()
    queue = queue_of(LIMIT, clock)
    queue.add(key("a"), Priority.DRIFT)
    queue.take()
    assert {queue.failed(key("a")) for _ in range(10)} == {BACKOFF_FIRST}
    clock.now += BACKOFF_FIRST
    assert queue.failed(key("a")) == 2 * BACKOFF_FIRST
    clock.now += 2 * BACKOFF_FIRST
    assert queue.failed(key("a"), first=1.0) == 1.0


def test_a_key_that_has_failed_comes_again_by_itself_in_its_lane():
    """Nobody asks for it again; the queue says when it is due, and what drifts meanwhile goes first."""
    clock = Clock()
    queue = queue_of(LIMIT, clock)
    queue.add(key("a"), Priority.SYNC)
    queue.take()
    queue.failed(key("a"))
    queue.done(key("a"))
    assert queue.take() is None
    assert queue.wait() == BACKOFF_FIRST
    clock.now = BACKOFF_FIRST
    queue.add(key("drifted"), Priority.DRIFT)
    assert [queue.take(), queue.take()] == [key("drifted"), key("a")]
    assert queue.priority(key("a")) is Priority.SYNC


def test_what_happens_to_an_object_ends_its_backoff_but_no_pause_that_was_asked_for():
    """A changed object may be another case; `Retry-After` is obeyed all the same."""
    clock = Clock()
    queue = queue_of(LIMIT, clock)
    for asked, waits in ((0.0, 0.0), (7.0, 7.0 * (1 + SPREAD))):
        queue.add(key("a"), Priority.SYNC)
        assert queue.take() == key("a")
        queue.failed(key("a"), asked)
        queue.done(key("a"))
        queue.add(key("a"), Priority.DRIFT)
        if waits:
            assert queue.take() is None
            assert queue.wait() == waits
            clock.now += waits
        assert queue.take() == key("a")
        assert queue.priority(key("a")) is Priority.DRIFT
        queue.done(key("a"))
    assert queue.idle


def test_a_refused_key_that_is_changed_again_and_again_leaves_nothing_behind():
    """Ten thousand failures of one object leave one delay, not ten thousand alarms, also behind an earlier one."""
    queue = queue_of(LIMIT)
    queue.add(key("b"), Priority.DRIFT)
    assert queue.take() == key("b")
    queue.later(key("b"), 500.0)
    queue.done(key("b"))
    for _ in range(10_000):
        queue.add(key("a"), Priority.DRIFT)
        assert queue.take() == key("a")
        queue.later(key("a"), 600.0)
        queue.done(key("a"))
    assert len(queue._alarms) < 200
    assert queue.wait() == 500.0


def test_what_the_api_server_asks_for_outlasts_the_declaration():
    """Git drops the object and declares it again: `Retry-After` still holds, a backoff of our own does not."""
    clock = Clock()
    queue = queue_of(LIMIT, clock)
    for name, asked in (("a", 7.0), ("b", 0.0)):
        queue.add(key(name), Priority.DRIFT)
        assert queue.take() == key(name)
        queue.failed(key(name), asked)
        queue.done(key(name))
        queue.forget(key(name))
    clock.now = 1.0
    queue.add(key("a"), Priority.SYNC)
    assert queue.take() is None
    clock.now = 7.0 * (1 + SPREAD)
    assert queue.take() == key("a")
    queue.done(key("a"))
    assert queue.idle


def test_a_pause_that_the_api_server_asks_for_holds_every_key():
    """Nothing is taken before it is over, also of drift; then the queue goes on by itself."""
    clock = Clock()
    concurrency = Concurrency(clock, LIMIT)
    queue = KeyedQueue(ObjectStates(), concurrency, clock)
    queue.add(key("a"), Priority.DRIFT)
    concurrency.overloaded(0.01, retry_after=5.0)
    clock.now = 4.9
    assert queue.take() is None
    assert 0.0 < queue.wait() < 0.11
    clock.now = 5.0
    assert queue.take() == key("a")


def test_a_sync_gives_way_while_something_that_drifted_is_healed_and_for_a_moment_after():
    """One at a time while drift is about; afterwards as before."""
    clock = Clock()
    queue = queue_of(2, clock)
    for number in range(9):
        queue.add(key(f"sync-{number}"), Priority.SYNC)
    queue.add(key("drifted"), Priority.DRIFT)
    assert [queue.take(), queue.take(), queue.take()] == [key("drifted"), key("sync-0"), None]
    queue.done(key("drifted"))
    assert queue.take() is None
    assert queue.wait() == LINGER
    clock.now = LINGER
    assert queue.take() == key("sync-1")
    assert queue.take() is None


def test_drift_has_places_of_its_own_however_many_a_sync_has_taken():
    """It does not wait until one of the sync's requests has its answer."""
    queue = queue_of(2)
    for number in range(9):
        queue.add(key(f"sync-{number}"), Priority.SYNC)
    assert [queue.take() is None for _ in range(3)] == [False, False, True]
    queue.add(key("a"), Priority.DRIFT)
    queue.add(key("b"), Priority.DRIFT)
    assert [queue.take(), queue.take()] == [key("a"), key("b")]


def test_what_a_key_was_asked_for_again_can_be_withdrawn():
    """The answer to the work may settle what an event has asked for meanwhile; what is asked for later counts anew."""
    queue = queue_of(LIMIT)
    queue.add(key("a"), Priority.SYNC)
    queue.take()
    queue.add(key("a"), Priority.DRIFT)
    queue.withdraw(key("a"))
    queue.done(key("a"))
    assert queue.take() is None
    assert queue.idle
    queue.add(key("a"), Priority.SYNC)
    assert queue.take() == key("a")


def test_work_that_hangs_holds_no_place():
    """What waits for a webhook keeps others waiting for a second, and no more than twice the limit are ever out."""
    clock = Clock()
    queue = queue_of(2, clock)
    for number in range(9):
        queue.add(key(f"hung-{number}"), Priority.DRIFT)
    assert [queue.take() is None for _ in range(3)] == [False, False, True]
    assert queue.wait() == HUNG
    clock.now = HUNG
    assert [queue.take() is None for _ in range(3)] == [False, False, True]
    clock.now = 10 * HUNG
    assert queue.take() is None
    assert queue.wait() is None, "only an answer makes room"
    queue.done(key("hung-0"))
    assert queue.take() == key("hung-4")


def test_it_tells_how_long_a_key_waited_since_it_was_first_asked_for():
    """Asking again does not begin anew; what is added during work waits from then on."""
    clock, waits = Clock(), []
    queue = KeyedQueue(ObjectStates(), Concurrency(clock, LIMIT), clock, waited=lambda *told: waits.append(told))
    queue.add(key("a"), Priority.SYNC)
    clock.now = 2.0
    queue.add(key("a"), Priority.DRIFT)
    assert queue.waiting == {Priority.DRIFT: 1}
    clock.now = 5.0
    queue.take()
    queue.add(key("a"), Priority.SYNC)
    clock.now = 6.0
    queue.done(key("a"))
    queue.take()
    assert waits == [(Priority.DRIFT, 5.0), (Priority.SYNC, 1.0)]
    assert queue.in_flight == 1
