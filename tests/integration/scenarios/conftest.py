"""The daemon under test, and what its scenarios ask."""

from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.audit import AuditTrail
from tests.support.daemon import Daemon
from tests.support.live import Live
from tests.support.scene import NewDaemon, Scene, daemons


@pytest.fixture
def new_daemon(
    cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[NewDaemon]:
    """Make daemons of the test's own; they are stopped after it."""
    forked = request.node.get_closest_marker("command") is None
    waits = {name: value for mark in request.node.iter_markers("waits") for name, value in mark.args[0].items()}
    with daemons(cluster, live, tmp_path_factory, forked=forked, waits=waits) as new:
        yield new


@pytest.fixture(scope="module")
def shared_daemon(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that all tests of a module share: each declares its own file with its own namespace."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new()
        daemon.commit({"README.md": "Nothing is declared yet."})
        yield daemon.start()


@pytest.fixture
def scene(shared_daemon: Daemon, live: Live, audit: AuditTrail, namespace: str) -> Scene:
    """A namespace of the test's own, kept by the shared daemon."""
    return Scene(shared_daemon, live, audit, namespace)
