"""Git over https as a host serves it: git's own `http-backend` behind TLS and basic authentication; and a proxy."""

import base64
import os
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


def basic(username: str, password: str) -> str:
    """What a client sends for these credentials."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class GitHost:
    """Serves the repositories below `root`; `credentials` may change while it runs, None wants none.

    `requests` are method, path and credentials of all requests. While `answer` is set, it is the status of every
    answer; where `redirect` is set, the address that every request is sent to; while `answering` is cleared, nothing
    is answered.
    """

    def __init__(self, root: Path, context: ssl.SSLContext | None = None) -> None:
        self.credentials: tuple[str, str] | None = None
        self.requests: list[tuple[str, str, str]] = []
        self.answer = 0
        self.redirect = ""
        self.answering = threading.Event()
        self.answering.set()
        self.root = root
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_GitHandler,), {"host": self}))
        self.server.daemon_threads = True
        if context is not None:
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.scheme = "http" if context is None else "https"

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self.server.server_address[1])

    def url(self, name: str) -> str:
        """Address of a repository below `root`."""
        return f"{self.scheme}://127.0.0.1:{self.port}/{name}"


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _GitHandler(BaseHTTPRequestHandler):
    host: ClassVar[GitHost]
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_arguments: object) -> None:
        pass

    def _serve(self) -> None:
        host, given = self.host, self.headers.get("Authorization", "")
        host.requests.append((self.command, self.path, given))
        host.answering.wait(60)
        if host.redirect:
            self._empty(302, Location=host.redirect + self.path)
        elif host.answer:
            self._empty(host.answer)
        elif host.credentials is not None and given != basic(*host.credentials):
            self._empty(401, **{"WWW-Authenticate": 'Basic realm="git"'})
        else:
            self._backend()

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _backend(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.host.root), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
            "GIT_PROJECT_ROOT": str(self.host.root), "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": self.command,
            "PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }  # fmt: skip
        command = ["git", "http-backend"]
        done = subprocess.run(command, input=body, capture_output=True, check=False, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(fields.pop("Status", "200 OK").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Proxy:
    """An HTTP proxy that tunnels; `connects` are the addresses that it was asked for, with the credentials given."""

    def __init__(self) -> None:
        self.credentials: tuple[str, str] | None = None
        self.connects: list[tuple[str, str]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_ProxyHandler,), {"proxy": self}))
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        """Address of the proxy."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class _ProxyHandler(BaseHTTPRequestHandler):
    proxy: ClassVar[Proxy]
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_CONNECT(self) -> None:
        given = self.headers.get("Proxy-Authorization", "")
        self.proxy.connects.append((self.path, given))
        if self.proxy.credentials is not None and given != basic(*self.proxy.credentials):
            self.send_response(407)
            self.send_header("Proxy-Authenticate", 'Basic realm="proxy"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        name, _, port = self.path.rpartition(":")
        with socket.create_connection((name, int(port))) as upstream:
            self.send_response(200)
            self.end_headers()
            _tunnel(self.connection, upstream)
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        pass


def _tunnel(one: socket.socket, other: socket.socket) -> None:
    to = {one: other, other: one}
    with suppress(OSError):
        while True:
            ready, _, _ = select.select([one, other], [], [], 30)
            for side in ready:
                data = side.recv(65536)
                if not data:
                    return
                to[side].sendall(data)
            if not ready:
                return
