"""What may be done about an object now: its mode, its source's healing windows, and a live snooze."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from driftwatch.drift.annotations import snooze_end
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest, Window
from driftwatch.model import Mode


class Snooze(msgspec.Struct, frozen=True):
    """A live object's wish not to be healed: until when (RFC 3339), and how many seconds that is from now."""

    until: str
    seconds: float


class Schedule:
    """Knows the time. `now` gives the wall clock, aware; `longest_snooze` is the cap in seconds."""

    def __init__(
        self,
        windows: dict[str, tuple[Window, ...]] | None = None,
        longest_snooze: float = 86400.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.windows = windows or {}
        self.longest_snooze = longest_snooze
        self._now = now

    def configure(self, windows: dict[str, tuple[Window, ...]], longest_snooze: float) -> None:
        """Go by these windows, by source, and this cap from now on."""
        self.windows = windows
        self.longest_snooze = longest_snooze

    def is_open(self, source: str) -> bool:
        """Whether drift of the source is healed now: always, where it has no windows."""
        windows = self.windows.get(source)
        return not windows or any(window.is_open(self._now()) for window in windows)

    def now(self, source: str, policy: Policy) -> Mode:
        """The mode in force. Outside its source's windows, what would be healed is only reported."""
        if policy.mode is Mode.HEAL and not self.is_open(source):
            return Mode.OBSERVE
        return policy.mode

    def snoozed(self, wish: SnoozeRequest | None) -> Snooze | None:
        """What a live object asks for, cut to the cap; None when it has run out, is no time, or was not asked for."""
        until = snooze_end(wish.until) if wish else None
        if wish is None or until is None:
            return None
        now = self._now()
        cap = min(wish.began, now.timestamp()) + self.longest_snooze
        if until.timestamp() > cap:
            until = datetime.fromtimestamp(cap, UTC)
        if until <= now:
            return None
        return Snooze(until.isoformat(timespec="seconds"), (until - now).total_seconds())
