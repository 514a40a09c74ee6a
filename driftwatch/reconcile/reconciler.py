"""The requests that heal one object, and what their answers say of the drift.

One heal is one request: the server-side apply of the body that was serialised when the snapshot was built. An added
field takes two, the taking over of its ownership and the apply that does not declare it. Only where a rule leaves
fields to others does the body depend on what is there.
"""

import contextlib
from collections.abc import Callable

import msgspec
import orjson

from driftwatch.cluster.api import ApiClient, Applied
from driftwatch.cluster.errors import (
    CONFLICT,
    NOT_FOUND,
    SERVER_ERROR,
    UNPROCESSABLE,
    ApiError,
    ClusterError,
    ImmutableField,
    Unreachable,
    Unreadable,
)
from driftwatch.drift.additions import Addition, left_over
from driftwatch.drift.annotations import Additions
from driftwatch.drift.detector import Detector
from driftwatch.drift.explain import explain_added, explain_modified
from driftwatch.drift.fieldset import MISSING, Path, lookup
from driftwatch.drift.ignore import effective, yielded_paths
from driftwatch.drift.metadata import ObjectHead, decode_head, known
from driftwatch.drift.object_state import Observation, Verdict
from driftwatch.model import SECRET, SOURCE_LABEL, Drift, DriftType, FieldDrift
from driftwatch.reconcile.interfaces import Reporter, Target
from driftwatch.reconcile.recreate import RecreateObject
from driftwatch.reconcile.take_over import TakenOver, TakeOver

WRITE_TRIES = 5  # what a write depends on may be changed by others in the meantime


class Result(msgspec.Struct):
    """What came of it: whether the object was created, whether a newer event waits to be worked on, what was mended."""

    created: bool
    again: bool
    healed: Drift | None = None


class ApplyResult(msgspec.Struct):
    """An apply that succeeded: the answer, what was sent, the live object if it was known, what had to go before."""

    applied: Applied
    body: bytes
    raw: bytes | None
    cleared: list[TakenOver]


class Reconciler:
    """Heals objects. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, detector: Detector, api: ApiClient, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._detector = detector
        self._api = api
        self._reporter = reporter
        self._clock = clock
        self._recreate = RecreateObject(api)
        self._clearing = TakeOver(api, lambda: detector.managers)

    async def heal(self, target: Target) -> Result:
        """Put the object back, whatever was found of it; one that cannot be changed into that may be deleted first."""
        try:
            return await self._heal(target)
        except ApiError as error:
            if not await self._recreate.is_about_immutable(target, error):
                raise
            if not self._recreate.is_allowed(target):
                raise ImmutableField(error) from error
            await self._recreate.delete(target)
            target.state.replaced = target.state.last_applied == target.declaration.manifest.digest
            self._reporter.recreating(target.key, target.declaration, error)
            return Result(created=False, again=False)

    async def _heal(self, target: Target) -> Result:
        observation = target.observation
        if observation is not None and observation.verdict is Verdict.ADDED and observation.head is not None:
            if target.state.policy.additions is Additions.REPORT:
                self._report_added(target, observation.head, observation.raw or b"{}")
                return Result(created=False, again=False)
            return await self._revert(target, observation.head, observation.raw or b"{}")
        return await self._apply(target)

    async def look(self, target: Target) -> Observation:
        """Evidence of an object of which nothing was seen: it is read."""
        try:
            raw = await self._api.read(target.resource, target.key.namespace, target.key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return Observation(Verdict.DELETED, target.state.version, self._clock())
        head = decode_head(raw)
        return Observation(Verdict.SUSPECT, head.version, self._clock(), head, raw)

    async def _body(self, target: Target, *, anew: bool) -> tuple[bytes, bytes | None]:
        """What to apply, and the live object where it had to be known for that, read `anew` if need be."""
        key, manifest, state, observation = target.key, target.declaration.manifest, target.state, target.observation
        if not state.policy.ignore:
            return manifest.body, observation.raw if observation else None
        gone = observation is not None and observation.verdict is Verdict.DELETED
        if gone and state.last_applied and not state.yields:
            return manifest.body, None  # created anew with Git's values
        seen = observation
        if anew or seen is None or seen.head is None or seen.raw is None or key.group_kind == SECRET:
            seen = await self.look(target)
        return self._beside(target, seen), seen.raw

    def _beside(self, target: Target, seen: Observation) -> bytes:
        """What to apply to an object as it was seen, values of a Secret included."""
        state, body = target.state, target.declaration.manifest.body
        if seen.head is None or seen.raw is None:
            ignored = yielded_paths(orjson.loads(body), [], state.policy.ignore)
        else:
            body, ignored = effective(body, orjson.loads(seen.raw), seen.head.metadata, state.policy.ignore)
            if _sends_any(body, ignored):  # live values are sent back: they must be the ones that are there
                body = _for_version(body, seen.head.metadata.resourceVersion)
        state.yields = bool(ignored)
        return body

    async def _write(self, target: Target) -> ApplyResult:
        """Apply what is to be applied; once more, where somebody changed the object on which that depends."""
        cleared: list[TakenOver] = []
        for attempt in range(WRITE_TRIES):
            body, raw = await self._body(target, anew=attempt > 0)
            try:
                applied = await self._api.apply(target.resource, *target.place, body)
                break
            except ApiError as error:
                if attempt == WRITE_TRIES - 1:
                    raise
                if error.code == CONFLICT and target.state.yields:
                    continue  # the body was made for a version that is no more
                cleared.append(await self._clearing.clear(target, error, body))
                if not cleared[-1].any:
                    raise
        return ApplyResult(applied, body, raw, cleared)

    async def _unshare(self, target: Target, head: ObjectHead) -> None:
        """Own alone what is ours and was noted down as nobody's, or Git could never drop it."""
        shared = left_over(head.metadata)
        if not shared:
            return
        with contextlib.suppress(ApiError):  # somebody wrote in between: the next heal comes by here again
            await self._clearing.move(target, head.metadata, shared)

    async def _apply(self, target: Target) -> Result:
        key, declaration, observation = target.key, target.declaration, target.observation
        was_in_force, uid = target.state.last_applied == declaration.manifest.digest, target.state.uid
        try:
            written = await self._write(target)
        except ClusterError as error:
            self._remember_unanswered(target, error)
            raise
        unanswered, target.state.unanswered = target.state.unanswered, None
        observation = observation or unanswered
        applied, body, raw = written.applied, written.body, written.raw
        newer = target.state.observation
        left = self._detector.accept(key, applied.head, declaration.manifest.digest)
        drift: Drift | None = None
        if was_in_force and observation is not None:
            drift = self._drift(target, observation, applied, uid, body)
            in_between = newer is not None and newer.head and observation.version < newer.version < applied.head.version
            if drift is None and newer is not None and in_between:
                drift = self._drift(target, newer, applied, uid, body)
            if drift is None and unanswered is not None:
                drift, observation = self._drift(target, unanswered, applied, uid, body), unanswered
            if drift is None:
                self._reporter.in_sync(key)
            else:
                self._reporter.healed(drift, self._clock() - observation.arrived)
            self._report_cleared(target, written, observation)
        else:
            self._reporter.synced(key, declaration, created=applied.created)
        again = left.needs_work
        if not applied.created:
            if not was_in_force:
                target.observation = None  # what the first adoption, or a new commit, takes away is part of the sync
            try:
                await self._unshare(target, applied.head)
                after = await self._after_apply(target, applied.head, raw or b"{}")
            except ClusterError:
                target.state.accepted = None  # what others added is there still: it is to be looked at again
                raise
            again, drift = again or after.again, drift or after.healed
        return Result(applied.created, again, drift)

    def _remember_unanswered(self, target: Target, error: ClusterError) -> None:
        """An apply may have been done although its answer was lost: the next one finds all in order, and not why."""
        observation = target.observation
        lost = isinstance(error, (Unreachable, Unreadable)) or (
            isinstance(error, ApiError) and error.code >= SERVER_ERROR
        )
        last_applied = target.state.last_applied == target.declaration.manifest.digest
        if lost and last_applied and observation is not None and observation.head is not None:
            target.state.unanswered = target.state.unanswered or observation

    async def _after_apply(self, target: Target, head: ObjectHead, raw: bytes) -> Result:
        """An apply leaves alone what others added; that has its own remedy."""
        if not self._detector.added(target.state, head.metadata, known(raw)):
            if target.state.reported:
                target.state.reported = False
                self._reporter.in_sync(target.key)
            return Result(created=False, again=False)
        if target.state.policy.additions is Additions.REPORT:
            self._report_added(target, head, raw)
            return Result(created=False, again=False)
        return await self._revert(target, head, raw)

    def _drift(self, target: Target, observation: Observation, applied: Applied, uid: str, body: bytes) -> Drift | None:
        """What the apply mended, None where it found everything in order."""
        key, source = target.key, target.declaration.source
        if applied.created:
            replaced, target.state.replaced = target.state.replaced, False
            return Drift(key, source, DriftType.MODIFIED if replaced else DriftType.DELETED)
        if observation.head is None or observation.raw is None:
            if uid and applied.head.metadata.uid != uid:
                return Drift(key, source, DriftType.DELETED)  # and created anew by somebody
            label = FieldDrift(f'metadata.labels["{SOURCE_LABEL}"]', f'"{source}"', "<none>")
            return Drift(key, source, DriftType.MODIFIED, "", (label,))
        if applied.head.version == observation.version:
            return None
        found, healed = observation.head.metadata, applied.head.metadata
        drift = explain_modified(
            target.subject, body, observation.raw, found, healed, others_wrote=observation.others_wrote
        )
        # Without a field that differs, somebody else's write came in between, or ownership alone was put in order.
        return drift if drift.fields else None

    def _report_cleared(self, target: Target, written: ApplyResult, observation: Observation) -> None:
        for cleared in written.cleared:
            if cleared.taken:
                drift = explain_added(target.subject, cleared.raw, cleared.found, cleared.taken)
                self._reporter.healed(drift, self._clock() - observation.arrived)

    def _report_added(self, target: Target, head: ObjectHead, raw: bytes) -> None:
        added = self._detector.added(target.state, head.metadata, known(raw))
        self._detector.settle(target.key)
        target.state.reported = True
        if added:
            self._reporter.drifted(explain_added(target.subject, raw, head.metadata, added))

    async def _revert(self, target: Target, head: ObjectHead, raw: bytes) -> Result:
        """Remove the fields that somebody added: make them ours, then apply what does not declare them."""
        key, declaration = target.key, target.declaration
        head, added = await self._take_over(target, head, raw)
        if not added:  # somebody took it away, and perhaps something of ours with it: only an apply can tell
            return await self._apply(target)
        # The ownership is another one now.
        applied = (await self._write(msgspec.structs.replace(target, observation=None))).applied
        again = self._detector.accept(key, applied.head, declaration.manifest.digest).needs_work
        # What was added in between is accepted with the answer, and no event will tell of it again.
        again |= bool(self._detector.added(target.state, applied.head.metadata, known(raw)))
        if again and target.state.observation is None:
            target.state.accepted = None
        drift = None
        if target.observation is not None:
            drift = explain_added(target.subject, raw, head.metadata, added)
            self._reporter.healed(drift, self._clock() - target.observation.arrived)
        return Result(applied.created, again, drift)

    async def _take_over(self, target: Target, head: ObjectHead, raw: bytes) -> tuple[ObjectHead, list[Addition]]:
        """Move what was added into our entry, in the newest version of the object."""
        key = target.key
        for attempt in range(WRITE_TRIES):
            added = self._detector.added(target.state, head.metadata, known(raw))
            if not added:
                break
            try:
                await self._clearing.move(target, head.metadata, added)
                break
            except ApiError as error:
                if error.code not in (CONFLICT, UNPROCESSABLE) or attempt == WRITE_TRIES - 1:
                    raise
                head = await self._api.read_head(target.resource, key.namespace, key.name)
        return head, added


def _sends_any(body: bytes, paths: list[Path]) -> bool:
    manifest = orjson.loads(body)
    return any(lookup(manifest, path) is not MISSING for path in paths)


def _for_version(body: bytes, version: str) -> bytes:
    """The body, to be applied to this version of the object and to no other."""
    manifest = orjson.loads(body)
    manifest["metadata"]["resourceVersion"] = version
    return orjson.dumps(manifest)
