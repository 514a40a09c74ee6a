"""Sockets of the API server's session: none is left to the garbage collector, and none closes what is not its own."""

import gc
import os
import socket
from pathlib import Path

import pytest
from driftwatch.cluster.session import Session

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))


class Credentials:
    ssl, proxy, server = False, None, "http://127.0.0.1:1"

    async def close(self) -> None:
        pass


@pytest.fixture
async def session():
    made = Session(Credentials())
    yield made
    await made.close()


async def test_a_descriptor_that_the_event_loop_has_closed_is_given_up(session):
    """The next file with its number stays open, and nothing warns of a socket that was not closed."""
    stale = session._new_socket(ADDRESS)
    number = stale.fileno()
    os.close(number)
    with Path(os.devnull).open("rb") as other:  # noqa: ASYNC230  it is no I/O
        assert other.fileno() == number
        session._new_socket(ADDRESS).close()
        assert stale.fileno() == -1
        del stale
        gc.collect()
        assert os.fstat(other.fileno()).st_rdev


async def test_a_session_that_is_closed_leaves_no_socket_open(session):
    """Also one whose connection was never made."""
    made = session._new_socket(ADDRESS)
    made.close()
    await session.close()
    assert session._open_sockets() == []
