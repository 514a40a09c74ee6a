"""What the faults happen to: a control plane, the daemon behind a proxy, its disk, its clock, and its supervisor.

The daemon is started again whenever it has ended, as Kubernetes would do it.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from driftwatch.localcluster import Component, LocalCluster, StateError

from tests.support.clock import Clock
from tests.support.daemon import CANNOT_START, CRASHES, Daemon, parsed
from tests.support.disk import small_disk
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.live import Live
from tests.support.manifests import manifest
from tests.support.own_cluster import own_cluster
from tests.support.store import Store

DISK_MEGABYTES = 64
LOOK_SECONDS = 0.1
NO_AUDIT = "24h"  # it would mend, and hide, what no event has told of
ACCOUNT = "driftwatch"
TOKEN_SECONDS = 48 * 3600


class Supervisor:
    """Starts the daemon, and again whenever it has ended, unless it is held down."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._lock = threading.RLock()
        self._is_wanted = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")
        self._thread.start()
        self.starts = 0
        self.unable: list[str] = []  # what it said when it could not begin
        self.crashed: list[str] = []  # how it ended by itself otherwise

    @property
    def pid(self) -> int | None:
        """The daemon's process id while it runs."""
        with self._lock:
            process = self._daemon._process
            return process.pid if process is not None and process.poll() is None else None

    def kill(self) -> None:
        """End the daemon by force, and hold it down."""
        with self._lock:
            self._is_wanted = False
            self._daemon.kill()

    def stop(self) -> None:
        """End the daemon as its operator does, and hold it down; it must end well, and in time."""
        with self._lock:
            self._is_wanted = False
            self._look()
            began = bool(self._daemon.log())  # before it does, nobody listens for the signal
            try:
                self._daemon.stop()
            except AssertionError as error:
                if began:
                    self.crashed.append(f"told to stop: {error}")

    def allow(self) -> None:
        """Let the daemon run again."""
        self._is_wanted = True

    def close(self) -> None:
        """Start it no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                self._look()
                if self._is_wanted and self._daemon._process is None:
                    self._daemon.start(ready=False)
                    self.starts += 1

    def _look(self) -> None:
        """Note down how the daemon has ended, if it has."""
        process = self._daemon._process
        if process is None or process.poll() is None:
            return
        last = self._daemon.last_lines()
        status = self._daemon.wait_exit()
        if status == 1 and self._daemon.events(CANNOT_START):
            self.unable.append(last)
        else:
            self.crashed.append(f"exit status {status}\n{last}")


class Stage:
    """Everything that can be hurt. `disk` and `clock` are None where this machine does not allow it."""

    def __init__(
        self,
        cluster: LocalCluster,
        live: Live,
        proxy: FaultProxy,
        daemon: Daemon,
        disk: Path | None,
        clock: Clock | None,
        folder: Path,
    ) -> None:
        self.cluster = cluster
        self.live = live
        self.proxy = proxy
        self.daemon = daemon
        self.disk = disk
        self.clock = clock
        self.folder = folder
        self.store = Store(cluster)
        self.supervisor = Supervisor(daemon)
        self.tally: Counter[str] = Counter()
        self._read = 0

    def kill(self, component: Component) -> None:
        """Kill a process of the control plane, if it runs."""
        with contextlib.suppress(StateError):
            self.cluster.kill(component)

    def start(self, component: Component) -> None:
        """Start a process of the control plane, if it does not run, without waiting for it."""
        self.cluster.start(component, wait=False)

    def mend(self) -> None:
        """Have every process run, and the control plane be ready."""
        for component in Component:
            self.cluster.start(component)
        self.supervisor.allow()

    def desired_process(self) -> int | None:
        """Process id of the desired-state process, if it runs."""
        pid = self.supervisor.pid
        if pid is None:
            return None
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(pid).children():
                if "driftwatch.desired" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    return child.pid
        return None

    def complaints(self) -> list[str]:
        """What no fault excuses, of what the daemon has written since the last time: crashes of its parts."""
        with (self.daemon.folder / "daemon.log").open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._read += len(whole)
        found = [line for line in whole.decode().splitlines() if parsed(line)["event"] in CRASHES]
        found += [f"the daemon has ended: {words}" for words in self.supervisor.crashed]
        self.supervisor.crashed.clear()
        return found


def _kubeconfig(cluster: LocalCluster, live: Live, folder: Path) -> Path:
    """A service account that may do everything, by RBAC: an administrator's certificate is above the authorizer."""
    account = manifest("v1", "ServiceAccount", ACCOUNT, "default")
    binding = manifest(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        ACCOUNT,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
    )
    for needed in (account, binding):
        live.patch(needed, needed, manager="tests", kind="apply")
    wanted = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    code, found = live.request("POST", f"{live.path(account)}/token", wanted)
    assert code == 201, found
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": found["status"]["token"]}
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))
    return file


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Everything in one folder; no process and no mount of it is left at the end."""
    with ExitStack() as stack:
        cluster = stack.enter_context(own_cluster(folder / "cluster"))
        (folder / "credentials").mkdir()
        live = stack.enter_context(contextlib.closing(Live(cluster.kubeconfig, folder / "credentials")))
        proxy = stack.enter_context(fault_proxy(_kubeconfig(cluster, live, folder), folder / "proxy"))
        disk = clock = None
        with contextlib.suppress(pytest.skip.Exception):
            disk = stack.enter_context(small_disk(folder / "disk", megabytes=DISK_MEGABYTES))
        with contextlib.suppress(pytest.skip.Exception):
            clock = Clock(folder)
        (folder / "daemon").mkdir()
        daemon = Daemon(folder / "daemon", live, proxy.kubeconfig, name="chaos", options={"prune": True})
        daemon.forked = False  # what is hurt is what operators start
        daemon.configuration["drift"] = {"audit": NO_AUDIT}
        if disk is not None:
            daemon.configuration["state"]["directory"] = str(disk)
        if clock is not None:
            daemon.environment |= clock.environment
        stack.callback(daemon.kill)
        scene = Stage(cluster, live, proxy, daemon, disk, clock, folder)
        stack.callback(scene.supervisor.close)
        yield scene
        scene.supervisor.close()
        daemon.stop()
