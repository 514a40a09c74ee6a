"""What the `driftwatch.io/*` labels and annotations of an object may say, in Git and on the live object.

A mistyped word must never count as unsaid: whoever wrote `prune: "false"` did not ask for a deletion. In Git it makes
the manifest invalid; a live object that is to be left alone in words that nobody understands is left alone.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from driftwatch.model import (
    ADDITIONS_ANNOTATION,
    DESIRED_HASH_ANNOTATION,
    ID_ANNOTATION,
    MODE_ANNOTATION,
    OUR_PREFIX,
    PRUNE_ANNOTATION,
    RECREATE_ANNOTATION,
    SNOOZE_ANNOTATION,
    SOURCE_LABEL,
    SUBSTITUTE,
    Mode,
)


class Additions(StrEnum):
    """What is done about fields that somebody added and Git does not declare."""

    REVERT = "revert"
    REPORT = "report"
    IGNORE = "ignore"


class Recreate(StrEnum):
    """Whether an object is deleted and created anew."""

    NEVER = "never"
    IMMUTABLE = "immutable"  # where Git changes a field that the API server does not let anybody change


class Prune(StrEnum):
    """What an object itself says of its deletion when it leaves Git."""

    DISABLED = "disabled"
    CONFIRMED = "confirmed"  # needed where the deletion takes other objects, or data, along


class Substitute(StrEnum):
    """Whether variables are replaced in a document."""

    DISABLED = "disabled"


A_TIME = "an RFC 3339 time with an offset, such as 2026-01-31T18:00:00Z"

_WORDS: dict[str, type[StrEnum]] = {
    ADDITIONS_ANNOTATION: Additions,
    MODE_ANNOTATION: Mode,
    PRUNE_ANNOTATION: Prune,
    RECREATE_ANNOTATION: Recreate,
    SUBSTITUTE: Substitute,
}
_KNOWN = {"annotations": (*sorted(_WORDS), SNOOZE_ANNOTATION), "labels": (SUBSTITUTE,)}
_ALL = f"there are the annotations {', '.join(_KNOWN['annotations'])}, and the label {SUBSTITUTE}"
# Ours are written anew whatever Git says of them: somebody may have committed what `kubectl get -o yaml` printed. The
# last one is on the demo's namespace.
_PASSED = {"annotations": (ID_ANNOTATION, DESIRED_HASH_ANNOTATION), "labels": (SOURCE_LABEL, f"{OUR_PREFIX}demo")}


def expected(name: str) -> str:
    """The words that an annotation may hold, for people."""
    if name == SNOOZE_ANNOTATION:
        return A_TIME
    *words, last = _WORDS[name]
    return f"{', '.join(words)} or {last}" if words else str(last)


def is_understood(name: str, value: str) -> bool:
    """Whether one of our annotations says something that we know how to follow."""
    if name == SNOOZE_ANNOTATION:
        return snooze_end(value) is not None
    return value in set(_WORDS[name])


def snooze_end(wish: str) -> datetime | None:
    """The time that a snooze annotation names, aware; None where it names none."""
    try:
        until = datetime.fromisoformat(wish)
    except ValueError:
        return None
    return until if until.tzinfo is not None else None  # RFC 3339 has an offset


def mistakes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the labels and annotations about us in a manifest's metadata; no value is quoted."""
    for field, singular in (("labels", "label"), ("annotations", "annotation")):
        for name, value in metadata.get(field, {}).items():
            if not name.startswith(OUR_PREFIX) or name in _PASSED[field]:
                continue
            if name not in _KNOWN[field]:
                yield f"there is no {singular} {name}; {_ALL}"
            elif not is_understood(name, value):
                yield f"the {singular} {name} must be {expected(name)}"
