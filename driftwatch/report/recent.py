"""The objects that drifted last, by name, for alerts and dashboards. Bounded lists, in which noise hides nothing.

An alert sees what a scrape finds, and between two scrapes ten thousand objects can drift. So what an alert waits for
has a bounded list of its own: a namespace that was deleted is the first to come back, and all that was in it comes
after; a person's edit can fall into a storm of a controller's.
"""

from collections import Counter
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from driftwatch.model import NAMESPACE, Drift, DriftType, ObjectKey

MOST = 100
"""Objects that one list keeps."""

KEPT_SECONDS = 3600.0
"""How long a drift that is over keeps its series by name."""

PERSON, CONTROLLER = "person", "controller"
"""Kinds of actors that cause drift."""


class Seen(NamedTuple):
    """A counted drift: its time in Unix seconds, and the kind of actor that caused it."""

    time: float
    drift: Drift
    actor: str


class _Topic(Enum):
    """What a list is about. It follows from kind, type and actor: no two lists have the same series."""

    NAMESPACE_DELETED = auto()
    BY_PERSON = auto()
    OTHER = auto()


class Latest:
    """The last drift of each of the latest objects, by topic: of an object that is in two lists, both count."""

    def __init__(self, most: int = MOST) -> None:
        self._lists = {topic: _Objects(most) for topic in _Topic}

    def add(self, seen: Seen) -> None:
        """Add a drift. Takes microseconds, since the lists are bounded."""
        self._lists[_topic(seen)].add(seen)

    def since(self, oldest: float) -> Iterator[Seen]:
        """Drifts at or after this time (Unix seconds)."""
        for objects in self._lists.values():
            yield from (seen for seen in objects if seen.time >= oldest)


class _Objects:
    """One list. Of more than it keeps, the oldest of the place that has most goes: no place hides another."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[ObjectKey, Seen] = {}  # the latest last
        self._places: Counter[tuple[str, str]] = Counter()  # how many each has

    def __iter__(self) -> Iterator[Seen]:
        return iter(self._seen.values())

    def add(self, seen: Seen) -> None:
        """Add the newest drift."""
        self._drop(seen.drift.key)
        self._seen[seen.drift.key] = seen
        self._places[_place(seen)] += 1
        if len(self._seen) > self._most:
            self._drop(self._dispensable(seen.time))

    def _dispensable(self, now: float) -> ObjectKey:
        """The object to drop: one that has expired, else the oldest of a place that has most."""
        key, oldest = next(iter(self._seen.items()))
        if oldest.time < now - KEPT_SECONDS:
            return key
        most = max(self._places.values())
        return next(key for key, seen in self._seen.items() if self._places[_place(seen)] == most)

    def _drop(self, key: ObjectKey) -> None:
        if (seen := self._seen.pop(key, None)) is not None:
            place = _place(seen)
            self._places[place] -= 1
            if not self._places[place]:
                del self._places[place]


def _place(seen: Seen) -> tuple[str, str]:
    """Source and namespace, by which alerts tell production from the rest."""
    return seen.drift.source, seen.drift.key.namespace


def _topic(seen: Seen) -> _Topic:
    drift = seen.drift
    if drift.type is DriftType.DELETED and drift.key.group_kind == NAMESPACE:
        return _Topic.NAMESPACE_DELETED
    return _Topic.BY_PERSON if seen.actor == PERSON else _Topic.OTHER
