"""A live object's wish to be left alone for a while, and since when it wishes so: the cap on it counts from then.

Who sets the annotation leaves an entry in `managedFields`, whose time is kept across our restarts by the API server
itself. It is no proof: it moves on with every later edit by the same manager, and anybody may write another one. So it
is read once, when a wish is first seen, is never taken for later than that, and is remembered beside the record.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim

from driftwatch.drift.additions import SNOOZE
from driftwatch.drift.fieldset import contains, tree
from driftwatch.drift.metadata import ManagedFieldsEntry, Metadata


class SnoozeRequest(msgspec.Struct, frozen=True, gc=False):
    """What the annotation says, as it is written, and since when it says so (Unix seconds)."""

    until: str
    began: float


def wish(metadata: Metadata, known: SnoozeRequest | None, now: float) -> SnoozeRequest | None:
    """What an object wishes at `now`; None where it has no annotation. `known` is what it was known to wish.

    The same words are the same wish, which began when it began. A beginning that lies ahead, by a forged entry or by a
    clock that was set back, is now.
    """
    until = metadata.snooze_until
    if not until:
        return None
    began = known.began if known is not None and known.until == until else _set_at(metadata, now)
    if known is not None and (until, min(began, now)) == (known.until, known.began):
        return known
    return SnoozeRequest(until, min(began, now))


def snoozed_by(metadata: Metadata) -> str:
    """The manager who set the annotation, "" if nobody owns it."""
    return next((entry.manager for entry in _owners(metadata)), "")


def _owners(metadata: Metadata) -> Iterator[ManagedFieldsEntry]:
    return (entry for entry in metadata.managedFields if contains(tree(entry.fieldsV1), SNOOZE))


def _set_at(metadata: Metadata, now: float) -> float:
    """When the first of its owners wrote, `now` where nobody owns the annotation or no time is given."""
    return min((_unix(entry.time, now) for entry in _owners(metadata)), default=now)


def _unix(time: str, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return otherwise


class Window(msgspec.Struct, frozen=True):
    """A time in which drift is healed: it opens by a cron expression in a time zone and stays open for `seconds`."""

    schedule: str
    seconds: float
    zone: str = "UTC"

    def is_open(self, now: datetime) -> bool:
        """Whether the window is open at `now` (aware)."""
        now = now.astimezone(UTC)  # two times in one zone are subtracted by the clock on the wall
        opened = _last_opening(self.schedule, self.zone, now.replace(second=0, microsecond=0))
        return opened is not None and (now - opened).total_seconds() < self.seconds


@lru_cache(maxsize=256)
def _last_opening(schedule: str, zone: str, minute: datetime) -> datetime | None:
    """The last opening up to this minute (UTC). Windows open at full minutes, so it holds for all of the minute.

    Walking back to it costs 0.04 to 1.5 ms, and every heal of a source with windows asks.
    """
    local = minute.astimezone(ZoneInfo(zone)) + timedelta(minutes=1)  # the reverse iteration excludes its start
    opened = next(CronSim(schedule, local, reverse=True), None)
    while opened is not None and opened > minute:
        opened = next(CronSim(schedule, opened, reverse=True), None)
    return opened
