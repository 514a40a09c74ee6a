"""Layout of a cluster's directory, and the file that records its ports and processes."""

import errno
import random
import socket
from enum import StrEnum
from pathlib import Path

import msgspec

from driftwatch.files import write_private
from driftwatch.localcluster.errors import PortTakenError, StartError, StateError
from driftwatch.localcluster.processes import ProcessRecord

# Below the kernel's range for outgoing connections (from 32768 on Linux), so that a port stays free while its
# cluster is down; above the ports of well-known services.
FIRST_PORT, LAST_PORT = 20000, 29999


class Component(StrEnum):
    """A process of the control plane, in start order."""

    ETCD = "etcd"
    APISERVER = "kube-apiserver"
    CONTROLLER_MANAGER = "kube-controller-manager"


class Ports(msgspec.Struct):
    """The cluster's loopback ports, fixed from its first start until its deletion."""

    apiserver: int
    controller_manager: int
    etcd: int
    etcd_peer: int

    def of(self, component: Component) -> tuple[int, ...]:
        """Ports that `component` listens on."""
        match component:
            case Component.ETCD:
                return self.etcd, self.etcd_peer
            case Component.APISERVER:
                return (self.apiserver,)
            case Component.CONTROLLER_MANAGER:
                return (self.controller_manager,)


class State(msgspec.Struct):
    """Contents of `cluster.json`.

    `kubectl` is the path of a matching one. `processes` are those of the last start, even if they no longer run.
    """

    ports: Ports
    kubectl: str = ""
    processes: dict[Component, ProcessRecord] = {}


class Layout:
    """Paths in a cluster's directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "cluster.json"
        self.lock = root / ".lock"
        self.kubeconfig = root / "kubeconfig"
        self.audit_log = root / "audit.log"
        self.pki = root / "pki"
        self.etcd = root / "etcd"
        self.logs = root / "logs"
        self.audit_policy = root / "audit-policy.yaml"
        self.controller_manager_kubeconfig = root / "controller-manager.kubeconfig"

    def log(self, component: Component) -> Path:
        """Log file with the standard output and error of `component`."""
        return self.logs / f"{component}.log"

    @property
    def folders(self) -> tuple[Path, ...]:
        """The directories that the cluster fills."""
        return self.pki, self.etcd, self.logs

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the cluster writes. The state file is last: an interrupted deletion can be repeated."""
        return (
            self.kubeconfig,
            self.audit_log,
            self.audit_policy,
            self.controller_manager_kubeconfig,
            self.lock,
            self.state,
        )

    def load(self) -> State | None:
        """The recorded state; None if the directory holds no cluster. Raises `StateError` if it cannot be parsed."""
        try:
            content = self.state.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return msgspec.json.decode(content, type=State)
        except msgspec.DecodeError as error:
            raise StateError(
                f"{self.state} cannot be read ({error}). If its processes are gone, remove the folder and start anew."
            ) from error

    def save(self, state: State) -> None:
        """Write `state` to the state file."""
        write_private(self.state, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def _listen(port: int) -> None:
    """Listen on loopback port `port` briefly. Raises `OSError` if that is impossible."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Go's listeners do: lingering connections of an earlier run do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen(1)


def _is_free(port: int) -> bool:
    try:
        _listen(port)
    except OSError:
        return False
    return True


def choose_ports(apiserver: int | None) -> Ports:
    """Four free ports. The API server's is `apiserver` if given, whether or not it is free."""
    # Drawn at random instead of counted up, so that clusters started at the same time get different ones.
    draw = random.SystemRandom().sample(range(FIRST_PORT, LAST_PORT + 1), 200)
    free = (port for port in draw if port != apiserver and _is_free(port))
    try:
        return Ports(
            apiserver=apiserver or next(free),
            controller_manager=next(free),
            etcd=next(free),
            etcd_peer=next(free),
        )
    except StopIteration:
        raise StartError(f"no free port found between {FIRST_PORT} and {LAST_PORT} on 127.0.0.1") from None


def require_free(component: Component, ports: tuple[int, ...]) -> None:
    """Raise `PortTakenError` if `component` cannot listen on one of `ports`."""
    reconciler = "name another one (--port)" if component is Component.APISERVER else "end what listens there"
    for port in ports:
        try:
            _listen(port)
        except OSError as error:
            why = (
                "is taken by another process"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used ({error.strerror})"
            )
            raise PortTakenError(f"port {port} on 127.0.0.1, which {component} needs, {why}: {reconciler}") from error
