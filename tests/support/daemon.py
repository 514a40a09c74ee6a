"""The daemon as its operator meets it: a process, a configuration file, a Git repository, a log, metrics."""

import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fork_server import Forked, server
from tests.support.live import Live, Manifest
from tests.support.repository import Content, Repository
from tests.support.waiting import PATIENCE, until
from tests.support.waits import Waits

T = TypeVar("T")
_numbers = itertools.count(1)

COMMAND = [sys.executable, "-m", "driftwatch"]
BEFORE_THE_PROGRAM = {
    "LD_PRELOAD",
    "PYTHONPATH",
    "PYTHONHOME",
}  # variables that a process which runs takes no notice of
LAST_LINES = 25
STOP_SECONDS = 10.0
WRITES = ("create", "update", "patch", "delete", "deletecollection")
AGENT = "driftwatch/"


class Daemon:
    """`driftwatch run` with a state folder of its own; `stop` it at the end.

    Without `sources` it has one, called `name` or like no other's, with a repository of its own. `options` are settings
    of every source.
    """

    def __init__(
        self,
        folder: Path,
        live: Live,
        kubeconfig: Path,
        *,
        name: str = "",
        sources: Sequence[dict[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
        log_level: str = "info",
    ) -> None:
        self.folder = folder
        # The cluster is shared: what others' sources have left in it would be the orphans of one that has their name.
        self.source = name = name or f"shop-{next(_numbers)}"
        self._live = live
        self._log_level = log_level
        if sources is None:
            self.repository = Repository(folder / "git")
            sources = [{"name": name, "repository": str(self.repository.folder)}]
        self._log_file = folder / "daemon.log"
        self._log_file.touch()
        self.configuration = {
            "cluster": {"kubeconfig": str(kubeconfig)},
            "server": {"listen": "127.0.0.1:0"},
            "state": {"directory": str(folder / "state")},
            "sources": [{"interval": "250ms", **(options or {}), **source} for source in sources],
        }
        self.program = COMMAND
        self.forked = (
            True  # by the fork server; else, and whenever the interpreter is to begin otherwise, by its command
        )
        self.environment: dict[str, str] = {}  # beside what the tests run with
        self.log_format = "json"
        self._trusted: ssl.SSLContext | None = None
        self.waits: Waits = {}  # what it does not wait out at its full length
        self.raw_configuration = ""  # the file's text, where it is to be no mapping that makes sense
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._from = 0

    # --- Its life ---

    def start(self, *, ready: bool = True) -> "Daemon":
        """Start it; with `ready`, return when it says that it is."""
        assert self._process is None
        file = self.folder / "driftwatch.yaml"
        file.write_text(self.raw_configuration or yaml.safe_dump(self.configuration))
        self._from = self._log_file.stat().st_size
        options = [f"--config={file}", f"--log-format={self.log_format}", f"--log-level={self._log_level}"]
        environment = {**os.environ, "PYTHONWARNINGS": "default", **self.environment}
        with self._log_file.open("ab") as log:
            if self.forked and self.program == COMMAND and not BEFORE_THE_PROGRAM & self.environment.keys():
                self._process = server().fork(["run", *options], environment, (log, log), waits=self.waits)
            else:
                assert not self.waits, "only a daemon that is forked has shorter waits"
                self._process = subprocess.Popen(
                    [*self.program, "run", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
                )
        if ready:
            self.wait(self.is_ready, "the daemon is ready")
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Let it do nothing for a while: it then sees at once all that has happened."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def wait_exit(self, timeout: float = STOP_SECONDS) -> int:
        """Exit status; fails unless it ends within `timeout` seconds."""
        assert self._process is not None
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {timeout:.0f} s\n{self.last_lines()}") from None
        self._process = None
        return status

    def stop(self) -> None:
        """Stop it as its operator would.

        Fails on an exit status other than 0, and if anything crashed before, or a library complained.
        """
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            status = self.wait_exit()
        finally:
            self.kill()
        assert status == 0, f"exit status {status}\n{self.last_lines()}"
        crashes = [line for line in self.log() if line["event"] in ("", *CRASHES) or "logger" in line]
        assert not crashes, crashes

    def kill(self) -> None:
        """End it by force, if it still runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def is_ready(self) -> bool:
        """Whether /readyz says so."""
        assert self._process is None or self._process.poll() is None, f"the daemon has ended\n{self.last_lines()}"
        if not self.events("listening"):
            return False
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    # --- What it shows ---

    def log(self) -> list[dict[str, Any]]:
        """Log lines since the last start; one that is no JSON has it all under `text` and an empty `event`."""
        with self._log_file.open("rb") as stream:
            stream.seek(self._from)
            content = stream.read()
        return [parsed(line) for line in content[: content.rfind(b"\n") + 1].decode().splitlines()]

    def text(self) -> str:
        """All that it has ever written."""
        return self._log_file.read_text()

    def last_lines(self) -> str:
        """The end of the log, for failure messages."""
        return "\n".join(["last lines of the daemon's log:", *self.text().splitlines()[-LAST_LINES:]])

    def events(self, event: str, **fields: str) -> list[dict[str, Any]]:
        """Log lines of an event that have these fields."""
        return [line for line in self.log() if line["event"] == event and _has(line, fields)]

    def drifts(self, **fields: str) -> list[dict[str, Any]]:
        """Log lines that tell of drift, healed or not, with these fields."""
        return [line for line in self.log() if line["event"] in ("drift", "drift healed") and _has(line, fields)]

    def trust(self, certificate: Path) -> None:
        """Ask its HTTP server over TLS: it has this certificate."""
        self._trusted = ssl.create_default_context(cafile=certificate)

    def get(self, path: str) -> tuple[int, str]:
        """Ask its HTTP server. Returns the code and the text."""
        listening = self.events("listening")[-1]
        scheme, address = listening["scheme"], listening["address"]
        try:
            with urllib.request.urlopen(f"{scheme}://{address}{path}", timeout=10, context=self._trusted) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that have these labels."""
        _, text = self.get("/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and _has(sample.labels, labels)
        )

    def drift_total(self, **labels: str) -> float:
        """How much drift was counted."""
        return self.metric("driftwatch_drift_total", **labels)

    # --- What is awaited ---

    def wait(self, condition: Callable[[], T], what: str, *, timeout: float = PATIENCE) -> T:
        """Wait until something is so; its log is in the message when it never is."""
        return until(condition, what, timeout=timeout, evidence=self.last_lines)

    def commit(self, files: Mapping[str, Content]) -> str:
        """Commit to its repository."""
        return self.repository.commit(files)

    def declare(self, *manifests: Manifest, file: str) -> None:
        """Commit manifests as one file, and wait until the daemon has read it and the cluster is as they say."""
        commit = self.commit({file: list(manifests)})
        self.wait(lambda: self.events("snapshot", commit=commit[:12]), f"commit {commit[:12]} is read")
        self.wait_in_sync(*manifests)

    def wait_in_sync(self, *manifests: Manifest, source: str | None = None) -> None:
        """Wait until each object is as Git declares it."""
        for manifest in manifests:
            differences = [""]

            def is_in_sync(manifest: Manifest = manifest, differences: list[str] = differences) -> bool:
                differences[0] = self._live.difference(manifest, source or self.source)
                return not differences[0]

            until(
                is_in_sync,
                f"{manifest['kind']} {manifest['metadata']['name']} is in sync",
                evidence=lambda differences=differences: f"{differences[0]}\n{self.last_lines()}",  # type: ignore[misc]
            )

    def wait_drift(self, **fields: str) -> dict[str, Any]:
        """Wait for a log line that tells of healed drift with these fields; return it."""
        return self.wait(lambda: self.events("drift healed", **fields), f"drift healed: {fields}")[-1]


CANNOT_START = "cannot start"
CRASHES = (
    "audit failed unexpectedly; it goes on with the next object",
    "a part of the daemon crashed; it ends, to be started anew",
    "healing failed unexpectedly; it is tried again",
    "looking for a namespace failed unexpectedly; it is tried again",
    "pruning failed unexpectedly; it is tried again",
    "watch failed unexpectedly; it lists again",
)


def _has(line: Mapping[str, Any], fields: Mapping[str, str]) -> bool:
    return all(line.get(name) == value for name, value in fields.items())


def parsed(line: str) -> dict[str, Any]:
    """A log line; one that is no JSON has it all under `text` and an empty `event`."""
    try:
        return {"event": "", **json.loads(line)}
    except (ValueError, TypeError):
        return {"event": "", "text": line}
