"""A local control plane in a directory: start, inspect, fault injection, stop."""

import datetime as dt
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftwatch.file_lock import LockHeldError, locked
from driftwatch.files import make_private_folder, write_private
from driftwatch.localcluster import configuration, processes
from driftwatch.localcluster.binaries import Binaries, ensure_binaries
from driftwatch.localcluster.certificates import Pki
from driftwatch.localcluster.errors import StartError, StateError
from driftwatch.localcluster.layout import Component, Layout, State, choose_ports, require_free
from driftwatch.localcluster.probe import Probe
from driftwatch.tools.progress import Progress, Silent

START_SECONDS = 60.0
# Time limit for a component to end after SIGTERM. The API server completes requests, etcd flushes its data.
STOP_SECONDS = 10.0
_LOCK_SECONDS = 120.0
_POLL_SECONDS = 0.02
_TAIL_LINES = 15


@dataclass(frozen=True)
class ComponentStatus:
    """One component: its process id while it runs, and what it waits for (None if ready or stopped)."""

    component: Component
    pid: int | None
    waits_for: str | None


@dataclass(frozen=True)
class ClusterStatus:
    """State of a cluster at one moment. `exists` is false if the directory holds no cluster."""

    directory: Path
    exists: bool
    server: str | None
    components: tuple[ComponentStatus, ...]

    @property
    def running(self) -> bool:
        """Whether every component runs and is ready."""
        return self.exists and all(item.pid is not None and item.waits_for is None for item in self.components)


class LocalCluster:
    """etcd, kube-apiserver and kube-controller-manager with their data in one directory.

    Several clusters can run at once, each in its own directory. All state is in the directory, none in this object, so
    any process may stop what another has started.
    """

    def __init__(self, directory: Path | str, progress: Progress | None = None) -> None:
        self._layout = Layout(Path(directory).absolute())
        self._progress = progress or Silent()
        self._binaries: Binaries | None = None

    @property
    def directory(self) -> Path:
        """The cluster's directory."""
        return self._layout.root

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file, written by `up`."""
        return self._layout.kubeconfig

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one JSON event a line, written when a request is complete, never rotated."""
        return self._layout.audit_log

    @property
    def server(self) -> str:
        """URL of the API server. Raises `StateError` before the first `up`."""
        return configuration.server_url(self._state().ports)

    @property
    def binaries(self) -> Binaries:
        """The programs. Finding them may compile them. Raises `BinariesError`."""
        if self._binaries is None:
            self._binaries = ensure_binaries(self._progress)
        return self._binaries

    @property
    def kubectl(self) -> Path:
        """A kubectl of the cluster's version: the one recorded by `up`, without a search for the other programs."""
        state = self._layout.load()
        noted = Path(state.kubectl) if state and state.kubectl else None
        return noted if noted and noted.exists() else self.binaries.kubectl

    def log(self, component: Component) -> Path:
        """Log file with the standard output and error of `component`."""
        return self._layout.log(component)

    def up(
        self,
        *,
        port: int | None = None,
        detach: bool = False,
        fsync: bool = False,
        timeout: float = START_SECONDS,
    ) -> None:
        """Start every component that does not run, and return when all are ready. Running components are unaffected.

        `port` is the API server's; by default a free one is chosen on the first start and kept. With `detach` the
        processes outlive this one; otherwise the kernel kills them when it ends. Without `fsync` etcd leaves it to
        the kernel when data is written to disk, and only a crash of the machine loses data. `timeout` is in seconds
        and applies to the start, not to finding the programs. Raises `LocalClusterError`, after stopping what it
        started.
        """
        binaries = self.binaries
        self._make_folder()
        with self._locked():
            state = self._prepare(port, binaries)
            started: list[Component] = []
            deadline = time.monotonic() + timeout
            try:
                for component in Component:
                    if not _runs(state, component):
                        self._spawn(state, component, binaries, detach=detach, fsync=fsync)
                        started.append(component)
                    self._await(state, component, deadline)
            except BaseException:
                self._stop(state, started)
                raise

    def down(self, *, delete: bool = False) -> None:
        """Stop all components; keep the data unless `delete`. Do nothing if the directory holds no cluster."""
        if self._layout.load() is None:
            return
        with self._locked():
            state = self._layout.load()
            if state is None:
                return
            self._stop(state, list(Component))
            if delete:
                self._delete()

    def status(self) -> ClusterStatus:
        """Return which components run and whether they are ready."""
        state = self._layout.load()
        if state is None:
            return ClusterStatus(self.directory, exists=False, server=None, components=())
        pids = {component: state.processes[component].pid for component in Component if _runs(state, component)}
        probe = Probe(Pki(self._layout.pki), state.ports) if pids else None
        return ClusterStatus(
            self.directory,
            exists=True,
            server=configuration.server_url(state.ports),
            components=tuple(
                ComponentStatus(
                    component, pids.get(component), probe.waits_for(component) if probe and component in pids else None
                )
                for component in Component
            ),
        )

    def kill(self, component: Component, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one component, for fault tests. Wait for its end if the signal ends it.

        Raises `StateError` if it does not run, or does not end.
        """
        record = self._state().processes.get(component)
        if record is None or not processes.send(record, number):
            raise StateError(f"{component} does not run")
        ends = number in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT}
        if ends and not processes.wait_gone(record, STOP_SECONDS):
            raise StateError(f"{component} did not end within {STOP_SECONDS:.0f} s of {number.name}")

    def start(
        self,
        component: Component,
        *,
        detach: bool = False,
        fsync: bool = False,
        wait: bool = True,
        timeout: float = START_SECONDS,
    ) -> None:
        """Start one stopped component as `up` does. With `wait`, return when it is ready.

        `timeout` is in seconds.
        """
        with self._locked():
            state = self._state()
            if not _runs(state, component):
                self._spawn(state, component, self.binaries, detach=detach, fsync=fsync)
            if wait:
                self._await(state, component, time.monotonic() + timeout)

    def _state(self) -> State:
        state = self._layout.load()
        if state is None:
            raise StateError(f"{self.directory} holds no cluster: start one there with `driftwatch cluster up`")
        return state

    @contextmanager
    def _locked(self) -> Iterator[None]:
        def waiting() -> None:
            self._progress.note(f"Another command works on {self.directory}; waiting for it.")

        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self._layout.lock, _LOCK_SECONDS, waiting))
            except LockHeldError as error:
                raise StateError(f"another command works on {self.directory}, and does not end: end it") from error
            except FileNotFoundError as error:
                raise StateError(f"{self.directory} is not there, or was deleted by another command") from error
            yield

    def _make_folder(self) -> None:
        """Create the directory. Raises `StateError` if it holds unrelated files."""
        layout = self._layout
        try:
            make_private_folder(layout.root)
            others = [item.name for item in layout.root.iterdir() if item != layout.lock]
        except OSError as error:
            raise StateError(f"{layout.root} cannot be used: {error.strerror}") from error
        if others and not layout.state.exists() and not layout.lock.exists():
            raise StateError(f"{layout.root} holds other files: name an empty folder, or one that does not exist")

    def _prepare(self, port: int | None, binaries: Binaries) -> State:
        """Choose ports, and write certificates and configuration files."""
        layout = self._layout
        state = layout.load() or State(choose_ports(port))
        if port is not None and port != state.ports.apiserver:
            if _runs(state, Component.APISERVER):
                raise StateError(
                    f"the cluster runs on port {state.ports.apiserver}: stop it before it can move to {port}"
                )
            state.ports.apiserver = port
        state.kubectl = str(binaries.kubectl)
        layout.save(state)
        for folder in layout.folders:
            make_private_folder(folder)
        pki = Pki(layout.pki)
        if not _runs(state, Component.APISERVER):
            pki.ensure(dt.datetime.now(dt.UTC))
        write_private(layout.audit_policy, configuration.audit_policy())
        for path, user in (
            (layout.kubeconfig, "admin"),
            (layout.controller_manager_kubeconfig, "controller-manager"),
        ):
            write_private(path, configuration.kubeconfig(pki, state.ports, user))
        return state

    def _spawn(self, state: State, component: Component, binaries: Binaries, *, detach: bool, fsync: bool) -> None:
        layout = self._layout
        require_free(component, state.ports.of(component))
        command = configuration.command(component, binaries, layout, state.ports, fsync=fsync)
        state.processes[component] = processes.spawn(command, layout.log(component), layout.root, detach=detach)
        layout.save(state)

    def _await(self, state: State, component: Component, deadline: float) -> None:
        probe = Probe(Pki(self._layout.pki), state.ports)
        while (missing := probe.waits_for(component)) is not None:
            if not _runs(state, component):
                raise StartError(f"{component} ended while starting. {self._last_words(component)}")
            if time.monotonic() >= deadline:
                raise StartError(f"{component} is not ready; it waits for {missing}. {self._last_words(component)}")
            time.sleep(_POLL_SECONDS)

    def _last_words(self, component: Component) -> str:
        log = self._layout.log(component)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return f"The last lines of {log}:\n" + "\n".join(f"    {line}" for line in lines)

    def _stop(self, state: State, components: list[Component]) -> None:
        """Stop the API server first, so that it does not serve while etcd stops; etcd last."""
        for component in (Component.APISERVER, Component.CONTROLLER_MANAGER, Component.ETCD):
            record = state.processes.get(component)
            if component in components and record is not None:
                processes.stop(record, STOP_SECONDS)
                del state.processes[component]
        self._layout.save(state)

    def _delete(self) -> None:
        """Remove the cluster's files, and the directory if it is then empty."""
        for folder in self._layout.folders:
            shutil.rmtree(folder, ignore_errors=True)
        for file in self._layout.files:
            file.unlink(missing_ok=True)
        if not any(self.directory.iterdir()):
            self.directory.rmdir()


def _runs(state: State, component: Component) -> bool:
    record = state.processes.get(component)
    return record is not None and processes.find(record) is not None
