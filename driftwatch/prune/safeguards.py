"""Preconditions for pruning a source, and the limit on deletions a commit.

Git must have named the commit since the start: the mirror on disk may be older than what was applied. The whole commit
must be readable: an object that an unreadable file declares is not gone. Every other source must have had the chance to
take the objects over. A source that declares nothing is usually a mistake. A commit that removes too much at once needs
a confirmation.
"""

from collections.abc import Callable, Coroutine, Iterable, Sized
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import PrunePolicy
from driftwatch.state.orphan_index import SourceOrphans

PATIENCE = 10.0  # seconds until a hold that usually passes is reported
ANSWERS = 2  # of Git for another source: the first may have been requested before the object was dropped here


class Hold(StrEnum):
    """Why the pruning of a source is held."""

    UNREAD = "unread"
    INVALID = "invalid"
    EMPTY = "empty"
    SOURCES = "sources"
    LIMIT = "limit"

    @property
    def passes(self) -> bool:
        """Whether it usually passes within seconds, without anybody's help."""
        return self in (Hold.UNREAD, Hold.SOURCES)


class Held(NamedTuple):
    """What holds a source, in words, and whether it is time to report it."""

    hold: Hold
    why: str
    is_lasting: bool


class _Source(msgspec.Struct):
    """What Git last said of a source. `answers` counts its answers, `passed` the deletions allowed of this commit."""

    commit: str = ""
    confirmed: str = ""
    invalid: int = 0
    answers: int = 0
    trouble: str = ""
    passed: int = 0
    newest: float = 0.0
    awaited: dict[str, int] = {}
    polled: dict[str, int] = {}
    held: Hold | None = None
    since: float = 0.0


class PruneSafeguards:
    """Judges whether a source may be pruned now.

    `wake` is called when the judgement may be another one. `poll` asks Git for another source, in a task that `spawn`
    starts.
    """

    def __init__(
        self,
        declared: Declared,
        clock: Callable[[], float],
        wake: Callable[[], None],
        poll: Callable[[str], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._declared = declared
        self._clock = clock
        self._wake = wake
        self._poll = poll
        self._spawn = spawn
        self._states: dict[str, _Source] = {}
        self._followed: list[str] = []

    def configure(self, sources: Iterable[str]) -> None:
        """Follow these sources, and forget all others."""
        self._followed = list(sources)
        for gone in self._states.keys() - set(self._followed):
            del self._states[gone]

    # --- What Git says ---

    def on_snapshot(self, source: str, commit: str, invalid: int) -> None:
        """A snapshot of the source has arrived; `invalid` of its documents cannot be read."""
        state = self._states.setdefault(source, _Source())
        if state.commit != commit:
            state.passed = 0
        state.commit, state.invalid = commit, invalid
        self._wake()

    def on_fetched(self, source: str, commit: str) -> None:
        """Git has answered: this is the source's commit."""
        state = self._states.setdefault(source, _Source())
        state.confirmed, state.trouble = commit, ""
        state.answers += 1
        self._wake()

    def on_fetch_failed(self, source: str, error: str) -> None:
        """Git did not answer, or the commit cannot be read."""
        self._states.setdefault(source, _Source()).trouble = error

    def commit(self, source: str) -> str:
        """The commit of the source's snapshot, "" before the first."""
        state = self._states.get(source)
        return state.commit if state else ""

    # --- Judgement ---

    def judge(self, source: str, policy: PrunePolicy, orphans: SourceOrphans, unread: Sized) -> Held | None:
        """What holds the candidates of a source; None where nothing does: then they count against the limit.

        `unread` are the objects that Git dropped and that have not been read yet.
        """
        state = self._states[source]
        found = self._unready(source, state, orphans, unread) if orphans.candidates else None
        if orphans.candidates and found is None:
            found = self._over_limit(source, state, policy, orphans)
        if found is None:
            state.held = None
            state.passed += orphans.release()
            return None
        hold, why = found
        if state.held is not hold:
            state.held, state.since = hold, self._clock()
        return Held(hold, why, not hold.passes or self._clock() - state.since >= PATIENCE)

    def _unready(self, source: str, state: _Source, orphans: SourceOrphans, unread: Sized) -> tuple[Hold, str] | None:
        if unread:
            return Hold.UNREAD, f"{len(unread)} objects that left Git could not be read yet"
        if state.confirmed != state.commit:
            return Hold.UNREAD, f"Git has not named the commit since the start: {state.trouble or 'no answer yet'}"
        if state.invalid:
            return Hold.INVALID, f"documents of the commit that cannot be read: {state.invalid}"
        if not self._declared.manifests(source):
            return Hold.EMPTY, "the source declares nothing at all; if that is meant, delete what is left by hand"
        if awaited := self._awaited(source, state, orphans.newest):
            other = self._states.get(awaited, _Source())
            return Hold.SOURCES, f"source {awaited} may have taken them over: {other.trouble or 'no answer yet'}"
        return None

    def _over_limit(
        self, source: str, state: _Source, policy: PrunePolicy, orphans: SourceOrphans
    ) -> tuple[Hold, str] | None:
        new = len(orphans.unreleased)
        count, stay = state.passed + new, len(self._declared.manifests(source))
        if not new or not policy.is_too_much(count, stay) or policy.confirms(state.commit):
            return None
        return Hold.LIMIT, (
            f"{count} objects would go and {stay} stay, which is over pruneLimit ({policy.objects}) and "
            f"pruneLimitPercent ({policy.percent:g} %); to allow it, set pruneConfirm: {state.commit[:12]}"
        )

    def _awaited(self, source: str, state: _Source, newest: float) -> str:
        """Another source that Git has not answered for since the newest orphan left this one; "" where all have."""
        others = [name for name in self._followed if name != source]
        if newest != state.newest or set(others) - state.awaited.keys():
            state.newest = newest
            state.awaited = {name: self._answers(name) + ANSWERS for name in others}
        late = [name for name in others if self._answers(name) < state.awaited[name]]
        for name in late:
            if state.polled.get(name) != self._answers(name):  # one poll an answer: a failing source keeps its backoff
                state.polled[name] = self._answers(name)
                self._spawn(self._poll(name))
        return late[0] if late else ""

    def _answers(self, source: str) -> int:
        state = self._states.get(source)
        return state.answers if state else 0
