"""A commit is in force completely, or said not to be."""

import os
import signal

import psutil
import yaml
from tests.support.daemon import Daemon
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon

SURROGATE = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"\\ud800"}}'


def _desired(daemon: Daemon) -> list[int]:
    return [
        child.pid
        for child in psutil.Process(daemon.pid).children()
        if "driftwatch.desired" in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE
    ]


def test_h08_a_file_that_cannot_be_encoded_holds_up_no_commit(new_daemon: NewDaemon, namespace: str) -> None:
    """It is named as an invalid manifest, and the rest of its commit is applied."""
    settings, other = config_map("settings", namespace), config_map("other", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.commit({"bad.json": SURROGATE, "other.yaml": [other]})
    daemon.wait_in_sync(settings, other)
    assert daemon.events("invalid manifest", file="bad.json:1")


def test_h08_a_process_killed_within_a_change_sends_it_again(new_daemon: NewDaemon, namespace: str) -> None:
    """All of the commit comes into force, and no snapshot is found to differ."""
    many = [config_map(f"many-{number}", namespace) for number in range(300)]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace)]})
    daemon.start()
    [pid] = _desired(daemon)
    daemon.commit({f"many/{number}.yaml": [each] for number, each in enumerate(many)})
    os.kill(pid, signal.SIGKILL)
    daemon.wait_in_sync(*many)
    assert daemon.metric("driftwatch_snapshot_differences_total") == 0


def test_h02_a_path_that_changes_during_the_first_snapshot(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Nothing of the old path stays in force when the new one is."""
    old = [config_map(f"old-{number}", namespace) for number in range(300)]
    new = config_map("new", namespace)
    daemon = new_daemon()
    daemon.commit({f"old/{number}.yaml": [each] for number, each in enumerate(old)})
    commit = daemon.commit({"new/all.yaml": [namespace_of(namespace), new]})
    daemon.configuration["sources"][0]["path"] = "old"  # type: ignore[index]
    daemon.start(ready=False)
    daemon.wait(lambda: _desired(daemon), "the process runs")
    [pid] = _desired(daemon)
    os.kill(pid, signal.SIGSTOP)
    try:
        daemon.configuration["sources"][0]["path"] = "new"  # type: ignore[index]
        (daemon.folder / "driftwatch.yaml").write_text(yaml.safe_dump(daemon.configuration))
        daemon.signal(signal.SIGHUP)
        daemon.wait(lambda: daemon.events("configuration reloaded"), "the configuration is read again")
    finally:
        os.kill(pid, signal.SIGCONT)
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")
    daemon.wait_in_sync(new)
    assert not any(live.get(each) for each in old)
