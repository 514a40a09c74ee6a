"""The current mode of an object: its policy, its source's healing windows, and its snooze request."""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from driftwatch.drift.annotations import snooze_end
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest, Window
from driftwatch.model import Mode


class Snooze(msgspec.Struct, frozen=True):
    """A snooze in effect: `until` when (RFC 3339), and the `seconds` until then."""

    until: str
    seconds: float


class Schedule:
    """Applies windows and snoozes. `now` returns the aware wall clock time. `longest_snooze` is a cap in seconds."""

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
        """Set the windows by source, and the cap in seconds."""
        self.windows = windows
        self.longest_snooze = longest_snooze

    def is_open(self, source: str) -> bool:
        """Whether drift of the source is healed now. A source without windows is always open."""
        windows = self.windows.get(source)
        return not windows or any(window.is_open(self._now()) for window in windows)

    def now(self, source: str, policy: Policy) -> Mode:
        """The mode now. Outside the windows of the source, drift is reported and not healed."""
        if policy.mode is Mode.HEAL and not self.is_open(source):
            return Mode.OBSERVE
        return policy.mode

    def snoozed(self, wish: SnoozeRequest | None) -> Snooze | None:
        """The snooze of a request, limited to the cap. None without a request, without a valid time, or in the past."""
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
