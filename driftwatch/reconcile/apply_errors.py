"""What is done about each refusal: the object waits for an event, comes again after a while, or needs somebody.

An object is parked where an event will release it. For a namespace that event is our own apply of it, where Git
declares it and the apply succeeds. Somebody else may create it without our label, so that no watch shows it: each
namespace that something waits for is looked at now and then.
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
from driftwatch.reconcile.concurrency import Concurrency
from driftwatch.reconcile.interfaces import Kinds, Reporter
from driftwatch.reconcile.outcome import Outcome, classify, is_denied, is_failure, is_overload, pause_of
from driftwatch.reconcile.queue import KeyedQueue

Awaited = TypeVar("Awaited", str, GroupKind)


class Blocked:
    """Objects that cannot be applied before something else happens. Events release them, never guesses.

    What an object waits for is in its state. The counters say what is waited for without a look at all objects.
    """

    def __init__(self, states: ObjectStates) -> None:
        self._states = states
        self._namespaces: Counter[str] = Counter()
        self._kinds: Counter[GroupKind] = Counter()

    def at_namespace(self, key: ObjectKey) -> None:
        """The object waits for its namespace."""
        self._block(key, BlockedOn.NAMESPACE)

    def at_kind(self, key: ObjectKey) -> None:
        """The object waits for its kind to be served."""
        self._block(key, BlockedOn.KIND)

    @property
    def namespaces(self) -> Collection[str]:
        """Namespaces that objects wait for."""
        return self._namespaces.keys()

    @property
    def kinds(self) -> Collection[GroupKind]:
        """Kinds that objects wait for."""
        return self._kinds.keys()

    @property
    def counts(self) -> dict[str, int]:
        """How many objects wait for their namespace, and how many for their kind."""
        return {"namespace": self._namespaces.total(), "kind": self._kinds.total()}

    def namespace_ready(self, namespace: str) -> set[ObjectKey]:
        """Release the objects that wait for the namespace."""
        if namespace not in self._namespaces:
            return set()
        waiting = self._states.items()
        return self._release(
            {key for key, s in waiting if s.blocked_on is BlockedOn.NAMESPACE and key.namespace == namespace}
        )

    def kind_ready(self, kind: GroupKind) -> set[ObjectKey]:
        """Release the objects that wait for the kind."""
        waiting = self._states.of_kind(kind)
        return self._release({key for key, state in waiting if state.blocked_on is BlockedOn.KIND})

    def forget(self, key: ObjectKey) -> None:
        """The object does not wait any more."""
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


FAILED_RETRY = 600.0  # seconds until a refused manifest is tried again although nothing changed
# Seconds until what is not allowed is first tried again: nobody tells of a right that is granted, and an API server
# that has just started denies everybody what is allowed, until it has read the roles.
DENIED_FIRST = 1.0
UNFOUND_FIRST = 1.0  # seconds until what was not found is first tried again, although its kind is served
NAMESPACE_POLL = (0.5, 15.0)  # seconds between looks at a namespace that is waited for, first and longest
# Seconds between tries of all that waits for a namespace that we may not read, at the longest: each is a request.
UNREADABLE_POLL = 60.0

log = structlog.get_logger()


class ApplyErrorHandler:
    """Acts on refusals of the key that is out. `release` asks for work on keys that were parked."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        api: ApiClient,
        kinds: Kinds,
        reporter: Reporter,
        queue: KeyedQueue,
        concurrency: Concurrency,
        release: Callable[[set[ObjectKey]], None],
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._api = api
        self._kinds = kinds
        self._reporter = reporter
        self._queue = queue
        self._concurrency = concurrency
        self._release = release
        self._looks: dict[str, asyncio.Task[None]] = {}
        self.blocked = Blocked(declared.states)

    def stop(self) -> None:
        """Look for nothing any more."""
        for look in self._looks.values():
            look.cancel()

    async def is_served(self, declaration: Declaration, error: ClusterError) -> bool:
        """Whether the API server serves the kind although it has refused as if it did not."""
        if classify(error) is not Outcome.KIND_MISSING:
            return False
        try:
            return await self._kinds.serves(declaration.manifest.group_kind, declaration.manifest.version)
        except ClusterError:
            return True  # nothing says that it is missing

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
        """The API server refused, or gave no answer, `seconds` after work on the key began.

        `served`: it serves the kind although it has refused as if it did not, so that the failure is the object's own.
        """
        if self._declared.get(key) is None:
            return  # Git has dropped it while the API server was asked
        self.report_deleted(key, declaration, observation)
        self._note_load(key, error, seconds)
        outcome = classify(error)
        retry: float | None = None
        if outcome in (Outcome.NAMESPACE_TERMINATING, Outcome.NAMESPACE_MISSING) and not self._park(key, outcome):
            outcome = Outcome.RETRY
        if outcome is Outcome.GONE:  # between two requests, and its event is on the way
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
        """Take in what a refusal says of how much the API server bears."""
        if is_overload(error):
            self._concurrency.overloaded(seconds, pause_of(error))
        elif is_failure(error):
            self._concurrency.failed(key, seconds)

    def on_missing_kind(self, key: ObjectKey, declaration: Declaration, observation: Observation | None) -> None:
        """The key's kind is not served at the manifest's version: nothing was asked of the API server."""
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
        """Work on the key has failed by a mistake of our own, whose words are not told: they may be a Secret's."""
        retry = self._queue.failed(key)
        declaration = self._declared.get(key)
        if declaration is not None:
            self.report_deleted(key, declaration, self._detector.states.of(key).observation)
            error = ClusterError(f"healing failed unexpectedly: {type(mistake).__name__}; the log has the traceback")
            self._reporter.refused(key, declaration, Outcome.FAILED, error, retry)

    def report_deleted(self, key: ObjectKey, declaration: Declaration, observation: Observation | None) -> None:
        """A deletion under a manifest in force is drift, whatever becomes of its healing."""
        gone = observation is not None and observation.verdict is Verdict.DELETED
        if gone and self._detector.states.of(key).last_applied == declaration.manifest.digest:
            self._reporter.drifted(Drift(key, declaration.source, DriftType.DELETED))

    def _park(self, key: ObjectKey, outcome: Outcome) -> bool:
        """Park the key until its namespace is there; False where it is, and the refusal came from before."""
        if not key.namespace:  # it is the namespace itself that went between two requests
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
        """Look at a namespace until nothing waits for it; release what waits once it is there."""
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
            del self._looks[name]  # here, and by no callback: what is parked in the next moment has a look of its own

    async def _find_namespace(self, name: str) -> bool | None:
        """Whether the namespace is there to stay; None if we may not know, and only a try of an object tells."""
        resource = self._kinds.preferred(NAMESPACE)
        if resource is None:
            return False
        try:
            head = await self._api.read_head(resource, "", name)
        except ApiError as error:
            return False if error.code == NOT_FOUND or error.passes else None
        except ClusterError:
            return False
        except Exception:  # the look is all that releases what waits
            log.exception("looking for a namespace failed unexpectedly; it is tried again", namespace=name)
            return False
        return not head.metadata.deletionTimestamp
