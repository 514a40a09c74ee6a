"""Indexes for items of keyed lists and sets. The time for an object is linear in its list items.

A scan of the list for each owned field is quadratic: 100 environment variables took 40 ms of the event loop. An item
may lack keys that have a default (`protocol: TCP` of a port); a missing key matches any value.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

Names = tuple[str, ...]

_decode = msgspec.json.Decoder().decode


def _token(value: Any) -> Any:
    """A hashable token. Equal values have equal tokens."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if isinstance(value, dict | list) else value


def _tokens(values: dict[str, Any], names: Iterable[str]) -> tuple[Any, ...]:
    return tuple([_token(values[name]) for name in names])


def _present(item: dict[str, Any], names: Names) -> Names:
    return tuple([name for name in names if name in item])


class ItemIndex:
    """Positions of the items of one list in an object. Each index is built on first use. The list may only grow."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items
        self._by_value: dict[Any, int] | None = None
        self._by_keys: dict[Names, dict[Names, dict[tuple[Any, ...], int]]] = {}

    def find(self, step: str) -> int | None:
        """Position of the first item that a `k:` or `v:` step selects. None without one."""
        wanted = _decode(step[2:])
        return self._keyed(wanted) if step.startswith("k:") else self._values().get(_token(wanted))

    def added(self) -> None:
        """Index an item that was appended to the list."""
        position = len(self._items) - 1
        item = self._items[position]
        if self._by_value is not None:
            self._by_value.setdefault(_token(item), position)
        for names, groups in self._by_keys.items():
            _add(groups, names, item, position)

    def _values(self) -> dict[Any, int]:
        if self._by_value is None:
            self._by_value = {}
            for position, item in enumerate(self._items):
                self._by_value.setdefault(_token(item), position)
        return self._by_value

    def _keyed(self, keys: dict[str, Any]) -> int | None:
        names = tuple(keys)
        groups = self._by_keys.get(names)
        if groups is None:
            groups = self._by_keys[names] = {}
            for position, item in enumerate(self._items):
                _add(groups, names, item, position)
        found = [positions.get(_tokens(keys, present)) for present, positions in groups.items()]
        return min((position for position in found if position is not None), default=None)


def _add(groups: dict[Names, dict[tuple[Any, ...], int]], names: Names, item: Any, position: int) -> None:
    if isinstance(item, dict):
        present = _present(item, names)
        groups.setdefault(present, {}).setdefault(_tokens(item, present), position)


class StepIndex:
    """The `k:` and `v:` steps of one list in a field set. The field set must not change."""

    def __init__(self, node: dict[str, Any]) -> None:
        self.node = node
        self._by_value: dict[Any, str] = {}
        self._keyed: dict[Names, list[tuple[int, str, dict[str, Any]]]] = {}
        self._by_keys: dict[tuple[Names, Names], dict[tuple[Any, ...], list[tuple[int, str]]]] = {}
        for order, step in enumerate(node):
            if step.startswith("k:"):
                keys = _decode(step[2:])
                self._keyed.setdefault(tuple(keys), []).append((order, step, keys))
            elif step.startswith("v:"):
                self._by_value.setdefault(_token(_decode(step[2:])), step)

    def steps(self, item: Any) -> list[str]:
        """The steps that select an item, in the order of the field set."""
        if isinstance(item, list):
            return []
        if not isinstance(item, dict):
            step = self._by_value.get(item)
            return [] if step is None else [step]
        found: list[tuple[int, str]] = []
        for names in self._keyed:
            present = _present(item, names)
            found += self._grouped(names, present).get(_tokens(item, present), ())
        return [step for _, step in sorted(found)]

    def _grouped(self, names: Names, present: Names) -> dict[tuple[Any, ...], list[tuple[int, str]]]:
        """The steps with these keys, grouped by the values of the keys that are present in an item."""
        groups = self._by_keys.get((names, present))
        if groups is None:
            groups = self._by_keys[names, present] = {}
            for order, step, keys in self._keyed[names]:
                groups.setdefault(_tokens(keys, present), []).append((order, step))
        return groups
