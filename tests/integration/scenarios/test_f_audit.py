"""Events are lost on the way, which no watch can notice: the audit finds what they would have told of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from driftwatch.localcluster import LocalCluster
from driftwatch.model import SNOOZE_ANNOTATION
from tests.support.api_request import watches
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.faults import DropEvents
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon

ROUND = "3s"
FINDINGS = "driftwatch_audit_findings_total"


@pytest.fixture
def proxy(cluster: LocalCluster, tmp_path: Path) -> Iterator[FaultProxy]:
    """Between the daemon and the API server."""
    with fault_proxy(cluster.kubeconfig, tmp_path / "proxy") as proxy:
        yield proxy


def test_f06_lost_events_are_found_by_the_audit_and_counted(
    new_daemon: NewDaemon, live: Live, proxy: FaultProxy, namespace: str
) -> None:
    """An edit, a removal of the label, and a deletion of which no event comes: each is counted once, named, and healed.

    The edited one was snoozed once. Before it nothing is found; afterwards events heal at once again, and the audit
    finds nothing more.
    """
    edited, unlabelled, gone = (config_map(name, namespace) for name in ("edited", "unlabelled", "gone"))
    everything = (edited, unlabelled, gone, config_map("untouched", namespace))
    daemon = new_daemon(kubeconfig=proxy.kubeconfig)
    daemon.configuration["drift"] = {"audit": ROUND}
    daemon.commit({"all.yaml": [namespace_of(namespace), *everything]})
    daemon.start()
    daemon.wait_in_sync(*everything)
    once = {SNOOZE_ANNOTATION: "2020-01-01T00:00:00Z"}
    live.patch(edited, {"metadata": {"annotations": once}}, manager="kubectl-annotate")

    def audited() -> float:
        return daemon.metric("driftwatch_audited_objects_total", source=daemon.source)

    def wait_round() -> None:
        """Two rounds of the five objects: one at least is whole."""
        before = audited()
        daemon.wait(lambda: audited() >= before + 10, "the audit goes round")

    wait_round()
    assert daemon.metric(FINDINGS) == 0

    with proxy.fault(DropEvents(), watches("configmaps")) as losing:
        live.patch(edited, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        live.patch(unlabelled, {"metadata": {"labels": {"driftwatch.io/source": None}}}, manager="kubectl-label")
        live.request("DELETE", live.path(gone))
        daemon.wait_in_sync(*everything)
        assert losing.hits >= 3
        assert daemon.metric(FINDINGS, source=daemon.source, kind="ConfigMap") == 3
        assert daemon.metric(FINDINGS) == 3
        found = daemon.events("audit found drift that no event had told of", namespace=namespace)
        assert sorted(line["name"] for line in found) == ["edited", "gone", "unlabelled"]
        healed = daemon.drifts(namespace=namespace)
        assert sorted((line["name"], line["type"]) for line in healed) == [
            ("edited", "modified"),
            ("gone", "deleted"),
            ("unlabelled", "modified"),
        ]

    uid = live.uid(gone)
    live.request("DELETE", live.path(gone))
    daemon.wait(lambda: live.uid(gone) not in ("", uid), "it is back")
    wait_round()
    assert daemon.metric(FINDINGS) == 3
