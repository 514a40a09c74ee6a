"""Clients of the daemon's own port that say nothing, or take nothing in: healing and probes go on."""

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from driftwatch.web.connections import HANDSHAKE_SECONDS, MOST_CONNECTIONS
from tests.support.daemon import Daemon
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon
from tests.support.self_signed import write_pair

SILENT = MOST_CONNECTIONS + 120
DESCRIPTORS = 400  # fewer than there are silent clients and what the daemon itself has open
FOR_ITSELF = 40  # connections to the API server, pipes, files: as many as a daemon at work may open meanwhile
SECONDS = 10.0  # a third of what a silent client has
LONG = 90.0
ROUNDS = 4  # with more in so short a time the object would be contested


@contextmanager
def silent_clients(address: str, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """More connections than the daemon keeps, each of which has said no more than this."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        clients = []
        for _ in range(SILENT):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=SECONDS))
            with contextlib.suppress(ConnectionError):  # it has made room for a later one already
                client.sendall(said)
            clients.append(client)
        yield clients


def slow_reader(address: str, context: ssl.SSLContext | None) -> socket.socket:
    """A client that asks for the metrics and takes in next to nothing of them."""
    host, _, port = address.rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(SECONDS)
    client.connect((host, int(port)))
    if context is not None:
        client = context.wrap_socket(client, server_hostname=host)
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


def assert_answers(daemon: Daemon, path: str) -> None:
    """Whoever asks is answered within seconds."""
    began = time.monotonic()
    code, _ = daemon.get(path)
    assert code == 200
    assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_f07_silent_and_slow_clients(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str, tls: bool
) -> None:
    """More silent clients than there may be connections, and a slow reader of the metrics: nobody is kept waiting.

    What is deleted comes back, probe and scrape are answered, the state is written, and descriptors do not run out.
    """
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    context = None
    if tls:
        certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
        write_pair(certificate, key, "driftwatch")
        daemon.configuration["server"] |= {"certificateFile": str(certificate), "keyFile": str(key)}
        daemon.trust(certificate)
        context = ssl.create_default_context(cafile=certificate)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start(ready=False)
    daemon.wait(daemon.is_ready, "the daemon is ready", timeout=LONG)
    daemon.wait_in_sync(settings)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    address = daemon.events("listening")[-1]["address"]
    process = psutil.Process(daemon.pid)
    before = process.num_fds()

    with (
        slow_reader(address, context),
        silent_clients(address),
        silent_clients(address, b"\x16\x03" if tls else b"GET /"),
    ):
        for _ in range(ROUNDS):
            uid = live.uid(settings)
            live.request("DELETE", live.path(settings))
            daemon.wait(lambda uid=uid: live.uid(settings) not in ("", uid), "it is back", timeout=SECONDS)
            assert_answers(daemon, "/healthz")
            assert_answers(daemon, "/metrics")
            assert process.num_fds() <= before + MOST_CONNECTIONS + FOR_ITSELF
            time.sleep(HANDSHAKE_SECONDS / 2)  # in the end the first of them have been given up, and more have room
    troubles = [line for line in daemon.log() if line["level"] in ("warning", "error")]
    assert {line["event"] for line in troubles} == {"drift healed"}
    daemon.wait(lambda: process.num_fds() <= before + FOR_ITSELF, "the connections are closed")
