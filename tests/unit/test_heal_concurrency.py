"""How many writes are let out at once: by what the API server answers, and how long it takes."""

import itertools

import pytest
from driftwatch.model import Priority
from driftwatch.reconcile.concurrency import (
    BEST_SECONDS,
    CEILING,
    FEWEST_BY_LATENCY,
    FIRST,
    LONGEST_HOLD,
    SHORTEST_ROUND,
    TOLERANCE,
    Concurrency,
    Cut,
)

KIND = "ConfigMap"
ALONE = 0.004  # seconds that a write takes when nothing else is there


class Server:
    """Answers as many writes at a time as are let out: each takes longer, the more there are beyond what it can do."""

    def __init__(self, priority: Priority, cores: int) -> None:
        self.now = 0.0
        self.concurrency = Concurrency(lambda: self.now)
        self.priority = priority
        self.cores = cores
        self.slower = 1.0
        self.answer(ALONE, out=1)

    def answer(self, seconds: float, out: int) -> None:
        self.now += seconds / out
        self.concurrency.answered(self.priority, KIND, seconds, out)

    def work(self, answers: int = 500) -> list[int]:
        """So many answers, with as much to do as is let out; the limit after each."""
        limits = []
        for _ in range(answers):
            out = self.concurrency.limit(self.priority)
            self.answer(ALONE * self.slower * max(1.0, out / self.cores), out)
            limits.append(self.concurrency.limit(self.priority))
        return limits


@pytest.mark.parametrize(("cores", "settles"), [(1, (3, 6)), (8, (CEILING[Priority.SYNC], CEILING[Priority.SYNC]))])
def test_a_sync_lets_out_no_more_than_keeps_the_api_server_busy(cores, settles):
    """Beyond that, requests only queue up there, in front of whatever drifts next."""
    limits = Server(Priority.SYNC, cores).work()[-100:]
    assert settles[0] <= min(limits)
    assert max(limits) <= settles[1]


def test_of_drift_as_many_are_let_out_as_may_be():
    """A burst on the smallest API server uses every place."""
    assert set(Server(Priority.DRIFT, 1).work()) == {CEILING[Priority.DRIFT]}


def test_an_api_server_that_others_slow_down_gets_less_and_later_all_of_it_again():
    """Also of drift, but latency alone leaves more than one: it may be a webhook's."""
    server = Server(Priority.DRIFT, 2)
    server.work()
    server.slower = 3 * TOLERANCE[Priority.DRIFT]
    assert server.work()[-1] == FEWEST_BY_LATENCY
    assert server.concurrency.cuts[Cut.LATENCY] > 0
    server.slower = 1.0
    assert server.work()[-1] == CEILING[Priority.DRIFT]


def test_what_always_takes_long_is_no_sign_of_overload():
    """A large definition is compared with its like."""
    server = Server(Priority.SYNC, 8)
    for _ in range(100):
        server.concurrency.answered(Priority.SYNC, "CustomResourceDefinition", 100 * ALONE, CEILING[Priority.SYNC])
    assert server.concurrency.cuts[Cut.LATENCY] == 0
    assert server.concurrency.limit(Priority.SYNC) == CEILING[Priority.SYNC]


def test_a_server_that_stays_slower_is_taken_as_it_is():
    """The best latency of an hour ago is no measure: a cluster that has grown is not overloaded for good."""
    server = Server(Priority.SYNC, 8)
    server.work()
    server.slower = 10.0
    server.work(100)
    assert server.concurrency.limit(Priority.SYNC) == FEWEST_BY_LATENCY
    server.now += BEST_SECONDS
    assert server.work(300)[-1] == CEILING[Priority.SYNC]


def test_one_slow_answer_among_good_ones_changes_nothing():
    """Garbage is collected, a webhook stumbles: that is not the API server as a whole."""
    server = Server(Priority.SYNC, 8)
    for number in range(100):
        server.answer(ALONE * (50 if number % 5 == 0 else 1), out=CEILING[Priority.SYNC])
    assert server.concurrency.cuts[Cut.LATENCY] == 0


def test_a_limit_that_nothing_makes_use_of_does_not_grow():
    """Answers to single writes do not tell what eight at once would do."""
    server = Server(Priority.SYNC, 8)
    for _ in range(100):
        server.answer(ALONE, out=1)
    assert server.concurrency.limit(Priority.SYNC) == FIRST[Priority.SYNC]


def test_silence_and_failures_leave_one_and_it_recovers_step_by_step():
    """Each answer that does not come, to what was sent after the last, halves what is let out."""
    server, seen = Server(Priority.DRIFT, 8), []
    for _ in range(5):
        server.now += 1.0
        server.concurrency.overloaded(0.5)
        seen.append(server.concurrency.limit(Priority.DRIFT))
    assert seen == [8, 4, 2, 1, 1]
    assert server.concurrency.limit(Priority.SYNC) == 1
    assert server.concurrency.pause() == 0.0
    limits = server.work(60 * SHORTEST_ROUND)
    assert limits[-1] == CEILING[Priority.DRIFT]
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(limits))


def test_answers_to_what_was_sent_before_a_cut_say_nothing_of_it():
    """They were slow, or fast, with more out than now."""
    server = Server(Priority.DRIFT, 8)
    server.now = 10.0
    server.concurrency.overloaded(0.5)
    for _ in range(10 * SHORTEST_ROUND):
        server.concurrency.answered(Priority.DRIFT, KIND, 0.5, CEILING[Priority.DRIFT])
    assert server.concurrency.limit(Priority.DRIFT) == CEILING[Priority.DRIFT] // 2
    assert server.concurrency.cuts[Cut.LATENCY] == 0


def test_the_longest_pause_counts_and_none_is_longer_than_sense():
    """A shorter one that is asked for later does not end it; a broken proxy does not stop healing for a day."""
    server = Server(Priority.DRIFT, 8)
    start = server.now
    server.concurrency.overloaded(0.001, 10.0)
    server.concurrency.overloaded(0.001, 2.0)
    assert server.concurrency.pause() == 10.0
    server.concurrency.overloaded(0.001, 86_400.0)
    assert server.concurrency.pause() == LONGEST_HOLD
    server.now = start + LONGEST_HOLD
    assert server.concurrency.pause() == 0.0
