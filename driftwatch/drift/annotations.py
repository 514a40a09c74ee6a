"""Valid values of the `driftwatch.io/*` labels and annotations, in Git and on live objects.

Unknown values are never silently ignored: the author of `prune: "false"` did not ask for a deletion. In Git, an
unknown value makes the manifest invalid. On a live object, an unknown value of an annotation that can protect the
object does protect it.
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
    """How to handle live fields that Git does not declare."""

    REVERT = "revert"
    REPORT = "report"
    IGNORE = "ignore"


class Recreate(StrEnum):
    """Whether driftwatch may delete an object and create it again."""

    NEVER = "never"
    IMMUTABLE = "immutable"  # only if Git changes a field that is immutable in the API


class Prune(StrEnum):
    """Whether an object may be deleted when it leaves Git, as set on the object."""

    DISABLED = "disabled"
    CONFIRMED = "confirmed"  # required for kinds whose deletion deletes other objects or data


class Substitute(StrEnum):
    """Whether variables in a document are substituted."""

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
# driftwatch overwrites its own labels and annotations, so Git may contain them: somebody may have committed the output
# of `kubectl get -o yaml`. The last label is on the demo's namespace.
_PASSED = {"annotations": (ID_ANNOTATION, DESIRED_HASH_ANNOTATION), "labels": (SOURCE_LABEL, f"{OUR_PREFIX}demo")}


def expected(name: str) -> str:
    """The valid values of an annotation, as text for people."""
    if name == SNOOZE_ANNOTATION:
        return A_TIME
    *words, last = _WORDS[name]
    return f"{', '.join(words)} or {last}" if words else str(last)


def is_understood(name: str, value: str) -> bool:
    """Whether the value of one of our annotations is valid."""
    if name == SNOOZE_ANNOTATION:
        return snooze_end(value) is not None
    return value in set(_WORDS[name])


def snooze_end(wish: str) -> datetime | None:
    """The end time in a snooze annotation, timezone-aware. None if the value is not such a time."""
    try:
        until = datetime.fromisoformat(wish)
    except ValueError:
        return None
    return until if until.tzinfo is not None else None  # RFC 3339 requires an offset


def mistakes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Errors in the `driftwatch.io/*` labels and annotations of a manifest's metadata. They quote no value."""
    for field, singular in (("labels", "label"), ("annotations", "annotation")):
        for name, value in metadata.get(field, {}).items():
            if not name.startswith(OUR_PREFIX) or name in _PASSED[field]:
                continue
            if name not in _KNOWN[field]:
                yield f"there is no {singular} {name}; {_ALL}"
            elif not is_understood(name, value):
                yield f"the {singular} {name} must be {expected(name)}"
