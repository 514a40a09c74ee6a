"""Looks for kinds that Git declares and the API server does not serve yet, so that a new CRD needs no restart."""

import asyncio
from collections.abc import Callable

import structlog

from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ClusterError
from driftwatch.model import GroupKind, Manifest

# A CRD is served some 100 ms after it is applied; without a hint, a kind may come at any time or never.
HINTED = 5.0  # seconds of looking often after a hint
OFTEN = 0.05  # seconds between looks then
SELDOM = 1.0  # seconds between looks otherwise; an unchanged answer is a 304 of no body

log = structlog.get_logger()


class KindTracker:
    """Knows how each kind is served; calls `on_served` when kinds that were wanted are."""

    def __init__(self, discovery: Discovery, on_served: Callable[[list[GroupKind]], None]) -> None:
        self._discovery = discovery
        self._on_served = on_served
        self._wanted: dict[GroupKind, set[str]] = {}
        self._wake = asyncio.Event()
        self._hint_until = 0.0

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

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version: forget what was known, and look."""
        if self._discovery.resource(kind.group, version, kind.kind) is not None:
            self._discovery.forget(kind)
        self.want(kind, version)

    def expected(self) -> None:
        """A CRD was applied: look often for a while."""
        self._hint_until = asyncio.get_running_loop().time() + HINTED
        self._wake.set()

    async def run(self) -> None:
        """Look for wanted kinds until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._wanted:
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._discovery.refresh()
                self._announce()
            except ClusterError as error:
                log.warning("discovery failed; it is tried again", error=str(error))
            self._wake.clear()
            delay = OFTEN if loop.time() < self._hint_until else SELDOM
            try:
                # Not `wait_for`: before Python 3.12 it may swallow that the task is cancelled, and a stop would hang.
                async with asyncio.timeout(delay):
                    await self._wake.wait()
                await asyncio.sleep(OFTEN)  # however often it is called for
            except TimeoutError:
                continue

    def _announce(self) -> None:
        found = [
            kind
            for kind, versions in self._wanted.items()
            if any(self._discovery.resource(kind.group, version, kind.kind) for version in versions)
        ]
        for kind in found:
            del self._wanted[kind]
        if found:
            self._on_served(found)
