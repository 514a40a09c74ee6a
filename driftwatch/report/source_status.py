"""The status of each source: commit in force, last answer from Git, and errors."""

import time
from collections.abc import Callable

import msgspec

from driftwatch.desired.protocol import Change, Fetched, FetchFailed
from driftwatch.model import InvalidManifest


class SourceState(msgspec.Struct):
    """The status of one source. Times are Unix seconds, 0 for never. `error` is "" while Git answers.

    `commit` is the commit in force, since `in_force_since`. `fetched` is when Git last answered. `difference` describes
    how the snapshot in force differs from the declarations at `commit`, since `differs_since`. "" when they agree.
    """

    commit: str = ""
    in_force_since: float = 0.0
    fetched: float = 0.0
    error: str = ""
    failing_since: float = 0.0
    difference: str = ""
    differs_since: float = 0.0
    invalid: list[InvalidManifest] = []


class SourceStatusStore:
    """Updates the states from the messages of the desired-state process. `now` is the wall clock, in Unix seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._states: dict[str, SourceState] = {}

    def state(self, source: str) -> SourceState:
        """The state of the source; an empty one before its first message."""
        return self._states.get(source) or SourceState()

    def note(self, message: Change | Fetched | FetchFailed) -> None:
        """Update the state from a complete change or from the result of a fetch."""
        state = self._states.setdefault(message.source, SourceState())
        match message:
            case Change():
                if state.commit != message.commit:
                    state.commit, state.in_force_since = message.commit, self._now()
                state.invalid = message.invalid
            case Fetched():
                state.fetched, state.error, state.failing_since = message.time, "", 0.0
            case FetchFailed():
                state.failing_since = state.failing_since or message.time
                state.error = message.error
                state.commit = state.commit or message.serving

    def compared(self, source: str, difference: str) -> None:
        """Set the difference between the source's snapshot and the declarations in Git, "" when they agree."""
        state = self._states.setdefault(source, SourceState())
        state.difference = difference
        state.differs_since = (state.differs_since or self._now()) if difference else 0.0

    def follow(self, sources: set[str]) -> None:
        """Forget every source but these."""
        self._states = {name: state for name, state in self._states.items() if name in sources}
