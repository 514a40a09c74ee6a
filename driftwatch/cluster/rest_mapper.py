"""Looks for kinds that Git declares and the API server does not serve yet, so that a new CRD needs no restart."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.model import GroupKind, Manifest

# A CRD is served some 100 ms after it is applied; without a hint, a kind may come at any time or never.
HINTED = 5.0  # seconds of looking often after a hint
OFTEN = 0.05  # seconds between looks then
SELDOM = 1.0  # seconds between looks otherwise; an unchanged answer is a 304 of no body
LONGEST = 30.0  # seconds between looks that fail; the first wait is `SELDOM`
DOUBTED = 5.0  # seconds for which a kind is looked at whose path answered 404: discovery may lag behind that

log = structlog.get_logger()


class _Doubt(msgspec.Struct):
    """A kind whose path answered 404: how it is served at each version, as far as is known, and doubted until then."""

    known: dict[str, Resource]
    until: float


class RestMapper:
    """Knows how each kind is served, and finds out when kinds that were wanted are served.

    A kind is missing when discovery says so. A 404 alone says nothing: it may be about one object, or a proxy's.
    """

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._wanted: dict[GroupKind, set[str]] = {}
        self._doubted: dict[GroupKind, _Doubt] = {}
        self._wake = asyncio.Event()
        self._hint_until = 0.0
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._trouble = ""

    def namespaced(self, kind: GroupKind) -> bool | None:
        """Whether the kind has namespaces, None while it is not served."""
        resource = self.preferred(kind)
        return resource.namespaced if resource else None

    def resource(self, manifest: Manifest) -> Resource | None:
        """How the manifest's kind is served at the manifest's version, None where it is not."""
        return self._discovery.resource(manifest.group, manifest.version, manifest.kind)

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served at the version that the API server prefers, None where it is not."""
        versions = self._discovery.versions(kind)
        return self._discovery.resource(kind.group, versions[0], kind.kind) if versions else None

    def served(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served."""
        return self._discovery.versions(kind)

    def want(self, kind: GroupKind, version: str) -> None:
        """Look for the kind until it is served at this version."""
        self._wanted.setdefault(kind, set()).add(version)
        self._wake.set()

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""
        await self._look()
        return self._discovery.resource(kind.group, version, kind.kind) is not None

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version: see whether discovery agrees."""
        resource = self._discovery.resource(kind.group, version, kind.kind)
        if resource is None:
            self.want(kind, version)
            return
        doubt = self._doubted.get(kind)
        if doubt is None:
            doubt = self._doubted[kind] = _Doubt({}, 0.0)
            self._wake.set()  # only now: whoever says it again must not have it looked for more often
        doubt.known.setdefault(version, resource)
        doubt.until = asyncio.get_running_loop().time() + DOUBTED

    def expected(self) -> None:
        """A CRD was applied: look often for a while."""
        self._hint_until = asyncio.get_running_loop().time() + HINTED
        self._wake.set()

    async def run(self, on_served: Callable[[list[GroupKind]], None]) -> None:
        """Look for wanted kinds until cancelled; call `on_served` with those that are served now."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            if not self._wanted and not self._doubted:
                self._wake.clear()
                await self._wake.wait()
            self._wake.clear()  # before the request: what is wanted while it is in flight wakes the next look
            try:
                await self._look()
            except ClusterError as error:
                failures += 1
                self._say(str(error))
                await asyncio.sleep(backoff(failures, SELDOM, LONGEST))
                continue
            failures, self._trouble = 0, ""
            self._settle_doubts()
            if found := self._take_found():
                on_served(found)
            delay = OFTEN if loop.time() < self._hint_until else SELDOM
            try:
                # Not `wait_for`: before Python 3.12 it may swallow that the task is cancelled, and a stop would hang.
                async with asyncio.timeout(delay):
                    await self._wake.wait()
                await asyncio.sleep(OFTEN)  # however often it is called for
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Have discovery be no older than this call; those who ask at the same time share one request."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._looking:
            if self._looked_at < asked:
                began = loop.time()
                await self._discovery.refresh()
                self._looked_at = began

    def _say(self, words: str) -> None:
        if words != self._trouble:
            self._trouble = words
            log.warning("discovery failed; it is tried again", error=words)

    def _settle_doubts(self) -> None:
        """Want what is served no more, or in another way; what stays as it was is no longer doubted after a while."""
        now = asyncio.get_running_loop().time()
        for kind, doubt in list(self._doubted.items()):
            served = {version: self._discovery.resource(kind.group, version, kind.kind) for version in doubt.known}
            if served != doubt.known:
                self._wanted.setdefault(kind, set()).update(doubt.known)
                del self._doubted[kind]
            elif now >= doubt.until:
                del self._doubted[kind]

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
