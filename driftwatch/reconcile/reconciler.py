"""Sends the requests that heal one object, and derives the drift from their answers.

One heal is one request: the server-side apply of the body that was serialised when the snapshot was built. The removal
of an added field takes two requests. The first takes over the ownership of the field. The second is an apply that does
not declare the field. The body depends on the live object only if a rule ignores fields.
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

WRITE_TRIES = 5  # other clients may change the object that a write depends on


class Result(msgspec.Struct):
    """Result of a reconcile: `created`, `again` if the object needs another reconcile, and the `healed` drift."""

    created: bool
    again: bool
    healed: Drift | None = None


class ApplyResult(msgspec.Struct):
    """A successful apply: the answer, the body sent, the live object if known, and the fields taken over before."""

    applied: Applied
    body: bytes
    raw: bytes | None
    cleared: list[TakenOver]


class Reconciler:
    """Heals objects by requests to the API server. Every method raises `ApiError` or `Unreachable`."""

    def __init__(self, detector: Detector, api: ApiClient, reporter: Reporter, clock: Callable[[], float]) -> None:
        self._detector = detector
        self._api = api
        self._reporter = reporter
        self._clock = clock
        self._recreate = RecreateObject(api)
        self._clearing = TakeOver(api, lambda: detector.managers)

    async def heal(self, target: Target) -> Result:
        """Make the object match Git, whatever its verdict. Delete it if only a recreate can do that and is allowed."""
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
        """Read the object. Returns it as an observation."""
        try:
            raw = await self._api.read(target.resource, target.key.namespace, target.key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return Observation(Verdict.DELETED, target.state.version, self._clock())
        head = decode_head(raw)
        return Observation(Verdict.SUSPECT, head.version, self._clock(), head, raw)

    async def _body(self, target: Target, *, anew: bool) -> tuple[bytes, bytes | None]:
        """The body to apply, and the live object if known. `anew` reads it again if the body depends on it."""
        key, manifest, state, observation = target.key, target.declaration.manifest, target.state, target.observation
        if not state.policy.ignore:
            return manifest.body, observation.raw if observation else None
        gone = observation is not None and observation.verdict is Verdict.DELETED
        if gone and state.last_applied and not state.yields:
            return manifest.body, None  # created again with Git's values
        seen = observation
        if anew or seen is None or seen.head is None or seen.raw is None or key.group_kind == SECRET:
            seen = await self.look(target)
        return self._beside(target, seen), seen.raw

    def _beside(self, target: Target, seen: Observation) -> bytes:
        """The body to apply to an observed object, including values of a Secret."""
        state, body = target.state, target.declaration.manifest.body
        if seen.head is None or seen.raw is None:
            ignored = yielded_paths(orjson.loads(body), [], state.policy.ignore)
        else:
            body, ignored = effective(body, orjson.loads(seen.raw), seen.head.metadata, state.policy.ignore)
            if _sends_any(body, ignored):  # the body contains live values, which must be current
                body = _for_version(body, seen.head.metadata.resourceVersion)
        state.yields = bool(ignored)
        return body

    async def _write(self, target: Target) -> ApplyResult:
        """Apply the body. Retry if the object changed meanwhile, or after blocking fields were taken over."""
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
                    continue  # the body was built for an outdated version
                cleared.append(await self._clearing.clear(target, error, body))
                if not cleared[-1].any:
                    raise
        return ApplyResult(applied, body, raw, cleared)

    async def _unshare(self, target: Target, head: ObjectHead) -> None:
        """Reclaim fields that before-first-apply owns as well. Otherwise Git could not remove them."""
        shared = left_over(head.metadata)
        if not shared:
            return
        with contextlib.suppress(ApiError):  # another client wrote in between; the next heal tries again
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
                target.observation = None  # fields removed by an adoption or a new commit are part of the sync
            try:
                await self._unshare(target, applied.head)
                after = await self._after_apply(target, applied.head, raw or b"{}")
            except ClusterError:
                target.state.accepted = None  # fields added by others remain; the object must be judged again
                raise
            again, drift = again or after.again, drift or after.healed
        return Result(applied.created, again, drift)

    def _remember_unanswered(self, target: Target, error: ClusterError) -> None:
        """Keep the observation if the answer is lost. The next apply may change nothing, and not show the drift."""
        observation = target.observation
        lost = isinstance(error, (Unreachable, Unreadable)) or (
            isinstance(error, ApiError) and error.code >= SERVER_ERROR
        )
        last_applied = target.state.last_applied == target.declaration.manifest.digest
        if lost and last_applied and observation is not None and observation.head is not None:
            target.state.unanswered = target.state.unanswered or observation

    async def _after_apply(self, target: Target, head: ObjectHead, raw: bytes) -> Result:
        """Report or remove fields that others added. An apply does not remove them."""
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
        """The drift that the apply healed. None if the apply changed nothing."""
        key, source = target.key, target.declaration.source
        if applied.created:
            replaced, target.state.replaced = target.state.replaced, False
            return Drift(key, source, DriftType.MODIFIED if replaced else DriftType.DELETED)
        if observation.head is None or observation.raw is None:
            if uid and applied.head.metadata.uid != uid:
                return Drift(key, source, DriftType.DELETED)  # and created again by another client
            label = FieldDrift(f'metadata.labels["{SOURCE_LABEL}"]', f'"{source}"', "<none>")
            return Drift(key, source, DriftType.MODIFIED, "", (label,))
        if applied.head.version == observation.version:
            return None
        found, healed = observation.head.metadata, applied.head.metadata
        drift = explain_modified(
            target.subject, body, observation.raw, found, healed, others_wrote=observation.others_wrote
        )
        # Without a differing field, another client wrote in between, or the apply changed only field ownership.
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
        """Remove added fields: take over their ownership, then apply the manifest, which does not declare them."""
        key, declaration = target.key, target.declaration
        head, added = await self._take_over(target, head, raw)
        if not added:  # another client removed them, and perhaps declared fields too: only an apply can tell
            return await self._apply(target)
        # The observation is outdated, because the ownership has changed.
        applied = (await self._write(msgspec.structs.replace(target, observation=None))).applied
        again = self._detector.accept(key, applied.head, declaration.manifest.digest).needs_work
        # `accept` also covers fields that were added in between. No later event reports them.
        again |= bool(self._detector.added(target.state, applied.head.metadata, known(raw)))
        if again and target.state.observation is None:
            target.state.accepted = None
        drift = None
        if target.observation is not None:
            drift = explain_added(target.subject, raw, head.metadata, added)
            self._reporter.healed(drift, self._clock() - target.observation.arrived)
        return Result(applied.created, again, drift)

    async def _take_over(self, target: Target, head: ObjectHead, raw: bytes) -> tuple[ObjectHead, list[Addition]]:
        """Move added fields into driftwatch's managedFields entry, in the newest version of the object."""
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
    """The body with a resourceVersion, so that it applies to this version of the object only."""
    manifest = orjson.loads(body)
    manifest["metadata"]["resourceVersion"] = version
    return orjson.dumps(manifest)
