"""Handles refused applies: the object is blocked until an event, retried after a delay, or needs a user's change.

An object is blocked if an event will release it. For a missing namespace, that event is driftwatch's own apply of the
namespace, if Git declares it. Other clients may create the namespace without driftwatch's label. No watch shows such a
namespace, so each namespace that blocks objects is also polled.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from typing import TypeVar

import structlog

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.errors import NOT_FOUND, ApiError, ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.object_state import BlockedOn, Declaration, ObjectStates, Observation, Verdict
from driftwatch.model import NAMESPACE, Drift, DriftType, GroupKind, Mode, ObjectKey
from driftwatch.reconcile.interfaces import Kinds, Reporter
from driftwatch.reconcile.outcome import Outcome, classify, is_denied, is_failure, is_overload, pause_of
from driftwatch.reconcile.queue import KeyedQueue

Awaited = TypeVar("Awaited", str, GroupKind)


class Blocked:
    """Objects that cannot be applied until their namespace exists or their kind is served. Only events release them.

    The state of an object stores what it waits for. The counters list the awaited namespaces and kinds without a scan
    of all objects.
    """

    def __init__(self, states: ObjectStates) -> None:
        self._states = states
        self._namespaces: Counter[str] = Counter()
        self._kinds: Counter[GroupKind] = Counter()

    def at_namespace(self, key: ObjectKey) -> None:
        """Block the object until its namespace exists."""
        self._block(key, BlockedOn.NAMESPACE)

    def at_kind(self, key: ObjectKey) -> None:
        """Block the object until its kind is served."""
        self._block(key, BlockedOn.KIND)

    @property
    def namespaces(self) -> Collection[str]:
        """Namespaces that block objects."""
        return self._namespaces.keys()

    @property
    def kinds(self) -> Collection[GroupKind]:
        """Kinds that block objects."""
        return self._kinds.keys()

    @property
    def counts(self) -> dict[str, int]:
        """Number of objects blocked on their namespace, and number blocked on their kind."""
        return {"namespace": self._namespaces.total(), "kind": self._kinds.total()}

    def namespace_ready(self, namespace: str) -> set[ObjectKey]:
        """Release and return the objects that are blocked on the namespace."""
        if namespace not in self._namespaces:
            return set()
        waiting = self._states.items()
        return self._release(
            {key for key, s in waiting if s.blocked_on is BlockedOn.NAMESPACE and key.namespace == namespace}
        )

    def kind_ready(self, kind: GroupKind) -> set[ObjectKey]:
        """Release and return the objects that are blocked on the kind."""
        waiting = self._states.of_kind(kind)
        return self._release({key for key, state in waiting if state.blocked_on is BlockedOn.KIND})

    def forget(self, key: ObjectKey) -> None:
        """Unblock the object."""
        state = self._states.get(key)
        if state is None or state.blocked_on is None:
            return
        if state.blocked_on is BlockedOn.NAMESPACE:
            _decrement(self._namespaces, key.namespace)
        else:
            _decrement(self._kinds, key.group_kind)
        state.blocked_on = None

    def _block(self, key: ObjectKey, on: BlockedOn) -> None:
        self.forget(key)
        self._states.of(key).blocked_on = on
        if on is BlockedOn.NAMESPACE:
            self._namespaces[key.namespace] += 1
        else:
            self._kinds[key.group_kind] += 1

    def _release(self, keys: set[ObjectKey]) -> set[ObjectKey]:
        for key in keys:
            self.forget(key)
        return keys


def _decrement(counter: Counter[Awaited], awaited: Awaited) -> None:
    counter[awaited] -= 1
    if not counter[awaited]:
        del counter[awaited]


FAILED_RETRY = 600.0  # seconds until a refused manifest is retried without a change
# Seconds until the first retry after a denied request. No event announces a granted permission. An API server that has
# just started denies allowed requests until it has read the roles.
DENIED_FIRST = 1.0
UNFOUND_FIRST = 1.0  # seconds until the first retry after a 404 for a kind that is served
NAMESPACE_POLL = (0.5, 15.0)  # seconds between polls of a namespace that blocks objects, first and longest
# Longest time in seconds between retries of the objects blocked on an unreadable namespace. Each retry is a request.
UNREADABLE_POLL = 60.0

log = structlog.get_logger()


class ApplyErrorHandler:
    """Handles apply errors of a key that is in flight. `release` requests a reconcile of keys that were blocked."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        api: ApiClient,
        kinds: Kinds,
        reporter: Reporter,
        queue: KeyedQueue,
        release: Callable[[set[ObjectKey]], None],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._api = api
        self._kinds = kinds
        self._reporter = reporter
        self._queue = queue
        self._release = release
        self._looks: dict[str, asyncio.Task[None]] = {}
        self.blocked = Blocked(declared.states)

    def stop(self) -> None:
        """Stop polling namespaces."""
        for look in self._looks.values():
            look.cancel()

    async def is_served(self, declaration: Declaration, error: ClusterError) -> bool:
        """Whether the API server serves the kind although the error says that the kind is missing."""
        if classify(error) is not Outcome.KIND_MISSING:
            return False
        try:
            return await self._kinds.serves(declaration.manifest.group_kind, declaration.manifest.version)
        except ClusterError:
            return True  # nothing shows that the kind is missing

    def on_refusal(
        self,
        key: ObjectKey,
        declaration: Declaration,
        observation: Observation | None,
        error: ClusterError,
        seconds: float,
        *,
        served: bool = False,
    ) -> None:
        """Handle a refusal by the API server, or a missing answer, `seconds` after the reconcile of the key began.

        `served`: the API server serves the kind although the error says that the kind is missing. The failure then
        belongs to the object.
        """
        if self._declared.get(key) is None:
            return  # Git dropped the object during the request
        self.report_deleted(key, declaration, observation)
        self._note_load(key, error, seconds)
        outcome = classify(error)
        retry: float | None = None
        if outcome in (Outcome.NAMESPACE_TERMINATING, Outcome.NAMESPACE_MISSING) and not self._park(key, outcome):
            outcome = Outcome.RETRY
        if outcome is Outcome.GONE:  # deleted between two requests; its event will follow
            outcome = Outcome.RETRY
        if outcome is Outcome.KIND_MISSING and served:
            is_going = isinstance(error, ApiError) and error.code != NOT_FOUND  # its definition is terminating
            outcome = Outcome.RETRY if is_going else Outcome.FAILED
            retry = self._queue.failed(key, first=UNFOUND_FIRST, longest=FAILED_RETRY)
            self._kinds.missing(key.group_kind, declaration.manifest.version)
        elif outcome is Outcome.KIND_MISSING:
            self.blocked.at_kind(key)
            self._kinds.missing(key.group_kind, declaration.manifest.version)
        elif outcome is Outcome.RETRY:
            retry = self._queue.failed(key, error.retry_after if isinstance(error, ApiError) else 0.0)
        elif is_denied(error):
            retry = self._queue.failed(key, first=DENIED_FIRST, longest=FAILED_RETRY)
        elif outcome in (Outcome.FAILED, Outcome.IMMUTABLE):
            retry = FAILED_RETRY
            self._queue.later(key, retry)
        self._reporter.refused(key, declaration, outcome, error, retry)

    def _note_load(self, key: ObjectKey, error: ClusterError, seconds: float) -> None:
        """Tell `Concurrency` whether the error is a sign of overload."""
        if is_overload(error):
            self._queue.concurrency.overloaded(seconds, pause_of(error))
        elif is_failure(error):
            self._queue.concurrency.failed(key, seconds)

    def on_missing_kind(self, key: ObjectKey, declaration: Declaration, observation: Observation | None) -> None:
        """Block a key whose kind is not served at the manifest's version. No request was sent."""
        self.report_deleted(key, declaration, observation)
        self.blocked.at_kind(key)
        manifest = declaration.manifest
        wanted = f"{manifest.group}/{manifest.version}" if manifest.group else manifest.version
        served = ", ".join(self._kinds.served(key.group_kind))
        error = ClusterError(
            f"the cluster does not serve {key.kind} at {wanted}" + (f"; it serves {served}" if served else "")
        )
        self._kinds.missing(key.group_kind, manifest.version)
        self._reporter.refused(key, declaration, Outcome.KIND_MISSING, error, None)

    def on_mistake(self, key: ObjectKey, mistake: Exception) -> None:
        """Handle an unexpected exception. Its message is not reported, since it may contain values of a Secret."""
        retry = self._queue.failed(key)
        declaration = self._declared.get(key)
        if declaration is not None:
            self.report_deleted(key, declaration, self._detector.states.of(key).observation)
            error = ClusterError(f"healing failed unexpectedly: {type(mistake).__name__}; the log has the traceback")
            self._reporter.refused(key, declaration, Outcome.FAILED, error, retry)

    def report_deleted(self, key: ObjectKey, declaration: Declaration, observation: Observation | None) -> None:
        """Report the deletion of an applied object as drift, whether or not its heal succeeds."""
        gone = observation is not None and observation.verdict is Verdict.DELETED
        if gone and self._detector.states.of(key).last_applied == declaration.manifest.digest:
            self._reporter.drifted(Drift(key, declaration.source, DriftType.DELETED))

    def _park(self, key: ObjectKey, outcome: Outcome) -> bool:
        """Block the key until its namespace exists. False if it exists, so that the refusal is outdated."""
        if not key.namespace:  # the key itself is a namespace, deleted between two requests
            return False
        namespace = ObjectKey(*NAMESPACE, "", key.namespace)
        heals = self._heals(namespace)
        state = self._detector.states.get(namespace)
        if heals and state is not None and state.live and not state.terminating:
            return False
        self.blocked.at_namespace(key)
        if heals and outcome is Outcome.NAMESPACE_MISSING:
            self._release({namespace})
        if key.namespace not in self._looks:
            look = asyncio.get_running_loop().create_task(self._await_namespace(key.namespace))
            self._looks[key.namespace] = look
        return True

    def _heals(self, key: ObjectKey) -> bool:
        return self._declared.get(key) is not None and self._detector.states.of(key).policy.mode is Mode.HEAL

    async def _await_namespace(self, name: str) -> None:
        """Poll a namespace until it exists, then release its blocked objects. End early if it blocks no object."""
        delay, longest = NAMESPACE_POLL
        namespace = ObjectKey(*NAMESPACE, "", name)
        try:
            while True:
                await asyncio.sleep(delay)
                if name not in self.blocked.namespaces:
                    return
                found = await self._find_namespace(name)
                if found is None:
                    longest = UNREADABLE_POLL
                if found is not False:
                    own = {namespace} if found and self._heals(namespace) else set()
                    self._release(self.blocked.namespace_ready(name) | own)
                if found:
                    return
                delay = min(delay * 1.5, longest)
        finally:
            del self._looks[name]  # no callback: a key that is blocked right after this must start a new poll

    async def _find_namespace(self, name: str) -> bool | None:
        """Whether the namespace exists and is not terminating. None without permission: only an apply can tell."""
        resource = self._kinds.preferred(NAMESPACE)
        if resource is None:
            return False
        try:
            head = await self._api.read_head(resource, "", name)
        except ApiError as error:
            return False if error.code == NOT_FOUND or error.passes else None
        except ClusterError:
            return False
        except Exception:  # only this poll releases the blocked objects
            log.exception("looking for a namespace failed unexpectedly; it is tried again", namespace=name)
            return False
        return not head.metadata.deletionTimestamp
