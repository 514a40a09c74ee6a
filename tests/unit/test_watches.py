"""What is watched, from the first declaration to the end."""

from typing import Any

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.watch_manager import Watches

CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")


async def test_f04_nothing_is_watched_after_the_end() -> None:
    """A configuration that is taken in while the daemon stops starts no watch over a session that is closed."""
    nothing: Any = None
    watches = Watches(nothing, nothing)

    await watches.close()
    watches.start(CONFIG_MAPS, "")

    assert watches.kinds == set()
