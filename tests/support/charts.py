"""Real chart repositories: an HTTP server with an index, and an OCI registry; both on loopback, both can be ended."""

import base64
import functools
import http.server
import re
import subprocess
import threading
from pathlib import Path

from driftwatch.tools import HELM, ensure

from tests.support.rendering import CHART
from tests.support.tools import REGISTRY
from tests.support.waiting import until

USER, PASSWORD = "robot", "sesame-7531"


def package(folder: Path, version: str, **values: int) -> Path:
    """Package the chart, with other values, as an archive."""
    source = folder / f"source-{version}"
    for name, text in CHART.items():
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("version: 1.2.3", f"version: {version}"))
    if values:
        (source / "shop/values.yaml").write_text("".join(f"{key}: {value}\n" for key, value in values.items()))
    helm("package", str(source / "shop"), f"--destination={folder}")
    return folder / f"shop-{version}.tgz"


def helm(*arguments: str) -> str:
    """Run helm."""
    done = subprocess.run([ensure(HELM).path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files to who knows the password, and counts the requests."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.server.closed and self.headers.get("Authorization") != expected:
            self.send_error(401, "who are you")
            return
        super().do_GET()

    def log_message(self, *arguments) -> None:
        """Say nothing."""


class HttpRepository:
    """A folder of charts, served over HTTP; `closed` asks for a password."""

    def __init__(self, folder: Path, *, closed: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        handler = functools.partial(_Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.closed = closed
        self._server.paths = self.paths = []
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def publish(self, version: str, **values: int) -> None:
        """Add a version of the chart."""
        package(self.folder, version, **values)
        helm("repo", "index", str(self.folder), f"--url={self.url}")

    def stop(self) -> None:
        """Be gone."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Registry:
    """An OCI registry without TLS, in memory, on a port of its own choice."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._log = folder / "registry.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [ensure(REGISTRY).path, "-port=0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        port = until(lambda: re.search(r"serving on port (\d+)", self._log.read_text()), "the registry serves")[1]
        self.url = f"oci://localhost:{port}/charts"

    def publish(self, version: str, **values: int) -> None:
        """Push a version of the chart."""
        helm("push", str(package(self._folder, version, **values)), self.url, "--plain-http")

    def stop(self) -> None:
        """Be gone."""
        self._process.kill()
        self._process.wait()
