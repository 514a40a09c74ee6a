"""The objects that drifted last, by name, for alerts and dashboards. The lists are bounded, and noise hides nothing.

An alert sees only the values at a scrape, and ten thousand objects can drift between two scrapes. So each topic of an
alert has its own bounded list. A deleted namespace is healed first, and all its objects after it would push it out. A
person's edit can coincide with thousands of edits by a controller.
"""

from collections import Counter
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from driftwatch.model import NAMESPACE, Drift, DriftType, ObjectKey

MOST = 100
"""Most objects in one list."""

KEPT_SECONDS = 3600.0
"""How long a drift that is over keeps its named series."""

PERSON, CONTROLLER = "person", "controller"
"""Kinds of actors that cause drift."""


class Seen(NamedTuple):
    """A counted drift: its time in Unix seconds, and the kind of actor that caused it."""

    time: float
    drift: Drift
    actor: str


class _Topic(Enum):
    """The topic of a list. It follows from kind, type and actor, so no two lists have the same series."""

    NAMESPACE_DELETED = auto()
    BY_PERSON = auto()
    OTHER = auto()


class Latest:
    """The last drift of each recent object, by topic. An object in two lists has two entries."""

    def __init__(self, most: int = MOST) -> None:
        self._lists = {topic: _Objects(most) for topic in _Topic}

    def add(self, seen: Seen) -> None:
        """Add a drift. It takes microseconds, because the lists are bounded."""
        self._lists[_topic(seen)].add(seen)

    def since(self, oldest: float) -> Iterator[Seen]:
        """Drifts at or after this time (Unix seconds)."""
        for objects in self._lists.values():
            yield from (seen for seen in objects if seen.time >= oldest)


class _Objects:
    """One list. When it is full, the oldest entry of the place with most entries is dropped: no place hides another."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[ObjectKey, Seen] = {}  # newest last
        self._places: Counter[tuple[str, str]] = Counter()  # entries of each place

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
        """The object to drop: an expired one, else the oldest of a place with most entries."""
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
    """Source and namespace. Alerts use them to select production."""
    return seen.drift.source, seen.drift.key.namespace


def _topic(seen: Seen) -> _Topic:
    drift = seen.drift
    if drift.type is DriftType.DELETED and drift.key.group_kind == NAMESPACE:
        return _Topic.NAMESPACE_DELETED
    return _Topic.BY_PERSON if seen.actor == PERSON else _Topic.OTHER
