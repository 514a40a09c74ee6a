"""Maps kinds to resources and waits for kinds that are not served yet, so that a new CRD needs no restart."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.model import GroupKind, Manifest

# A CRD is served about 100 ms after it is applied. Without a hint, a kind may appear at any time or never.
HINT_SECONDS = 5.0  # seconds of frequent requests after a hint
HINTED_PERIOD = 0.05  # seconds between discovery requests after a hint
PERIOD = 1.0  # seconds between discovery requests otherwise; an unchanged answer is a 304 without a body
LONGEST_PAUSE = 30.0  # longest backoff in seconds after a failed request; the first is `PERIOD`
CONFIRM_SECONDS = 5.0  # seconds for which a kind is checked after a 404 for its path, because discovery may lag behind

log = structlog.get_logger()


class _Unconfirmed(msgspec.Struct):
    """A kind whose path answered 404: its resource at each version by discovery, and the end of the check."""

    known: dict[str, Resource]
    until: float


class RestMapper:
    """Maps kinds to resources, and finds out when wanted kinds become available.

    Only discovery decides that a kind is missing. A 404 alone does not: it may be about one object, or from a proxy.
    """

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._wanted: dict[GroupKind, set[str]] = {}
        self._unconfirmed: dict[GroupKind, _Unconfirmed] = {}
        self._wake = asyncio.Event()
        self._hint_until = 0.0
        self._refreshing = asyncio.Lock()
        self._refreshed_at = float("-inf")
        self._last_error = ""

    def namespaced(self, kind: GroupKind) -> bool | None:
        """Whether the kind is namespaced, None if it is not served."""
        resource = self.preferred(kind)
        return resource.namespaced if resource else None

    def resource(self, manifest: Manifest) -> Resource | None:
        """Return the resource of the manifest's kind at the manifest's version, None if it is not served."""
        return self._discovery.resource(manifest.group, manifest.version, manifest.kind)

    def preferred(self, kind: GroupKind) -> Resource | None:
        """Return the kind's resource at the API server's preferred version, None if it is not served."""
        versions = self._discovery.versions(kind)
        return self._discovery.resource(kind.group, versions[0], kind.kind) if versions else None

    def served(self, kind: GroupKind) -> list[str]:
        """Return the served versions of the kind."""
        return self._discovery.versions(kind)

    def want(self, kind: GroupKind, version: str) -> None:
        """Check discovery until the kind is served at this version."""
        self._wanted.setdefault(kind, set()).add(version)
        self._wake.set()

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Refresh discovery and return whether the kind is served at this version. Raises `ClusterError`."""
        await self._refresh()
        return self._discovery.resource(kind.group, version, kind.kind) is not None

    def missing(self, kind: GroupKind, version: str) -> None:
        """Check with discovery after a 404 for the kind at this version."""
        resource = self._discovery.resource(kind.group, version, kind.kind)
        if resource is None:
            self.want(kind, version)
            return
        entry = self._unconfirmed.get(kind)
        if entry is None:
            entry = self._unconfirmed[kind] = _Unconfirmed({}, 0.0)
            self._wake.set()  # on the first report only: repeated reports must not cause more requests
        entry.known.setdefault(version, resource)
        entry.until = asyncio.get_running_loop().time() + CONFIRM_SECONDS

    def expected(self) -> None:
        """Check discovery frequently for a while: a CRD was applied."""
        self._hint_until = asyncio.get_running_loop().time() + HINT_SECONDS
        self._wake.set()

    async def run(self, on_served: Callable[[list[GroupKind]], None]) -> None:
        """Check discovery for wanted kinds until cancelled. Calls `on_served` with those that became available."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            if not self._wanted and not self._unconfirmed:
                self._wake.clear()
                await self._wake.wait()
            self._wake.clear()  # before the request: a kind wanted during the request triggers another
            try:
                await self._refresh()
            except ClusterError as error:
                failures += 1
                self._log_failure(str(error))
                await asyncio.sleep(backoff(failures, PERIOD, LONGEST_PAUSE))
                continue
            failures, self._last_error = 0, ""
            self._check_unconfirmed()
            if found := self._take_found():
                on_served(found)
            delay = HINTED_PERIOD if loop.time() < self._hint_until else PERIOD
            try:
                # Not `wait_for`: before Python 3.12 it may swallow a cancellation, and a stop would hang.
                async with asyncio.timeout(delay):
                    await self._wake.wait()
                await asyncio.sleep(HINTED_PERIOD)  # limits the rate, however often it is woken
            except TimeoutError:
                continue

    async def _refresh(self) -> None:
        """Refresh discovery unless a newer refresh than this call exists. Concurrent callers share one request."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._refreshing:
            if self._refreshed_at < asked:
                began = loop.time()
                await self._discovery.refresh()
                self._refreshed_at = began

    def _log_failure(self, words: str) -> None:
        if words != self._last_error:
            self._last_error = words
            log.warning("discovery failed; it is tried again", error=words)

    def _check_unconfirmed(self) -> None:
        """Want the kinds whose resource changed or is gone. Unchanged kinds are dropped after `CONFIRM_SECONDS`."""
        now = asyncio.get_running_loop().time()
        for kind, entry in list(self._unconfirmed.items()):
            served = {version: self._discovery.resource(kind.group, version, kind.kind) for version in entry.known}
            if served != entry.known:
                self._wanted.setdefault(kind, set()).update(entry.known)
                del self._unconfirmed[kind]
            elif now >= entry.until:
                del self._unconfirmed[kind]

    def _take_found(self) -> list[GroupKind]:
        """Wanted kinds that are served now; they are not wanted any more."""
        found = [
            kind
            for kind, versions in self._wanted.items()
            if any(self._discovery.resource(kind.group, version, kind.kind) for version in versions)
        ]
        for kind in found:
            del self._wanted[kind]
        return found
