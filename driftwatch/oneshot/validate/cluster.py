"""Access to the cluster for a check: a session and the render inputs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.session import Session
from driftwatch.config import Config, Source
from driftwatch.source_spec import ClusterCapabilities


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Session]:
    """Open a session to the configured cluster. Raises `ClusterError`."""
    session = await Session.open(config.cluster.kubeconfig, config.cluster.context)
    try:
        yield session
    finally:
        await session.close()


async def read_render_inputs(session: Session, sources: Sequence[Source]) -> ClusterCapabilities:
    """Read the cluster's version and APIs, and the variables of the sources. Raises `ClusterError`."""
    discovery = Discovery(session)
    await discovery.refresh()
    return await RenderInputsWatch(session, discovery).read([source.spec(Path()) for source in sources])
