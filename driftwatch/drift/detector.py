"""Detects drift by field ownership, not by comparing values.

The detector keeps one small state for each managed object and no live object. If the hash of `managedFields` is
unchanged since driftwatch's last write, the event is ignored. Any other event is only a *suspicion* about fields that
driftwatch owns. An apply lets the API server decide: a no-op apply leaves resourceVersion unchanged.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import orjson

from driftwatch.drift.additions import Addition, additions
from driftwatch.drift.annotations import Additions
from driftwatch.drift.explain import has_other_values
from driftwatch.drift.fieldset import covers, tree
from driftwatch.drift.ignore import effective, without_ignored
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import (
    Content,
    Fingerprint,
    Metadata,
    ObjectHead,
    fingerprint,
    known,
    others_part,
    own_part,
)
from driftwatch.drift.object_state import ObjectState, ObjectStates, Observation, Verdict
from driftwatch.drift.snooze import wish
from driftwatch.model import Manifest, ObjectKey

# managedFields times have a resolution of one second. For this long after our own write, a write by somebody else
# under our name can look the same. In seconds.
FORGERY_WINDOW = 2.0

_NOTHING = Metadata()


class Detector:
    """Judges events against the states of their objects. Its only side effects are on those states.

    `clock` is monotonic, in seconds. `now` is the wall clock, in Unix seconds. It dates the start of a snooze request.
    Without it, a snooze annotation without an owner has no start.
    """

    def __init__(
        self,
        states: ObjectStates,
        clock: Callable[[], float],
        managers: Managers,
        now: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.states = states
        self._clock = clock
        self._now = now
        self.managers = managers

    def configure(self, managers: Managers) -> None:
        """Replace the rules about field managers."""
        self.managers = managers

    def on_event(self, key: ObjectKey, change: str, head: ObjectHead, content: Content) -> Verdict:
        """Judge a watch event. Stores an observation if the object needs work."""
        state = self.states.get(key)
        if state is None:
            return Verdict.UNMANAGED
        version = head.version
        if version <= state.version:
            return Verdict.STALE
        state.version = version
        if change == "DELETED":
            state.live = False
            state.terminating = False
            self._hear(state, _NOTHING)
            # The observation holds no object. A real deletion leaves nothing to explain. After the removal of our
            # label, the event carries the object as it was before.
            state.observation = Observation(Verdict.DELETED, version, self._clock())
            return Verdict.DELETED
        verdict = self._judge(state, head, content)
        if verdict.needs_work:
            earlier = state.observation
            arrived = earlier.arrived if earlier else self._clock()
            accepted = state.accepted
            others_wrote = accepted is None or others_part(fingerprint(head.metadata)) != others_part(accepted)
            state.observation = Observation(verdict, version, arrived, head, content(), others_wrote)
        else:
            state.observation = None
        return verdict

    def _judge(self, state: ObjectState, head: ObjectHead, content: Content) -> Verdict:
        metadata = head.metadata
        state.live = True
        state.uid = metadata.uid
        self._hear(state, metadata)
        if metadata.deletionTimestamp:
            state.terminating = True
            return Verdict.TERMINATING
        state.terminating = False
        now = fingerprint(metadata)
        accepted = state.accepted
        if accepted is None or own_part(now) != own_part(accepted):
            return Verdict.SUSPECT
        if self._may_be_forged(state, now, metadata) and (
            state.observed or state.differs or self._has_other_values(state, metadata, content)
        ):
            return Verdict.SUSPECT
        verdict = Verdict.IN_SYNC
        if others_part(now) != others_part(accepted):
            if state.observed or state.differs or self._took_what_was_left(state, metadata, content):
                return Verdict.SUSPECT
            if self.added(state, metadata, content):
                return Verdict.ADDED
            if state.reported:
                state.reported = False
                verdict = Verdict.MENDED
        state.accepted = now
        state.generation = metadata.generation
        return verdict

    def added(self, state: ObjectState, metadata: Metadata, content: Content) -> list[Addition]:
        """Fields that people added, without those that the policy ignores. `content` returns the object."""
        if state.policy.additions is Additions.IGNORE:
            return []
        found = additions(metadata, self.managers)
        if not found or not state.policy.ignore:
            return found
        manifest = state.manifest
        declared = orjson.loads(manifest.body) if manifest else {}
        return without_ignored(found, orjson.loads(content()), declared, metadata, state.policy.ignore)

    def _may_be_forged(self, state: ObjectState, now: Fingerprint, metadata: Metadata) -> bool:
        """Whether there may have been a write that field ownership does not show.

        There are two cases: a write under our name in the same second as our own write, and an edit whose author put
        the entries back. For most kinds, `generation` counts writes to the object, but not writes to its metadata.
        """
        counted = metadata.generation and metadata.generation != state.generation
        if counted and state.accepted is not None and others_part(now) == others_part(state.accepted):
            return True
        return now == state.accepted and self._clock() - state.written_at <= FORGERY_WINDOW

    def _has_other_values(self, state: ObjectState, metadata: Metadata, content: Content) -> bool:
        """Whether a field that driftwatch owns has another value. The order of a keyed list does not count."""
        manifest = state.manifest
        return manifest is None or has_other_values(manifest.body, metadata, content())

    def on_listed(self, key: ObjectKey, head: ObjectHead, content: Content) -> Verdict:
        """Judge an object of a LIST. A new one is in sync if its hash annotation and our entry match the manifest."""
        state = self.states.get(key)
        if state is None:
            return Verdict.UNMANAGED
        if state.accepted is not None or state.version:
            return self.on_event(key, "MODIFIED", head, content)
        manifest = state.manifest
        state.version = head.version
        state.live = True
        metadata = head.metadata
        self._hear(state, metadata)
        if manifest is not None and metadata.annotations and metadata.annotations.desired_hash == manifest.digest:
            self._put_in_force(state, manifest.digest)
        as_we_left_it = manifest is not None and self._is_as_we_left_it(state, head, content)
        if (
            manifest is not None
            and not metadata.deletionTimestamp
            and not state.observed
            and as_we_left_it
            and self._is_whole(state, manifest, metadata, content)
        ):
            state.uid = metadata.uid
            self._put_in_force(state, manifest.digest, stamp(metadata))
            if not self.added(state, metadata, content):
                state.accepted = fingerprint(metadata)
                state.generation = metadata.generation
                return Verdict.IN_SYNC
            verdict = Verdict.ADDED  # not accepted as in order: the next event may come before the reconcile
        else:
            verdict = self._judge(state, head, content)
        if verdict.needs_work:
            state.observation = Observation(verdict, head.version, self._clock(), head, content())
        return verdict

    def _is_as_we_left_it(self, state: ObjectState, head: ObjectHead, content: Content) -> bool:
        """Whether nobody applied under our name while driftwatch was down.

        True if the state on disk has this version. Otherwise, the stamp and the values must match.
        """
        if state.stamp and state.left_at == head.version:
            return True
        return state.stamp in ("", stamp(head.metadata)) and not self._has_other_values(state, head.metadata, content)

    def _took_what_was_left(self, state: ObjectState, metadata: Metadata, content: Content) -> bool:
        """Whether a field left to others now belongs to a manager for whom the rules do not ignore it."""
        if not state.yields:
            return False
        manifest = state.manifest
        return manifest is None or not self._is_whole(state, manifest, metadata, content)

    def _is_whole(self, state: ObjectState, manifest: Manifest, metadata: Metadata, content: Content) -> bool:
        if not state.policy.ignore:
            return is_whole(manifest.digest, manifest.body, metadata)
        body, ignored = effective(manifest.body, orjson.loads(content()), metadata, state.policy.ignore)
        whole = is_whole(manifest.digest, body, metadata)
        if whole:  # otherwise keep `yields` until the field is reclaimed: it is needed to judge the next event
            state.yields = bool(ignored)
        return whole

    def is_another(self, key: ObjectKey, head: ObjectHead) -> bool:
        """Whether the object is older than the known version, or has that version but other ownership."""
        state = self.states.get(key)
        if state is None or head.version != state.version:
            return state is not None and head.version < state.version
        return state.accepted is not None and fingerprint(head.metadata) != state.accepted

    def on_another(self, key: ObjectKey, head: ObjectHead, content: Content, listed: int) -> Verdict:
        """Judge an object whose version in a LIST at version `listed` is not newer than the known version.

        If the LIST itself is not older than the known version, etcd was restored in between. The cluster's own version
        shows a restore only until it has caught up.
        """
        state = self.states.get(key)
        if state is None or not head.version <= state.version <= listed:
            return Verdict.STALE
        state.version = 0
        return self.on_event(key, "MODIFIED", head, content)

    def on_absent(self, key: ObjectKey, version: int) -> Verdict:
        """Judge a declared object that is missing from a LIST at `version`."""
        state = self.states.get(key)
        if state is None:
            return Verdict.UNMANAGED
        if state.version > version:
            return Verdict.STALE  # our own write is newer than the list
        state.version = version
        state.live = state.terminating = False
        self._hear(state, _NOTHING)
        state.observation = Observation(Verdict.DELETED, version, self._clock())
        return Verdict.DELETED

    def accept(self, key: ObjectKey, head: ObjectHead, digest: str) -> Verdict:
        """Accept the API server's answer to an apply as the state that is in order.

        Returns the verdict on an event that is newer than the answer. Such an event may arrive during the apply.
        """
        state = self.states.of(key)
        metadata = head.metadata
        state.uid = metadata.uid
        state.accepted = fingerprint(metadata)
        state.generation = metadata.generation
        self._hear(state, metadata)
        self._put_in_force(state, digest, stamp(metadata))
        state.written_at = self._clock()
        state.differs = False
        observation = state.observation
        if observation is not None and observation.version > head.version:
            if observation.head is None or observation.raw is None:
                return observation.verdict
            observation.verdict = self._judge(state, observation.head, known(observation.raw))
            if observation.verdict.needs_work:
                return observation.verdict
        elif state.version <= head.version:
            state.version = head.version
            state.live = True
            state.terminating = bool(metadata.deletionTimestamp)
        state.observation = None
        return Verdict.IN_SYNC

    def _hear(self, state: ObjectState, metadata: Metadata) -> None:
        """Update the snooze request. Runs on every event, because a request starts when it is first seen."""
        if state.snooze is None and not metadata.snooze_until:
            return
        heard = wish(metadata, state.snooze, self._now())
        if heard is not state.snooze:
            state.snooze = heard
            self.states.changes += 1

    def _put_in_force(self, state: ObjectState, digest: str, stamped: str | None = None) -> None:
        stamped = state.stamp if stamped is None else stamped
        if state.last_applied != digest or state.stamp != stamped:
            self.states.changes += 1
        # Assigned even if equal, to share strings: many objects have the same stamp, and the manifest holds the digest.
        state.last_applied, state.stamp = digest, sys.intern(stamped)

    def settle(self, key: ObjectKey) -> None:
        """Accept the observed object as it is. It is not healed and needs no work until it changes again."""
        state = self.states.get(key)
        if state is None:
            return
        observation, state.observation = state.observation, None
        if observation is not None and observation.head is not None:
            state.accepted = fingerprint(observation.head.metadata)
            state.generation = observation.head.metadata.generation
            state.reported = False

    def reset(self, keys: list[ObjectKey]) -> None:
        """Forget version and ownership of these objects, because a restore of etcd set the cluster's versions back."""
        for key in keys:
            state = self.states.of(key)
            state.version, state.accepted = 0, None


def stamp(metadata: Metadata) -> str:
    """The time of our own apply entry. If it differs from the stored one, somebody applied under our name."""
    return next((entry.time for entry in metadata.managedFields if entry.is_ours), "")


def is_whole(digest: str, body: bytes, metadata: Metadata) -> bool:
    """Whether a live object carries the manifest's digest and our apply entry owns every field of the body."""
    annotations = metadata.annotations
    if annotations is None or annotations.desired_hash != digest:
        return False
    ours = [entry for entry in metadata.managedFields if entry.is_ours]
    if len(ours) != 1:
        return False
    declared: dict[str, Any] = orjson.loads(body)
    return covers(tree(ours[0].fieldsV1), without_identity(declared))


def without_identity(declared: dict[str, Any]) -> dict[str, Any]:
    """A body without the fields that identify the object. Those have no owner, so no field set contains them."""
    body = {key: value for key, value in declared.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {
        key: value for key, value in body.get("metadata", {}).items() if key not in ("name", "namespace")
    }
    return body
