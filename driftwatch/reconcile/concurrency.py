"""How many objects are written at the same time: as many as the API server answers well, and no more.

Each lane has a limit of its own, so that drift never waits for a place that a large sync holds. A limit grows by one
after a round of good answers that made use of all of it, and shrinks by a factor on a sign of overload: TCP's additive
increase and multiplicative decrease. Signs are refusals of everything, failures of many objects at once, and latency:
its ratio to the best of late of the same kind, since a large definition takes longer than a ConfigMap whoever else is
there. The failure of one object is no sign: it may be the object's own. While no sign comes, a limit goes back to where
it began with time alone: a quiet cluster has no answers that would raise it.

The lanes bear with different ratios. Requests that only queue up in the API server make nothing faster, but whatever
drifts then stands in line behind them: a sync is content with few. Of drift as many are sent as may be.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Hashable
from enum import StrEnum

from driftwatch.model import Priority

CEILING = {Priority.DRIFT: 16, Priority.SYNC: 8}
"""Writes of a lane at the same time; more only queue up in the API server and in etcd.

Of drift, measured on two cores that are busy with nothing else: the more are under way, the more of them go into one
wake-up, one read and one commit. A heal of a burst takes all processes together 12.8 ms of CPU with 5, 11.6 with 8 and
10.3 with 16.
"""

FIRST = {Priority.DRIFT: CEILING[Priority.DRIFT], Priority.SYNC: 2}
"""Where each lane begins. A sync's grows from few, so that the best latency is known before there is a queue."""

TOLERANCE = {Priority.DRIFT: 2.0 * CEILING[Priority.DRIFT], Priority.SYNC: 5.0}
"""Latency, as a multiple of the best of late, from which a lane shrinks.

Of drift: sixteen requests to a server that takes them one by one explain a factor of sixteen themselves; twice that is
the load of others. Of a sync, measured on two cores: with five a first one takes as long as with eight places all the
time, and with three an update of everything took twice as long.
"""

FEWEST_BY_LATENCY = 2
"""Latency alone leaves so many: it may be that of one webhook. Refusals, and silence, leave one."""

SHRINK_BY_LATENCY = 0.75
SHRINK_BY_OVERLOAD = 0.5
ROUND = 2
"""Answers, as a multiple of the limit, after which it is thought over..."""

SHORTEST_ROUND = 8
"""... and no fewer: the median of a few says little."""

BEST_SECONDS = 300.0
"""How long the best latency of a kind counts, in two halves."""

LINGER = 0.5
"""Seconds after the last drift in which a sync still gives way: who has changed one object changes another one next."""

SYNC_BESIDE_DRIFT = 1
"""What a sync goes on with while drift is healed: slow, but never at a standstill."""

SHORTEST = 0.001
"""Seconds; no write takes less, and none is measured against less."""

MANY = 8
"""Different objects whose failures are those of the API server..."""

AT_ONCE = 5.0
"""... when they come within so many seconds."""

RECOVERY = 2.0
"""Seconds without a sign of overload after which a lane has one place more, up to where it began."""

LONGEST_HOLD = 60.0
"""Seconds. Priority and fairness asks for 32 at most; what is in front of an API server may ask for anything."""


class Cut(StrEnum):
    """Why limits were made smaller."""

    THROTTLED = "throttled"
    OVERLOAD = "overload"
    LATENCY = "latency"


class _Best:
    """The shortest latency of a kind of late: the minimum of this half of the period and of the one before."""

    __slots__ = ("before", "now", "since")

    def __init__(self, seconds: float, now: float) -> None:
        self.before, self.now, self.since = seconds, seconds, now

    def take(self, seconds: float, now: float) -> float:
        if now - self.since >= BEST_SECONDS / 2:
            self.before = self.now if now - self.since < BEST_SECONDS else seconds
            self.now, self.since = seconds, now
        self.now = min(self.now, seconds)
        return min(self.now, self.before)


class _Share:
    """The limit of one lane."""

    def __init__(self, ceiling: int, first: int, tolerance: float) -> None:
        self.limit = min(first, ceiling)
        self.cut_at = float("-inf")
        self._ceiling = ceiling
        self._began_with = self.limit
        self._rested_at = float("-inf")
        self._tolerance = tolerance
        self._ratios: list[float] = []
        self._full = False

    def at(self, now: float) -> int:
        """The limit, with the places that it has got back by time alone."""
        if self.limit < self._began_with and (places := int((now - self._rested_at) / RECOVERY)) > 0:
            self.limit = min(self._began_with, self.limit + places)
            self._rested_at = now
        return self.limit

    def recovers(self, now: float) -> float:
        """Seconds until time alone gives it one place more, 0 for never."""
        return max(SHORTEST, self._rested_at + RECOVERY - now) if self.limit < self._began_with else 0.0

    def answered(self, ratio: float, out: int, now: float) -> bool:
        """Take a good answer in; returns whether it was the last of a round that was too slow."""
        self._ratios.append(ratio)
        self._full |= out >= self.limit
        if len(self._ratios) < max(ROUND * self.limit, SHORTEST_ROUND):
            return False
        slow = statistics.median(self._ratios) > self._tolerance
        if slow:
            self.shrink(SHRINK_BY_LATENCY, min(FEWEST_BY_LATENCY, self.limit), now)
        elif self._full:
            self.limit = min(self._ceiling, self.limit + 1)
        self._ratios.clear()
        self._full = False
        return slow

    def shrink(self, factor: float, fewest: int, now: float) -> None:
        """Make the limit smaller; what was asked before this moment says nothing more about it."""
        self.limit = max(fewest, int(self.limit * factor))
        self.cut_at = self._rested_at = now
        self._ratios.clear()
        self._full = False


class Concurrency:
    """Pure: whoever asks for a place counts what is out, and whoever got an answer tells of it.

    `most` lowers the ceiling of every lane.
    """

    def __init__(self, clock: Callable[[], float], most: int = max(CEILING.values())) -> None:
        self._clock = clock
        self._shares = {
            priority: _Share(min(CEILING[priority], most), FIRST[priority], TOLERANCE[priority])
            for priority in Priority
        }
        self._best: dict[Hashable, _Best] = {}
        self._held_until = float("-inf")
        self._drift_at = float("-inf")
        self._failed: dict[Hashable, float] = {}
        self.cuts: Counter[Cut] = Counter(dict.fromkeys(Cut, 0))
        """How often limits were made smaller, and why."""

    def limit(self, priority: Priority) -> int:
        """How many of the lane may be out now; a pause is another matter."""
        limit = self._shares[priority].at(self._clock())
        return min(limit, SYNC_BESIDE_DRIFT) if priority is Priority.SYNC and self.lingers() else limit

    def drift_is_about(self) -> None:
        """Something that has drifted is being healed, or waits for it."""
        self._drift_at = self._clock()

    def since_drift(self) -> float:
        """Seconds since something that has drifted was healed, or waited for it."""
        return self._clock() - self._drift_at

    def lingers(self) -> float:
        """Seconds for which a sync still gives way if no more drift comes."""
        return max(0.0, LINGER - self.since_drift())

    def recovers(self, priority: Priority) -> float:
        """Seconds until time alone gives the lane one place more, 0 for never."""
        return self._shares[priority].recovers(self._clock())

    def pause(self) -> float:
        """Seconds for which nothing is to be sent, because the API server has asked for that."""
        return max(0.0, self._held_until - self._clock())

    def answered(self, priority: Priority, what: Hashable, seconds: float, out: int) -> None:
        """A request had a good answer after so long, while so many of its lane were out.

        `what` it was about tells requests apart that take differently long.
        """
        now, share = self._clock(), self._shares[priority]
        share.at(now)
        best = self._best.setdefault(what, _Best(seconds, now)).take(seconds, now)
        if now - seconds >= share.cut_at and share.answered(seconds / max(best, SHORTEST), out, now):
            self.cuts[Cut.LATENCY] += 1

    def failed(self, what: Hashable, seconds: float) -> None:
        """The API server failed on one object after so long: a sign only together with many others."""
        now = self._clock()
        self._failed = {other: at for other, at in self._failed.items() if now - at <= AT_ONCE}
        self._failed[what] = now
        if len(self._failed) >= MANY:
            self._failed.clear()
            self.overloaded(seconds)

    def overloaded(self, seconds: float, retry_after: float = 0.0) -> None:
        """The API server refused everything after so long, or failed on many objects.

        `retry_after`: seconds for which it asks to be left alone.
        """
        now = self._clock()
        if retry_after > 0.0:
            self._held_until = max(self._held_until, now + min(retry_after, LONGEST_HOLD))
        # What was sent before the last cut is no reason for another one.
        shares = [share for share in self._shares.values() if now - seconds >= share.cut_at]
        for share in shares:
            share.at(now)
            share.shrink(SHRINK_BY_OVERLOAD, 1, now)
        if shares:
            self.cuts[Cut.THROTTLED if retry_after else Cut.OVERLOAD] += 1
