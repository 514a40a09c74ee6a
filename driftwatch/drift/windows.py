"""Healing windows: recurring times in which drift is healed, by cron expression and time zone."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim


class Window(msgspec.Struct, frozen=True):
    """A time in which drift is healed: it opens by a cron expression in a time zone and stays open for `seconds`."""

    schedule: str
    seconds: float
    zone: str = "UTC"

    def is_open(self, now: datetime) -> bool:
        """Whether the window is open at `now` (aware)."""
        now = now.astimezone(UTC)  # two times in one zone are subtracted by the clock on the wall
        local = now.astimezone(ZoneInfo(self.zone)) + timedelta(minutes=1)  # the reverse iteration excludes its start
        opened = next(CronSim(self.schedule, local, reverse=True), None)
        while opened is not None and opened > now:
            opened = next(CronSim(self.schedule, opened, reverse=True), None)
        return opened is not None and (now - opened).total_seconds() < self.seconds
