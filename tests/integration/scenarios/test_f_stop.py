"""Being told to stop."""

import signal
from pathlib import Path

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, STOP_SECONDS
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon
from tests.support.waiting import until
from tests.support.webhook import gate


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_f04_heals_in_flight_finish(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, tmp_path: Path, namespace: str, number: signal.Signals
) -> None:
    """A heal that is under way when the daemon is told to stop ends well, and then it exits with status 0."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
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
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)

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
