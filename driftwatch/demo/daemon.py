"""Runs the daemon as a subprocess and reads its log."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from driftwatch.demo.errors import DemoError
from driftwatch.demo.repository import MANIFESTS
from driftwatch.localcluster import processes

SOURCE = "driftwatch-demo"  # unlikely to be a source's name on the same cluster
GIT_SECONDS = 1.0  # interval at which it polls Git
STOP_SECONDS = 15.0  # the daemon itself stops within ten
POLL_SECONDS = 0.02
_LAST_WORDS = 15  # lines

Line = dict[str, Any]


class Daemon:
    """`driftwatch run` with its log in a file. `lines` has every event read so far, oldest first."""

    def __init__(self, folder: Path, repository: Path, kubeconfig: str | None, context: str | None) -> None:
        self.log = folder / "driftwatch.log"
        self.lines: list[Line] = []
        self._folder = folder
        self._file = folder / "driftwatch.yaml"
        self._config = {
            "cluster": {
                name: value for name, value in (("kubeconfig", kubeconfig), ("context", context)) if value is not None
            },
            "server": {"listen": "127.0.0.1:0"},
            "state": {"directory": str(folder / "state")},
            "sources": [
                {
                    "name": SOURCE,
                    "repository": str(repository),
                    "path": MANIFESTS,
                    "interval": f"{GIT_SECONDS:g}s",
                }
            ],
        }
        self._process: processes.ProcessRecord | None = None
        self._read = 0

    def start(self) -> None:
        """Start the process. The kernel ends it if the demo is killed (on Linux)."""
        self._file.write_text(yaml.safe_dump(self._config, sort_keys=False), encoding="utf-8")
        self._read = self.log.stat().st_size if self.log.exists() else 0
        command = [sys.executable, "-m", "driftwatch", "run", "--config", str(self._file), "--log-format", "json"]
        self._process = processes.spawn(command, self.log, self._folder, detach=False)

    def stop(self) -> None:
        """Stop the process if it runs."""
        if self._process is not None:
            processes.stop(self._process, STOP_SECONDS)
            self._process = None

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and processes.find(self._process) is not None

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return self._process.pid if self._process else 0

    def poll(self) -> list[Line]:
        """Read what was logged since the last call. Returns the new events."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        complete = content[: content.rfind(b"\n") + 1]  # the last line may be incomplete
        self._read += len(complete)
        new = [line for text in complete.splitlines() if (line := _parsed(text)) is not None]
        self.lines += new
        return new

    def wait(self, wanted: Callable[[list[Line]], bool], since: int, seconds: float) -> bool:
        """Wait until `wanted` is true of the events from index `since` on; False if it is not after `seconds`.

        Raises `DemoError` if the process ends.
        """
        deadline = time.monotonic() + seconds
        while True:
            running = self.running
            self.poll()
            if wanted(self.lines[since:]):
                return True
            if not running:
                raise DemoError(f"driftwatch has ended by itself. Its last words:\n{self.last_words()}")
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """The end of the log, indented."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-_LAST_WORDS:])

    @property
    def address(self) -> str:
        """Address of its HTTP endpoints, "" before it listens."""
        return next((f"http://{line['address']}" for line in self.lines if line["event"] == "listening"), "")


def _parsed(text: bytes) -> Line | None:
    """Parse an event; None for anything but JSON, such as an interpreter message."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "event" in line else None
