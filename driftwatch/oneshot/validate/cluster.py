"""The cluster that a check may ask: what it gives to rendering, and a session for what comes after that."""

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
    """A session to the configured cluster. Raises `ClusterError`."""
    session = await Session.open(config.cluster.kubeconfig, config.cluster.context)
    try:
        yield session
    finally:
        await session.close()


async def surroundings(session: Session, sources: Sequence[Source]) -> ClusterCapabilities:
    """Versions and APIs of the cluster, and the variables that sources take from it. Raises `ClusterError`."""
    discovery = Discovery(session)
    await discovery.refresh()
    return await RenderInputsWatch(session, discovery).read([source.spec(Path()) for source in sources])
