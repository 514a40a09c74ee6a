"""Being told to stop, and to read the configuration again."""

import signal
from pathlib import Path

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.api_request import writes
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, STOP_SECONDS, WRITES, Daemon
from tests.support.fault_proxy import Door, fault_proxy
from tests.support.faults import Stall
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon
from tests.support.tcp_proxy import tcp_proxy
from tests.support.waiting import until
from tests.support.webhook import gate


def _keeping(declared: Manifest, daemon: Daemon) -> Daemon:
    """The daemon, started, with the object in sync in a namespace that is Git's as well."""
    daemon.commit({"all.yaml": [namespace_of(declared["metadata"]["namespace"]), declared]})
    daemon.start()
    daemon.wait_in_sync(declared)
    return daemon


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_f04_heals_in_flight_finish(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, tmp_path: Path, namespace: str, number: signal.Signals
) -> None:
    """A heal that is under way when the daemon is told to stop ends well, and then it exits with status 0."""
    settings = config_map("settings", namespace)
    daemon = _keeping(settings, new_daemon())
    audit.mark()

    with gate(live, tmp_path, namespace) as webhook:
        # The API server takes a moment until it calls a new webhook: until then what is deleted is back at once.
        def is_held() -> bool:
            live.request("DELETE", live.path(settings))
            return webhook.reached.wait(0.5)

        until(is_held, "a heal waits at the webhook", evidence=daemon.last_lines)
        healed = len(daemon.events("drift healed"))
        daemon.signal(number)
        daemon.wait(lambda: daemon.events("stopping"), "the daemon has heard it")
        webhook.open()
        assert daemon.wait_exit(STOP_SECONDS) == 0

    assert daemon.events("drift healed", namespace=namespace, name="settings")[healed:] != []
    writes = audit.events(agent=AGENT, namespace=namespace, verb="patch", name="settings")
    assert {event["responseStatus"]["code"] for event in writes} == {201}
    assert live.difference(settings, daemon.source) == ""


def test_f04_heal_that_never_ends_does_not_hold_up_the_exit(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str
) -> None:
    """A heal that hangs is given up, and the daemon still exits with status 0 within ten seconds."""
    settings = config_map("settings", namespace)
    daemon = _keeping(settings, new_daemon())

    with gate(live, tmp_path, namespace) as webhook:

        def is_held() -> bool:
            live.request("DELETE", live.path(settings))
            return webhook.reached.wait(0.5)

        until(is_held, "a heal waits at the webhook", evidence=daemon.last_lines)
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(STOP_SECONDS) == 0


def test_f04_stop_before_the_first_pass_is_clean(new_daemon: NewDaemon, kubectl: Kubectl, namespace: str) -> None:
    """Told to stop while it still begins, the daemon exits with status 0; what it has applied is good."""
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *(config_map(f"c-{n}", namespace) for n in range(200))]})
    daemon.start(ready=False)
    daemon.wait(lambda: daemon.events("synced", kind="Namespace"), "the first pass has begun")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_exit(STOP_SECONDS) == 0
    applied = kubectl("get", "configmap", "-n", namespace, "-l", "driftwatch.io/source", "-o", "name").stdout
    assert len(applied.splitlines()) == len(daemon.events("synced", kind="ConfigMap"))


@pytest.mark.parametrize("trouble", ["stalled", "refused"])
def test_f04_stop_while_the_api_server_is_away(
    new_daemon: NewDaemon, cluster: LocalCluster, live: Live, tmp_path: Path, namespace: str, trouble: str
) -> None:
    """Told to stop while nothing gets through, or nobody answers, the daemon still exits with status 0 in time."""
    settings = config_map("settings", namespace)
    with fault_proxy(cluster.kubeconfig, tmp_path / "proxy") as proxy:
        daemon = _keeping(settings, new_daemon(kubeconfig=proxy.kubeconfig))
        if trouble == "refused":
            proxy.door = Door.REFUSED
            proxy.cut()
            live.request("DELETE", live.path(settings))
        else:
            stalled = proxy.inject(Stall(), writes())
            live.request("DELETE", live.path(settings))
            proxy.wait_hits(stalled)  # a heal is on its way, and comes nowhere
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(STOP_SECONDS) == 0


def test_f04_stop_while_the_network_is_silent(
    new_daemon: NewDaemon, cluster: LocalCluster, tmp_path: Path, namespace: str
) -> None:
    """Nobody answers the end of a TLS connection: the daemon ends all the same, and leaves none open."""
    settings = config_map("settings", namespace)
    with tcp_proxy(cluster.kubeconfig, tmp_path / "proxy") as proxy:
        daemon = _keeping(settings, new_daemon(kubeconfig=proxy.kubeconfig))
        proxy.stall()
        daemon.signal(signal.SIGTERM)
        assert daemon.wait_exit(STOP_SECONDS) == 0
    assert daemon.events("") == []


@pytest.mark.parametrize("by", ["signal", "file"])
def test_f04_reload(new_daemon: NewDaemon, live: Live, namespace: str, by: str) -> None:
    """SIGHUP, or another file, is taken in; one that cannot be used leaves the last one in force until it is mended."""
    settings = config_map("settings", namespace)
    daemon = _keeping(settings, new_daemon())
    file = daemon.folder / "driftwatch.yaml"

    def reload(content: str, said: str) -> None:
        before = len(daemon.events(said))
        file.write_text(content)
        if by == "signal":
            daemon.signal(signal.SIGHUP)
        daemon.wait(lambda: len(daemon.events(said)) > before, said)

    def edit(colour: str) -> None:
        live.patch(settings, {"data": {"colour": colour}}, manager="kubectl-edit")

    daemon.configuration["sources"][0]["mode"] = "paused"
    reload(yaml.safe_dump(daemon.configuration), "configuration reloaded")
    edit("blue")
    reload("sources: [", "configuration cannot be used")
    edit("green")
    # Two more looks at the file go by: neither the paused configuration nor the broken one heals anything.
    commit = daemon.commit({"readme.md": "x"})
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")
    assert live.get(settings)["data"] == {"colour": "green"}

    daemon.configuration["sources"][0]["mode"] = "heal"
    reload(yaml.safe_dump(daemon.configuration), "configuration reloaded")
    daemon.wait_in_sync(settings)


def test_f04_reload_for_nothing(new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str) -> None:
    """SIGHUP with the file as it was writes nothing, and loses no drift that happens at the same time."""
    settings = config_map("settings", namespace)
    daemon = _keeping(settings, new_daemon())
    audit.mark()
    for _ in range(5):
        before = len(daemon.events("configuration reloaded"))
        daemon.signal(signal.SIGHUP)
        daemon.wait(lambda before=before: len(daemon.events("configuration reloaded")) > before, "it is reloaded")
    assert [event for event in audit.events(agent=AGENT, namespace=namespace) if event["verb"] in WRITES] == []
    for _ in range(3):
        uid = live.uid(settings)
        live.request("DELETE", live.path(settings))
        daemon.signal(signal.SIGHUP)
        daemon.wait(lambda uid=uid: live.uid(settings) not in ("", uid), "it is back")
