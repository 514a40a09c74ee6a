"""What must be so before anything of a source is deleted, and the brake.

Git itself must have named the commit since the start: a mirror on disk may be older than what was applied. All of the
commit must be readable: what an unreadable file declares is not gone. Every other source must have had the chance to
take the objects over. A source that declares nothing is a mistake more often than a wish. And a commit that removes too
much at once waits for a word.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from driftwatch.drift.desired_state import Declared
from driftwatch.drift.orphan import Orphan, PrunePolicy
from driftwatch.model import ObjectKey

PATIENCE = 10.0  # seconds that something may be waited for before it is said
ANSWERS = 2  # of Git for another source: the first may have been on its way before the object was dropped here

Candidates = Mapping[ObjectKey, Orphan]


class Hold(StrEnum):
    """Why a source is not pruned although it should be."""

    UNREAD = "unread"
    INVALID = "invalid"
    EMPTY = "empty"
    SOURCES = "sources"
    LIMIT = "limit"

    @property
    def passes(self) -> bool:
        """Whether it goes away by itself, mostly at once."""
        return self in (Hold.UNREAD, Hold.SOURCES)


class Held(NamedTuple):
    """What holds a source, in words, and whether it is time to say so."""

    hold: Hold
    why: str
    is_lasting: bool


class _Source(msgspec.Struct):
    """What Git last said. `answers` counts how often it answered, `passed` what went by the brake under this commit."""

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
    """Judges whether a source may be pruned now. `poll` has another source looked at, in a task that `spawn` starts."""

    def __init__(
        self,
        declared: Declared,
        unread: Collection[ObjectKey],
        clock: Callable[[], float],
        poll: Callable[[str], Coroutine[Any, Any, None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._declared = declared
        self._unread = unread
        self._clock = clock
        self._poll = poll
        self._spawn = spawn
        self._states: dict[str, _Source] = {}
        self._released: set[ObjectKey] = set()
        self.sources: list[str] = []
        self.wake: Callable[[], None] = lambda: None

    # --- What Git says ---

    def on_snapshot(self, source: str, commit: str, invalid: int) -> None:
        """A snapshot of the source has come, `invalid` documents of which cannot be read."""
        state = self._states.setdefault(source, _Source())
        if state.commit != commit:
            state.passed = 0
        state.commit, state.invalid = commit, invalid
        self.wake()

    def on_fetched(self, source: str, commit: str) -> None:
        """Git has answered: this is the source's commit."""
        state = self._states.setdefault(source, _Source())
        state.confirmed, state.trouble = commit, ""
        state.answers += 1
        self.wake()

    def on_fetch_failed(self, source: str, error: str) -> None:
        """Git did not answer, or the commit cannot be read."""
        self._states.setdefault(source, _Source()).trouble = error

    def forget(self, source: str) -> None:
        """The source is not configured any more."""
        self._states.pop(source, None)

    def on_gone(self, key: ObjectKey) -> None:
        """An orphan is none any more."""
        self._released.discard(key)

    def commit(self, source: str) -> str:
        """The commit of the source's snapshot, "" before the first."""
        state = self._states.get(source)
        return state.commit if state else ""

    # --- Judgement ---

    def judge(self, source: str, policy: PrunePolicy, candidates: Candidates) -> Held | None:
        """What holds these objects of a source back; None where nothing does: then they have passed the brake."""
        state = self._states[source]
        found = self._unready(source, state, candidates) if candidates else None
        if candidates and found is None:
            found = self._over_limit(source, state, policy, candidates)
        if found is None:
            state.held = None
            new = candidates.keys() - self._released
            self._released |= new
            state.passed += len(new)
            return None
        hold, why = found
        if state.held is not hold:
            state.held, state.since = hold, self._clock()
        return Held(hold, why, not hold.passes or self._clock() - state.since >= PATIENCE)

    def _unready(self, source: str, state: _Source, candidates: Candidates) -> tuple[Hold, str] | None:
        if self._unread:
            return Hold.UNREAD, f"{len(self._unread)} objects that left Git could not be read yet"
        if state.confirmed != state.commit:
            return Hold.UNREAD, f"Git has not named the commit since the start: {state.trouble or 'no answer yet'}"
        if state.invalid:
            return Hold.INVALID, f"documents of the commit that cannot be read: {state.invalid}"
        if not self._declared.manifests(source):
            return Hold.EMPTY, "the source declares nothing at all; if that is meant, delete what is left by hand"
        if awaited := self._awaited(source, state, candidates):
            other = self._states.get(awaited, _Source())
            return Hold.SOURCES, f"source {awaited} may have taken them over: {other.trouble or 'no answer yet'}"
        return None

    def _over_limit(
        self, source: str, state: _Source, policy: PrunePolicy, candidates: Candidates
    ) -> tuple[Hold, str] | None:
        new = len(candidates.keys() - self._released)
        count, stay = state.passed + new, len(self._declared.manifests(source))
        if not new or not policy.is_too_much(count, stay) or policy.confirms(state.commit):
            return None
        return Hold.LIMIT, (
            f"{count} objects would go and {stay} stay, which is over pruneLimit ({policy.objects}) and "
            f"pruneLimitPercent ({policy.percent:g} %); to allow it, set pruneConfirm: {state.commit[:12]}"
        )

    def _awaited(self, source: str, state: _Source, candidates: Candidates) -> str:
        """Another source that Git has not answered for since the objects left this one; "" where all have."""
        newest = max(orphan.since for orphan in candidates.values())
        others = [name for name in self.sources if name != source]
        if newest != state.newest or set(others) - state.awaited.keys():
            state.newest = newest
            state.awaited = {name: self._answers(name) + ANSWERS for name in others}
        late = [name for name in others if self._answers(name) < state.awaited[name]]
        for name in late:
            if state.polled.get(name) != self._answers(name):  # once an answer: a failing source keeps its own pace
                state.polled[name] = self._answers(name)
                self._spawn(self._poll(name))
        return late[0] if late else ""

    def _answers(self, source: str) -> int:
        state = self._states.get(source)
        return state.answers if state else 0
