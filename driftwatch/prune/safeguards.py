"""Preconditions for pruning a source, and the limit on deletions a commit.

Git must have confirmed the commit since the start: the mirror on disk may be older than the applied state. The whole
commit must be readable: an unreadable file may declare the object. Every other source must have had the chance to take
over the objects. A source that declares nothing is usually a mistake. A commit that removes too many objects at once
needs a confirmation.
"""

from collections.abc import Callable, Coroutine, Iterable, Sized
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import PrunePolicy
from driftwatch.state.orphan_index import SourceOrphans

PATIENCE = 10.0  # seconds until a hold that usually passes is reported
ANSWERS = 2  # answers from Git for another source: the first request may be older than the removal in this source


class Hold(StrEnum):
    """Why the pruning of a source is held."""

    UNREAD = "unread"
    INVALID = "invalid"
    EMPTY = "empty"
    SOURCES = "sources"
    LIMIT = "limit"

    @property
    def passes(self) -> bool:
        """Whether the hold usually passes on its own within seconds."""
        return self in (Hold.UNREAD, Hold.SOURCES)


class Held(NamedTuple):
    """A hold of a source, with its reason. `is_lasting`: it is time to report it."""

    hold: Hold
    why: str
    is_lasting: bool


class _Source(msgspec.Struct):
    """The last answer from Git for a source. `answers` counts them. `passed` counts this commit's allowed deletions."""

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

    `wake` is called when the judgement may change. `poll` polls another source, in a task that `spawn` starts.
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
        """Set the sources, and forget all others."""
        self._followed = list(sources)
        for gone in self._states.keys() - set(self._followed):
            del self._states[gone]

    # --- Answers from Git ---

    def on_snapshot(self, source: str, commit: str, invalid: int) -> None:
        """A snapshot of the source has arrived. `invalid` is the number of its unreadable documents."""
        state = self._states.setdefault(source, _Source())
        if state.commit != commit:
            state.passed = 0
        state.commit, state.invalid = commit, invalid
        self._wake()

    def on_fetched(self, source: str, commit: str) -> None:
        """Git has answered: the source is at this commit."""
        state = self._states.setdefault(source, _Source())
        state.confirmed, state.trouble = commit, ""
        state.answers += 1
        self._wake()

    def on_fetch_failed(self, source: str, error: str) -> None:
        """Git did not answer, or the commit is unreadable."""
        self._states.setdefault(source, _Source()).trouble = error

    def commit(self, source: str) -> str:
        """The commit of the source's snapshot, "" before the first one."""
        state = self._states.get(source)
        return state.commit if state else ""

    # --- Judgement ---

    def judge(self, source: str, policy: PrunePolicy, orphans: SourceOrphans, unread: Sized) -> Held | None:
        """Return what holds the candidates of a source, or None. With None they count against the limit.

        `unread` are the objects that Git dropped and that are not read yet.
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
        """Return a source without enough answers from Git since the newest orphan left this source, or ""."""
        others = [name for name in self._followed if name != source]
        if newest != state.newest or set(others) - state.awaited.keys():
            state.newest = newest
            state.awaited = {name: self._answers(name) + ANSWERS for name in others}
        late = [name for name in others if self._answers(name) < state.awaited[name]]
        for name in late:
            # One poll for each answer, so that a failing source keeps its backoff.
            if state.polled.get(name) != self._answers(name):
                state.polled[name] = self._answers(name)
                self._spawn(self._poll(name))
        return late[0] if late else ""

    def _answers(self, source: str) -> int:
        state = self._states.get(source)
        return state.answers if state else 0
