"""A control plane that a test may hurt, since nobody else uses it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driftwatch.localcluster import LocalCluster


@contextmanager
def own_cluster(folder: Path) -> Iterator[LocalCluster]:
    """A control plane in a folder that is not there yet; it is stopped and deleted, whatever was done to it."""
    cluster = LocalCluster(folder)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down(delete=True)
