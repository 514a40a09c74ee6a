"""How an edit is found to be drift: by who owns the fields, not by comparing values.

One small record a managed object, no live object. An event whose `managedFields` hash as they did after our own last
write is no drift, and that is all that is done for it. Anything else is only a *suspicion* about fields that are
ours: the API server judges it, by an apply (a no-op apply leaves resourceVersion as it was).
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
from driftwatch.drift.record import Observation, Record, Verdict
from driftwatch.drift.snooze import wish
from driftwatch.model import Manifest, ObjectKey

# managedFields times have whole seconds: for this long after our own write, a write under our name can look just like
# it.
FORGERY_WINDOW = 2.0

_NOTHING = Metadata()


Lookup = Callable[[ObjectKey], Manifest | None]


class Detector:
    """Judges events against records. Pure but for its records and the clocks that it is given.

    `clock` is monotonic, in seconds. `now` is the wall clock, in Unix seconds: since when an object is snoozed is told
    by that; without it, a wish that nobody owns has not begun.
    """

    def __init__(
        self,
        lookup: Lookup,
        clock: Callable[[], float],
        managers: Managers,
        now: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._lookup = lookup
        self._clock = clock
        self._now = now
        self.managers = managers
        self.records: dict[ObjectKey, Record] = {}
        self.observation: dict[ObjectKey, Observation] = {}
        self.changes = 0  # how often a record came, went, had another manifest in force or another wish

    def record(self, key: ObjectKey) -> Record:
        """The record of a managed object, made at first use."""
        found = self.records.get(key)
        if found is None:
            found = self.records[key] = Record()
            self.changes += 1
        return found

    def forget(self, key: ObjectKey) -> None:
        """The object is not declared any more."""
        if self.records.pop(key, None) is not None:
            self.changes += 1
        self.observation.pop(key, None)

    def on_event(self, key: ObjectKey, change: str, head: ObjectHead, content: Content) -> Verdict:
        """Judge an event of a watch; evidence is kept for what needs work."""
        record = self.records.get(key)
        if record is None:
            return Verdict.UNMANAGED
        version = head.version
        if version <= record.version:
            return Verdict.STALE
        record.version = version
        if change == "DELETED":
            record.live = False
            record.terminating = False
            self._hear(record, _NOTHING)
            # Keeps nothing of the object: after a real deletion there is nothing to explain, and after a removed
            # label the event carries the object as it was before.
            self.observation[key] = Observation(Verdict.DELETED, version, self._clock())
            return Verdict.DELETED
        verdict = self._judge(key, record, head, content)
        if verdict.needs_work:
            earlier = self.observation.get(key)
            arrived = earlier.arrived if earlier else self._clock()
            accepted = record.accepted
            others_wrote = accepted is None or others_part(fingerprint(head.metadata)) != others_part(accepted)
            self.observation[key] = Observation(verdict, version, arrived, head, content(), others_wrote)
        else:
            self.observation.pop(key, None)
        return verdict

    def _judge(self, key: ObjectKey, record: Record, head: ObjectHead, content: Content) -> Verdict:
        metadata = head.metadata
        record.live = True
        record.uid = metadata.uid
        self._hear(record, metadata)
        if metadata.deletionTimestamp:
            record.terminating = True
            return Verdict.TERMINATING
        record.terminating = False
        now = fingerprint(metadata)
        accepted = record.accepted
        if accepted is None or own_part(now) != own_part(accepted):
            return Verdict.SUSPECT
        if self._may_be_forged(record, now, metadata) and (
            record.observed or record.differs or self._has_other_values(key, metadata, content)
        ):
            return Verdict.SUSPECT
        verdict = Verdict.IN_SYNC
        if others_part(now) != others_part(accepted):
            if record.observed or record.differs or self._took_what_was_left(key, record, metadata, content):
                return Verdict.SUSPECT
            if self.added(key, record, metadata, content):
                return Verdict.ADDED
            if record.reported:
                record.reported = False
                verdict = Verdict.MENDED
        record.accepted = now
        record.generation = metadata.generation
        return verdict

    def added(self, key: ObjectKey, record: Record, metadata: Metadata, content: Content) -> list[Addition]:
        """What people added to an object, but for what its policy ignores. `content` gives the object."""
        if record.policy.additions is Additions.IGNORE:
            return []
        found = additions(metadata, self.managers)
        if not found or not record.policy.ignore:
            return found
        manifest = self._lookup(key)
        declared = orjson.loads(manifest.body) if manifest else {}
        return without_ignored(found, orjson.loads(content()), declared, metadata, record.policy.ignore)

    def _may_be_forged(self, record: Record, now: Fingerprint, metadata: Metadata) -> bool:
        """Whether something was written although nobody's ownership shows it.

        So look a write under our name in the second of our own write, and an edit after which the entries were put
        back. Most kinds count what is written of them in `generation`, though not what is written of their metadata.
        """
        counted = metadata.generation and metadata.generation != record.generation
        if counted and record.accepted is not None and others_part(now) == others_part(record.accepted):
            return True
        return now == record.accepted and self._clock() - record.written_at <= FORGERY_WINDOW

    def _has_other_values(self, key: ObjectKey, metadata: Metadata, content: Content) -> bool:
        """Whether a field of ours has another value; a keyed list in another order has not."""
        manifest = self._lookup(key)
        return manifest is None or has_other_values(manifest.body, metadata, content())

    def on_listed(self, key: ObjectKey, head: ObjectHead, content: Content) -> Verdict:
        """Judge an object of a LIST. A new one is in sync where its hash annotation and our entry say so."""
        record = self.records.get(key)
        if record is None:
            return Verdict.UNMANAGED
        if record.accepted is not None or record.version:
            return self.on_event(key, "MODIFIED", head, content)
        manifest = self._lookup(key)
        record.version = head.version
        record.live = True
        metadata = head.metadata
        self._hear(record, metadata)
        if manifest is not None and metadata.annotations and metadata.annotations.desired_hash == manifest.digest:
            self._put_in_force(record, manifest.digest)
        as_we_left_it = manifest is not None and self._is_as_we_left_it(key, record, head, content)
        if (
            manifest is not None
            and not metadata.deletionTimestamp
            and not record.observed
            and as_we_left_it
            and self._is_whole(record, manifest, metadata, content)
        ):
            record.uid = metadata.uid
            self._put_in_force(record, manifest.digest, stamp(metadata))
            if not self.added(key, record, metadata, content):
                record.accepted = fingerprint(metadata)
                record.generation = metadata.generation
                return Verdict.IN_SYNC
            verdict = Verdict.ADDED  # whose owners are not in order: the next event may come before the healer
        else:
            verdict = self._judge(key, record, head, content)
        if verdict.needs_work:
            self.observation[key] = Observation(verdict, head.version, self._clock(), head, content())
        return verdict

    def _is_as_we_left_it(self, key: ObjectKey, record: Record, head: ObjectHead, content: Content) -> bool:
        """Whether nobody applied under our name while we were down: by the state on disk, where it lacks by values."""
        if record.stamp and record.left_at == head.version:
            return True
        return record.stamp in ("", stamp(head.metadata)) and not self._has_other_values(key, head.metadata, content)

    def _took_what_was_left(self, key: ObjectKey, record: Record, metadata: Metadata, content: Content) -> bool:
        """Whether somebody has a field that the rules leave to others, but not to them."""
        if not record.yields:
            return False
        manifest = self._lookup(key)
        return manifest is None or not self._is_whole(record, manifest, metadata, content)

    def _is_whole(self, record: Record, manifest: Manifest, metadata: Metadata, content: Content) -> bool:
        if not record.policy.ignore:
            return is_whole(manifest.digest, manifest.body, metadata)
        body, ignored = effective(manifest.body, orjson.loads(content()), metadata, record.policy.ignore)
        whole = is_whole(manifest.digest, body, metadata)
        if whole:  # else what was left stays left until it is taken back: the next event is to be judged by it, too
            record.yields = bool(ignored)
        return whole

    def is_another(self, key: ObjectKey, head: ObjectHead) -> bool:
        """Whether this is not the object as it was known last: an older version of it, or that version otherwise."""
        record = self.records.get(key)
        if record is None or head.version != record.version:
            return record is not None and head.version < record.version
        return record.accepted is not None and fingerprint(head.metadata) != record.accepted

    def on_another(self, key: ObjectKey, head: ObjectHead, content: Content, listed: int) -> Verdict:
        """Judge an object that a LIST at version `listed` has no newer than it was known.

        Where the LIST is not older than what was known, etcd was restored in between: the cluster's own version tells
        of that only until it has caught up.
        """
        record = self.records.get(key)
        if record is None or not head.version <= record.version <= listed:
            return Verdict.STALE
        record.version = 0
        return self.on_event(key, "MODIFIED", head, content)

    def on_absent(self, key: ObjectKey, version: int) -> Verdict:
        """Judge a declared object that a LIST at `version` does not show."""
        record = self.records.get(key)
        if record is None:
            return Verdict.UNMANAGED
        if record.version > version:
            return Verdict.STALE  # our own write is newer than the list
        record.version = version
        record.live = record.terminating = False
        self._hear(record, _NOTHING)
        self.observation[key] = Observation(Verdict.DELETED, version, self._clock())
        return Verdict.DELETED

    def accept(self, key: ObjectKey, head: ObjectHead, digest: str) -> Verdict:
        """The API server has answered an apply: what it says is in order from now on.

        Returns what is left to do: an event newer than the answer may have come while we waited for it.
        """
        record = self.record(key)
        metadata = head.metadata
        record.uid = metadata.uid
        record.accepted = fingerprint(metadata)
        record.generation = metadata.generation
        self._hear(record, metadata)
        self._put_in_force(record, digest, stamp(metadata))
        record.written_at = self._clock()
        record.differs = False
        observation = self.observation.get(key)
        if observation is not None and observation.version > head.version:
            if observation.head is None or observation.raw is None:
                return observation.verdict
            observation.verdict = self._judge(key, record, observation.head, known(observation.raw))
            if observation.verdict.needs_work:
                return observation.verdict
        elif record.version <= head.version:
            record.version = head.version
            record.live = True
            record.terminating = bool(metadata.deletionTimestamp)
        self.observation.pop(key, None)
        return Verdict.IN_SYNC

    def _hear(self, record: Record, metadata: Metadata) -> None:
        """Note whether the object wishes to be left alone, at every sight of it: that is when a wish begins."""
        if record.snooze is None and not metadata.snooze_until:
            return
        heard = wish(metadata, record.snooze, self._now())
        if heard is not record.snooze:
            record.snooze = heard
            self.changes += 1

    def _put_in_force(self, record: Record, digest: str, stamped: str | None = None) -> None:
        stamped = record.stamp if stamped is None else stamped
        if record.last_applied != digest or record.stamp != stamped:
            self.changes += 1
        # Also where they are equal: most objects share their second, and the digest is the manifest's own string.
        record.last_applied, record.stamp = digest, sys.intern(stamped)

    def settle(self, key: ObjectKey) -> None:
        """What was found of the object stays as it is: it is not healed, and needs no work before it changes again."""
        observation = self.observation.pop(key, None)
        record = self.records.get(key)
        if observation is not None and observation.head is not None and record is not None:
            record.accepted = fingerprint(observation.head.metadata)
            record.generation = observation.head.metadata.generation
            record.reported = False

    def reset(self, keys: list[ObjectKey]) -> None:
        """The cluster's versions went back (a restore): what is remembered of these objects says nothing any more."""
        for key in keys:
            record = self.records[key]
            record.version, record.accepted = 0, None


def stamp(metadata: Metadata) -> str:
    """The time of our own apply entry: another one than we left says that somebody has applied under our name."""
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
    """A body without what names the object: nobody owns that, so no field set has it."""
    body = {key: value for key, value in declared.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {
        key: value for key, value in body.get("metadata", {}).items() if key not in ("name", "namespace")
    }
    return body
