"""The daemon's own machine: its clock jumps, its disk is full, it may open no more files."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.support.clock import Clock
from tests.support.daemon import Daemon
from tests.support.disk import small_disk
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon

pytestmark = pytest.mark.command
HOUR, DAY = 3600, 86400


def healed(daemon: Daemon, live: Live, manifest: Manifest) -> None:
    """Delete an object, wait until it is back, edit it, and wait until it is as it was."""
    uid = live.uid(manifest)
    live.request("DELETE", live.path(manifest))
    daemon.wait(lambda: live.uid(manifest) not in ("", uid), f"{manifest['metadata']['name']} is back")
    live.patch(manifest, {"data": {"colour": "green", "added": "x"}}, manager="kubectl-edit")
    daemon.wait_in_sync(manifest)
    daemon.wait(lambda: "added" not in live.get(manifest)["data"], "what was added is gone")


@pytest.mark.parametrize("seconds", [20 * HOUR, -20 * HOUR, 400 * DAY, -400 * DAY])
def test_f07_a_clock_that_jumps(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str, seconds: int
) -> None:
    """Ahead or back by hours, or by more than certificates are valid, and to the right time again: healing goes on.

    A commit is applied meanwhile, what nobody touched is not written to, and nothing is retried all the time.
    """
    clock = Clock(tmp_path)
    settings, untouched = config_map("settings", namespace), config_map("untouched", namespace)
    daemon = new_daemon()
    daemon.environment |= clock.environment
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, untouched]})
    daemon.start()
    daemon.wait_in_sync(settings, untouched)
    before = live.get(untouched)

    for number, offset in enumerate((seconds, 0)):
        clock.jump(offset)
        healed(daemon, live, settings)
        later = config_map(f"later-{number}", namespace)
        daemon.declare(later, file=f"later-{number}.yaml")
        healed(daemon, live, later)

    assert live.get(untouched) == before
    assert daemon.drifts(name="untouched") == []
    times = [line["timestamp"] for line in daemon.log()]
    assert (max(times) > times[-1]) == (seconds > 0), "the clock has not jumped"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", megabytes=8) as folder:
        yield folder


def test_f07_a_full_disk_and_a_restart_on_it(new_daemon: NewDaemon, live: Live, disk: Path, namespace: str) -> None:
    """Nothing can be written, neither state nor mirror: healing goes on, also in a daemon that starts on the full disk.

    When there is room, the state is kept again: drift from while the daemon was down is told as drift.
    """
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["state"]["directory"] = str(disk)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    [state] = daemon.wait(lambda: list(disk.glob("*/in-force.msgpack")), "the state is on disk")

    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    healed(daemon, live, settings)
    told = daemon.wait(lambda: daemon.events("state file cannot be written; it is tried again"), "the trouble is told")
    assert "No space left" in told[0]["error"]
    daemon.kill()
    daemon.start()
    healed(daemon, live, settings)

    saved = state.stat().st_mtime_ns
    ballast.unlink()
    healed(daemon, live, settings)
    daemon.wait(lambda: state.stat().st_mtime_ns > saved, "the state is kept again")
    daemon.stop()
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    daemon.start()
    daemon.wait_in_sync(settings)
    daemon.wait(lambda: daemon.drifts(name="settings"), "it is told")
    assert [line["type"] for line in daemon.drifts(name="settings")] == ["modified"]


@contextmanager
def no_descriptors(pid: int) -> Iterator[None]:
    """Let a process open nothing more, whatever it closes."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def desired_process(daemon: Daemon) -> int:
    """Process id of the desired-state process of the daemon, 0 where there is none."""
    for child in psutil.Process(daemon.pid).children():
        if "driftwatch.desired" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
            return child.pid
    return 0


def test_f07_no_file_descriptors(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Connections that are open go on healing; the desired-state process dies, and is started when that can be."""
    settings, later = config_map("settings", namespace), config_map("later", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    healed(daemon, live, settings)  # a connection is open now

    before = desired_process(daemon)
    with no_descriptors(daemon.pid):
        healed(daemon, live, settings)
        os.kill(before, signal.SIGKILL)
        failed = "the desired-state process cannot be started; next try follows"
        daemon.wait(lambda: daemon.events(failed), "it cannot be started")
        healed(daemon, live, settings)
    daemon.commit({"later.yaml": later})
    daemon.wait(lambda: desired_process(daemon) not in (0, before), "it is started again")
    daemon.wait_in_sync(settings, later)
    healed(daemon, live, later)
