"""The desired-state process dies or hangs: healing goes on, and Git is followed again."""

import os
import signal

import psutil
import pytest
from tests.support.daemon import Daemon
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon

pytestmark = pytest.mark.command


def _desired(daemon: Daemon) -> list[int]:
    """Process ids of the desired-state process of the daemon, if it runs."""
    return [
        child.pid
        for child in psutil.Process(daemon.pid).children()
        if "driftwatch.desired" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]


def test_f05_a_killed_desired_state_process_is_started_again(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Killed three times in a row: what is deleted meanwhile comes back, and a new commit is applied."""
    settings, other = config_map("settings", namespace), config_map("other", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()

    for _ in range(3):
        [pid] = daemon.wait(lambda: _desired(daemon), "the process runs")
        os.kill(pid, signal.SIGKILL)
        live.request("DELETE", live.path(settings))
        daemon.wait_in_sync(settings)
        daemon.wait(lambda pid=pid: _desired(daemon) not in ([], [pid]), "another one runs")

    daemon.commit({"other.yaml": [other]})
    daemon.wait_in_sync(settings, other)
    assert daemon.events("the desired-state process ended; it is started again, healing goes on")
    assert not [drift for drift in daemon.drifts() if drift["name"] == "other"]


def test_f05_a_hung_desired_state_process_delays_no_healing(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """While it is stopped drift is healed as ever; when it goes on, the commit that came meanwhile is applied."""
    settings, other = config_map("settings", namespace), config_map("other", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()

    [pid] = _desired(daemon)
    os.kill(pid, signal.SIGSTOP)
    try:
        daemon.commit({"other.yaml": [other]})
        for _ in range(3):
            live.request("DELETE", live.path(settings))
            daemon.wait_in_sync(settings)
        assert not live.get(other)
    finally:
        os.kill(pid, signal.SIGCONT)
    daemon.wait_in_sync(other)
