"""A kind that is watched namespace by namespace: the watch of a namespace ends when nothing needs it.

The session is a fake that forbids the watch of all namespaces.
"""

import asyncio
from contextlib import asynccontextmanager

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.cluster.watch_manager import Watches
from driftwatch.drift.desired_state import Declared
from driftwatch.model import Manifest, ObjectKey
from driftwatch.prune.unused_kinds import QUIET, UnusedKinds
from driftwatch.state.inventory import Inventory
from driftwatch.state.orphan_index import OrphanIndex

MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
KIND = MAPS.group_kind
DONE = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}\n'  # noqa: E501  one line of a watch


class Session:
    """Opens the watch of one namespace and forbids that of all."""

    def __init__(self):
        self.open = set()
        self.changed = asyncio.Event()

    def url(self, path, query=""):
        return f"{path}?{query}"

    @asynccontextmanager
    async def stream(self, url, **_named):
        if "/namespaces/" not in url:
            raise ApiError(403, Status(403, "Forbidden", "no"))
        namespace = url.split("/namespaces/")[1].split("/")[0]
        self.open.add(namespace)
        self.changed.set()

        async def chunks():
            yield DONE
            await asyncio.Event().wait()

        try:
            yield chunks()
        finally:
            self.open.discard(namespace)
            self.changed.set()

    async def until_open(self, namespaces):
        async with asyncio.timeout(10):
            while self.open != namespaces:
                self.changed.clear()
                await self.changed.wait()


class Listener:
    def __getattr__(self, _name):
        return lambda *_arguments, **_named: None


class Kinds:
    def preferred(self, _kind):
        return MAPS


def manifest(namespace):
    return Manifest("", "v1", "ConfigMap", namespace, "settings", b"{}", "digest", "a.yaml", 1)


async def test_h12_the_watch_of_a_namespace_that_left_git_is_closed():
    """It stays open while an object may be left there, and is closed a while after the last is gone."""
    session, now = Session(), [0.0]
    watches = Watches(session, Listener())
    declared = Declared(["apps"], lambda _kind: True)
    orphans = OrphanIndex(declared, lambda: now[0], lambda: None, Listener())
    unused = UnusedKinds(declared, orphans, Inventory(None, ""), watches, Kinds(), None, lambda: now[0], lambda: None)

    declared.replace("apps", [manifest("old"), manifest("kept")])
    watches.start(MAPS, "", {"old", "kept"})
    await session.until_open({"old", "kept"})

    declared.replace("apps", [manifest("kept"), manifest("new")])
    left = ObjectKey("", "ConfigMap", "old", "settings")
    orphans.on_undeclared(left)
    watches.start(MAPS, "", {"kept", "new"})
    await session.until_open({"old", "kept", "new"})
    now[0] += 2 * QUIET
    assert await unused.drop(["apps"]) is None
    assert watches.of_kinds[KIND].namespaces == {"old", "kept", "new"}

    orphans.leave_unread(left)
    assert await unused.drop(["apps"]) == QUIET
    now[0] += QUIET
    await unused.drop(["apps"])
    await session.until_open({"kept", "new"})
    assert watches.of_kinds[KIND].is_synced
    await watches.close()
    assert session.open == set()
