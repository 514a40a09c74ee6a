"""The random world of the property tests."""

from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster

from tests.property.kinds import widget_crd
from tests.property.world import World
from tests.support.live import Live
from tests.support.scene import daemons


@pytest.fixture(scope="package")
def world(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A daemon that has nothing to keep but the CRD of the widgets."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new()
        daemon.commit({"crd.yaml": widget_crd()})
        daemon.start()
        yield World(daemon, live)
