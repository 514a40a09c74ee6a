"""Reaches the cluster at the start: which cluster it is, and the folder that keeps its state."""

import asyncio
import errno
import hashlib
from pathlib import Path

import orjson
import structlog

from driftwatch.backoff import backoff
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.errors import FORBIDDEN, ApiError, ClusterError, Unreachable
from driftwatch.cluster.session import Session
from driftwatch.files import make_private_folder

CLUSTER_FIRST = 1.0  # seconds until the second try to reach the API server at the start
CLUSTER_LONGEST = 5.0
PASSING = (errno.ENOSPC, errno.EDQUOT)  # of a folder that cannot be made: space may become free

log = structlog.get_logger()


class CannotStart(Exception):
    """The daemon cannot start; the message says what to correct."""


class Startup:
    """Waits for the API server, then makes the state folder of its cluster.

    `states` is the folder that keeps a state folder for each cluster. `trouble` says why the API server has not
    answered yet.
    """

    def __init__(self, session: Session, discovery: Discovery, states: Path) -> None:
        self._session = session
        self._discovery = discovery
        self._states = states
        self.trouble = "not reached yet"

    async def run(self) -> Path:
        """Wait for the API server and return the cluster's state folder.

        Raises `CannotStart` for errors that do not pass by waiting.
        """
        return self._make_folder(await self._reach())

    async def _reach(self) -> str:
        """Wait until discovery works and the cluster's identity is known. Returns the identity."""
        failures = 0
        while True:
            try:
                await self._discovery.refresh()
                return await cluster_identity(self._session)
            except ApiError as error:
                if not error.passes and error.code != FORBIDDEN:  # an API server that has just started denies everybody
                    raise CannotStart(f"the API server refuses us: {error}") from error
                self.trouble, at_least = str(error), error.retry_after
            except Unreachable as error:
                self.trouble, at_least = str(error), 0.0
            except ClusterError as error:
                raise CannotStart(str(error)) from error
            failures += 1
            wait = max(at_least, backoff(failures, CLUSTER_FIRST, CLUSTER_LONGEST))
            log.error(
                "the API server cannot be reached",
                cluster=self._session.server,
                error=self.trouble,
                next=f"tried again in {wait:.1f} s; nothing is healed until then",
            )
            await asyncio.sleep(wait)

    def _make_folder(self, cluster: str) -> Path:
        """Make the cluster's state folder. A full disk does not end the start: only saved state is missing."""
        folder = self._states / cluster
        try:
            make_private_folder(folder)
        except OSError as error:
            if error.errno not in PASSING:
                raise CannotStart(f"state.directory: {folder} cannot be used: {error.strerror}") from error
        return folder


async def cluster_identity(session: Session) -> str:
    """The name of the cluster's state folder: the uid of `kube-system`, or a hash of the address if that is forbidden.

    Raises `ClusterError` while it is unknown: under another name, the saved state would not be found.
    """
    try:
        answer = await session.request("GET", session.url("/api/v1/namespaces/kube-system"))
        return str(orjson.loads(answer.body)["metadata"]["uid"])
    except ApiError as error:
        if error.passes:
            raise
    except (ValueError, KeyError):
        pass
    return hashlib.blake2b(session.server.encode(), digest_size=8).hexdigest()
