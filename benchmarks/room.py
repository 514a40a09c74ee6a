"""One control plane with the probe and the floor, and with daemons and toy loops on request.

The contenders run at the same time, each in its own namespace. The probe disturbs only one of them at a time. So the
repetitions alternate between floor and daemon. If the machine's speed changes during the run, it changes for both.
"""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from driftwatch.localcluster import LocalCluster, Progress

from benchmarks import objects
from benchmarks.children import Child, ChildError
from benchmarks.repository import Repository

START_SECONDS = 60.0
FLOOR_NAMESPACE = "floor"
READY_POLL = 0.02  # seconds
ANSWER_SECONDS = 30.0
TOY_PERIOD = 5.0  # seconds
KUBECTL_SECONDS = 60.0


class Room:
    """A context manager: within the context the control plane, the probe and the floor run."""

    def __init__(self, folder: Path, progress: Progress, burst: int, namespaces: list[str]) -> None:
        self.folder = folder
        self.progress = progress
        self._burst = burst
        self._namespaces = [FLOOR_NAMESPACE, *namespaces]
        self._stack = ExitStack()
        self.probe: Child
        self.floor: Child
        self.cluster = LocalCluster(folder / "cluster", progress)

    def __enter__(self) -> Self:
        with self._stack:
            self.folder.mkdir(parents=True)
            self._stack.callback(self.cluster.down, delete=True)
            self.cluster.up()
            for namespace in self._namespaces:
                self.kubectl("create", "namespace", namespace)
            kubeconfig = str(self.cluster.kubeconfig)
            self.floor = self.python("floor", kubeconfig, FLOOR_NAMESPACE, str(self._burst), talks=True)
            self.floor.hear(START_SECONDS)
            self.probe = self.python("probe", kubeconfig, talks=True)
            self.probe.hear(START_SECONDS)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def kubectl(self, *arguments: str) -> bytes:
        """Run kubectl as the administrator."""
        command = [str(self.cluster.binaries.kubectl), "--kubeconfig", str(self.cluster.kubeconfig), *arguments]
        done = subprocess.run(command, capture_output=True, timeout=KUBECTL_SECONDS, check=False)
        if done.returncode:
            raise ChildError(f"kubectl {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    def start(self, name: str, command: list[str], *, talks: bool = False) -> Child:
        """Start a process. It ends with the room at the latest."""
        child = Child(name, command, self.folder / f"{name}.log", talks=talks)
        self._stack.callback(child.stop)
        return child

    def python(self, module: str, *arguments: str, talks: bool = False) -> Child:
        """Start a module of this package."""
        return self.start(module, [sys.executable, "-m", f"benchmarks.{module}", *arguments], talks=talks)

    def daemon(self, name: str, repository: Repository, interval: str = "30s") -> "Daemon":
        """Return a daemon over a source called `name`. It is not started yet."""
        return Daemon(self, name, repository, interval)

    def toy(self, repository: Repository) -> Child:
        """Start the toy loop."""
        clone = repository.clone(self.folder / "toy-clone")
        script = Path(__file__).with_name("toy-loop.sh")
        kubectl, kubeconfig = self.cluster.binaries.kubectl, self.cluster.kubeconfig
        return self.start("toy", ["/bin/sh", str(script), str(clone), str(kubectl), str(kubeconfig), str(TOY_PERIOD)])

    def ask(self, what: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send the probe a command."""
        return self.probe.ask({"do": what, **arguments}, timeout)

    def settle(self) -> None:
        """Wait until the controllers have finished."""
        self.ask("quiet", 60.0, seconds=0.15)


class Daemon:
    """`driftwatch run` over one repository and `more` sources. It can be started repeatedly."""

    def __init__(
        self, room: Room, name: str, repository: Repository, interval: str, more: Sequence[dict[str, str]] = ()
    ) -> None:
        self._room = room
        self._name = name
        self._port = _free_port()
        self._child: Child | None = None
        self._file = room.folder / f"{name}.yaml"
        self._file.write_text(
            yaml.safe_dump(
                {
                    "cluster": {"kubeconfig": str(room.cluster.kubeconfig)},
                    "server": {"listen": f"127.0.0.1:{self._port}"},
                    "state": {"directory": str(room.folder / f"{name}-state")},
                    "sources": [{"name": name, "repository": str(repository.folder), "interval": interval}, *more],
                }
            )
        )

    @property
    def child(self) -> Child:
        """The running process."""
        assert self._child is not None
        return self._child

    @property
    def address(self) -> str:
        """The address of its HTTP server."""
        return f"127.0.0.1:{self._port}"

    def start(self, timeout: float = START_SECONDS) -> float:
        """Start the daemon and wait until it is ready. Returns the seconds from the start of the process until then."""
        began = time.monotonic()
        command = [sys.executable, "-m", "driftwatch", "run", "--config", str(self._file)]
        self._child = self._room.start(f"daemon-{self._name}", command)
        while time.monotonic() - began < timeout:
            if self._ready():
                return time.monotonic() - began
            self._child.require_alive()
            time.sleep(READY_POLL)
        raise ChildError(f"the daemon over {self._name} was not ready within {timeout:.0f} s")

    def stop(self) -> None:
        """Stop the daemon like an operator does."""
        self.child.stop()

    def told(self, family: str) -> float:
        """The value of a metric: the sum of all samples with this name."""
        lines = http_get(self.address, "/metrics")[1].decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.partition(" ")[0].partition("{")[0] == family)

    def _ready(self) -> bool:
        try:
            return http_get(self.address, "/readyz")[0] == http.HTTPStatus.OK
        except OSError:
            return False


def http_get(address: str, path: str, **headers: str) -> tuple[int, bytes]:
    """Status and body of one response, over a new connection."""
    connection = http.client.HTTPConnection(address, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def repository_of(room: Room, name: str, bodies: list[objects.Body]) -> Repository:
    """Make a repository in the room that declares `bodies`."""
    repository = Repository(room.folder / f"{name}-repository")
    repository.commit(objects.files(bodies), "Declare everything")
    return repository


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
