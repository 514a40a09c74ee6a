"""Adapts the number of concurrent writes to what the API server can handle.

Each priority has its own limit, so drift never waits for a slot that a large sync holds. A limit grows by one after a
round of successful answers that used all of it. It shrinks by a factor on a sign of overload. This is TCP's additive
increase and multiplicative decrease.

There are three signs of overload: refusals of all requests, failures of many objects at once, and latency. Latency is
measured as the ratio to the best recent latency of the same kind, because a large CRD always takes longer than a
ConfigMap. The failure of one object is not a sign, since the object itself may be the cause. Without signs of overload,
a limit recovers to its initial value with time alone, because a quiet cluster has no answers that could raise it.

The priorities tolerate different ratios. Requests that queue up in the API server speed up nothing, and drift then
waits behind them. A sync therefore uses a low limit. Drift uses the highest limit possible.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Hashable
from enum import StrEnum

from driftwatch.model import Priority

CEILING = {Priority.DRIFT: 16, Priority.SYNC: 8}
"""Maximum of concurrent writes of a priority. More writes only queue up in the API server and in etcd.

The value for drift was measured on two otherwise idle cores. With more writes in flight, more of them share one
wake-up, one read and one commit. One heal of a burst costs 12.8 ms of CPU with 5 writes in flight, 11.6 ms with 8 and
10.3 ms with 16, summed over all processes.
"""

FIRST = {Priority.DRIFT: CEILING[Priority.DRIFT], Priority.SYNC: 2}
"""Initial limit of each priority. Sync starts low, so that the best latency is measured before requests queue up."""

TOLERANCE = {Priority.DRIFT: 2.0 * CEILING[Priority.DRIFT], Priority.SYNC: 5.0}
"""Latency above which a limit shrinks, as a multiple of the best recent latency.

Drift: sixteen requests to a server that handles one at a time cause a factor of sixteen by themselves. Twice that is
caused by the load of other clients. Sync, measured on two cores: with a tolerance of five, a first sync takes as long
as with a constant limit of eight. With three, an update of all objects took twice as long.
"""

FEWEST_BY_LATENCY = 2
"""Lowest limit after cuts by latency, which may be caused by one webhook. Refusals and missing answers cut to one."""

SHRINK_BY_LATENCY = 0.75
SHRINK_BY_OVERLOAD = 0.5
ROUND = 2
"""Answers of one round, as a multiple of the limit. The limit changes at the end of a round."""

SHORTEST_ROUND = 8
"""Fewest answers of one round, because the median of a few values says little."""

BEST_SECONDS = 300.0
"""Seconds for which the best latency of a kind counts, in two halves."""

LINGER = 0.5
"""Seconds after the last drift for which a sync still yields. A user who edits one object often edits another next."""

SYNC_BESIDE_DRIFT = 1
"""Limit of a sync while drift is healed. The sync is slow, but it never stops."""

SHORTEST = 0.001
"""Lower bound in seconds for the best latency. No write takes less."""

MANY = 8
"""Number of different objects whose failures within `AT_ONCE` count as overload of the API server."""

AT_ONCE = 5.0
"""Seconds within which failures of `MANY` objects count as overload."""

RECOVERY = 2.0
"""Seconds without a sign of overload after which a limit grows by one, up to its initial value."""

LONGEST_HOLD = 60.0
"""Longest pause in seconds. API Priority and Fairness asks for at most 32. A proxy may ask for any number."""


class Cut(StrEnum):
    """Reason for a cut of the limits."""

    THROTTLED = "throttled"
    OVERLOAD = "overload"
    LATENCY = "latency"


class _Best:
    """The best recent latency of a kind: the minimum of the current and the previous half of the period."""

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
    """The limit of one priority."""

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
        """The limit, including what it has recovered with time."""
        if self.limit < self._began_with and (places := int((now - self._rested_at) / RECOVERY)) > 0:
            self.limit = min(self._began_with, self.limit + places)
            self._rested_at = now
        return self.limit

    def recovers(self, now: float) -> float:
        """Seconds until the limit grows by one with time alone. 0 means never."""
        return max(SHORTEST, self._rested_at + RECOVERY - now) if self.limit < self._began_with else 0.0

    def answered(self, ratio: float, out: int, now: float) -> bool:
        """Add a successful answer. Returns whether it ended a round that was too slow."""
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
        """Shrink the limit. Requests that were sent before this moment no longer affect it."""
        self.limit = max(fewest, int(self.limit * factor))
        self.cut_at = self._rested_at = now
        self._ratios.clear()
        self._full = False


class Concurrency:
    """The limits of all priorities. Pure: the caller counts what is in flight and passes the result of each request.

    `most` lowers the ceiling of every priority.
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
        """Number of cuts by reason."""

    def limit(self, priority: Priority) -> int:
        """How many keys of the priority may be in flight now, regardless of a pause."""
        limit = self._shares[priority].at(self._clock())
        return min(limit, SYNC_BESIDE_DRIFT) if priority is Priority.SYNC and self.lingers() else limit

    def drift_is_about(self) -> None:
        """Note that drift is being healed or waits to be healed."""
        self._drift_at = self._clock()

    def since_drift(self) -> float:
        """Seconds since drift was last being healed or waiting to be healed."""
        return self._clock() - self._drift_at

    def lingers(self) -> float:
        """Seconds for which a sync still yields if no more drift occurs."""
        return max(0.0, LINGER - self.since_drift())

    def recovers(self, priority: Priority) -> float:
        """Seconds until the limit of the priority grows by one with time alone. 0 means never."""
        return self._shares[priority].recovers(self._clock())

    def pause(self) -> float:
        """Seconds for which no request may be sent, because the API server has asked for a pause."""
        return max(0.0, self._held_until - self._clock())

    def answered(self, priority: Priority, what: Hashable, seconds: float, out: int) -> None:
        """Add a successful request that took `seconds` while `out` keys of its priority were in flight.

        `what` groups requests whose latencies can be compared.
        """
        now, share = self._clock(), self._shares[priority]
        share.at(now)
        best = self._best.setdefault(what, _Best(seconds, now)).take(seconds, now)
        if now - seconds >= share.cut_at and share.answered(seconds / max(best, SHORTEST), out, now):
            self.cuts[Cut.LATENCY] += 1

    def failed(self, what: Hashable, seconds: float) -> None:
        """Add a failure of one object after `seconds`. Only failures of many objects are a sign of overload."""
        now = self._clock()
        self._failed = {other: at for other, at in self._failed.items() if now - at <= AT_ONCE}
        self._failed[what] = now
        if len(self._failed) >= MANY:
            self._failed.clear()
            self.overloaded(seconds)

    def overloaded(self, seconds: float, retry_after: float = 0.0) -> None:
        """The API server refused all requests, or failed on many objects. The last request took `seconds`.

        `retry_after`: the pause in seconds that the API server asks for.
        """
        now = self._clock()
        if retry_after > 0.0:
            self._held_until = max(self._held_until, now + min(retry_after, LONGEST_HOLD))
        # A request that was sent before the last cut does not cause another cut.
        shares = [share for share in self._shares.values() if now - seconds >= share.cut_at]
        for share in shares:
            share.at(now)
            share.shrink(SHRINK_BY_OVERLOAD, 1, now)
        if shares:
            self.cuts[Cut.THROTTLED if retry_after else Cut.OVERLOAD] += 1
