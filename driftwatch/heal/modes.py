"""What may be done about an object now: its mode, its source's healing windows, and a live snooze."""

from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta

import msgspec

from driftwatch.drift.additions import SNOOZE
from driftwatch.drift.fields import contains, tree
from driftwatch.drift.metadata import Metadata
from driftwatch.drift.options import snooze_end
from driftwatch.drift.policy import Policy
from driftwatch.drift.windows import Window
from driftwatch.model import Mode


class Snooze(msgspec.Struct, frozen=True):
    """A live object's wish not to be healed: until when (RFC 3339), and how many seconds that is from now."""

    until: str
    seconds: float


class Modes:
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
        self._began: dict[Hashable, tuple[str, datetime]] = {}

    def is_open(self, source: str) -> bool:
        """Whether drift of the source is healed now: always, where it has no windows."""
        windows = self.windows.get(source)
        return not windows or any(window.is_open(self._now()) for window in windows)

    def now(self, source: str, policy: Policy) -> Mode:
        """The mode in force. Outside its source's windows, what would be healed is only reported."""
        if policy.mode is Mode.HEAL and not self.is_open(source):
            return Mode.OBSERVE
        return policy.mode

    def snoozed(self, wish: str, subject: Hashable = None) -> Snooze | None:
        """What the annotation of `subject` asks for, cut to the cap; None when it has run out or is no time."""
        until = snooze_end(wish)
        if until is None:
            return None
        now = self._now()
        # The cap counts from when the wish was first seen; another wish of the same object counts anew.
        known, began = self._began.get(subject, ("", now))
        if known != wish:
            began = now
            self._began[subject] = (wish, began)
        until = min(until, began + timedelta(seconds=self.longest_snooze))
        if until <= now:
            return None
        return Snooze(until.isoformat(timespec="seconds"), (until - now).total_seconds())


def snoozed_by(metadata: Metadata) -> str:
    """The manager who set the snooze annotation, "" if nobody owns it."""
    for entry in metadata.managedFields:
        if contains(tree(entry.fieldsV1), SNOOZE):
            return entry.manager
    return ""
