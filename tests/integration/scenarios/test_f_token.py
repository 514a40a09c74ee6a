"""A token that ends while the daemon runs: the API server itself refuses it, until there is another in its file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from tests.support.account import Account
from tests.support.fault_proxy import fault_proxy
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, manifest, namespace_of
from tests.support.scene import NewDaemon
from tests.support.waiting import until
from tests.support.waits import WATCH_BACKOFF

pytestmark = pytest.mark.waits(WATCH_BACKOFF)

LONG = 90.0


@pytest.fixture
def account(kubectl: Kubectl, tmp_path: Path, namespace: str) -> Iterator[Account]:
    """A service account that may do everything."""
    home = f"{namespace}-home"
    kubectl("create", "namespace", home)
    kubectl("create", "serviceaccount", "driftwatch", "-n", home)
    kubectl("create", "clusterrolebinding", home, "--clusterrole=cluster-admin", f"--serviceaccount={home}:driftwatch")
    yield Account(kubectl, tmp_path, home)
    kubectl("delete", "clusterrolebinding", home)
    kubectl("delete", "namespace", home, "--wait=false")


def test_f01_token_that_has_ended(
    new_daemon: NewDaemon, account: Account, kubectl: Kubectl, live: Live, namespace: str, tmp_path: Path
) -> None:
    """While it is refused nothing is healed; with the next token everything is, and it is told once."""
    # A token that is bound to an object ends with it.
    kubectl("create", "secret", "generic", "bond", "-n", account.namespace)
    token = kubectl(
        "create", "token", account.name, "-n", account.namespace,
        "--bound-object-kind=Secret", "--bound-object-name=bond",
    ).stdout.strip()  # fmt: skip
    account.put(token)
    deleted, edited = config_map("deleted", namespace), config_map("edited", namespace)
    with fault_proxy(account.kubeconfig, tmp_path / "proxy") as proxy:
        daemon = new_daemon(kubeconfig=proxy.kubeconfig)
        daemon.commit({"all.yaml": [namespace_of(namespace), deleted, edited]})
        daemon.start()
        daemon.wait_in_sync(deleted, edited)

        live.request("DELETE", live.path(manifest("v1", "Secret", "bond", account.namespace)))
        until(lambda: _code(account, token) == 401, "the token is refused", timeout=LONG)
        proxy.cut()
        live.request("DELETE", live.path(deleted))
        live.patch(edited, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        daemon.wait(lambda: daemon.events("watch is down", kind="ConfigMap"), "the watch is refused")
        until(lambda: "401" in daemon.events("watch is down", kind="ConfigMap")[-1]["error"], "by a 401", timeout=LONG)
        assert live.get(deleted) is None

        account.rotate()
        daemon.wait(lambda: live.get(deleted), "the next token is taken", timeout=LONG)
        daemon.wait_in_sync(deleted, edited)
        daemon.wait(lambda: len(daemon.drifts(namespace=namespace)) == 2, "both are told")
        daemon.stop()
    told = sorted((line["name"], line["event"], line["type"]) for line in daemon.drifts(namespace=namespace))
    assert told == [("deleted", "drift healed", "deleted"), ("edited", "drift healed", "modified")]


def _code(account: Account, token: str) -> int:
    """What the API server answers to a token."""
    with urllib3.PoolManager(ca_certs=str(account.certificate_file)) as pool:
        return pool.request("GET", f"{account.server}/api", headers={"Authorization": f"Bearer {token}"}).status
