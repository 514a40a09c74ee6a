"""What happens while the daemon is down is healed when it is back, and counted; what a commit changes is not drift."""

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, namespace_of
from tests.support.scene import NewDaemon


def _writes(audit: AuditTrail, namespace: str) -> list[str]:
    return sorted(
        event["objectRef"]["name"]
        for event in audit.events(agent=AGENT, namespace=namespace)
        if event["verb"] in WRITES
    )


def test_a08_drift_from_while_down_is_healed_and_counted(
    new_daemon: NewDaemon, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """Deleted, edited, or both while the daemon is down: healed at start, and counted, the edit with its manager."""
    web, untouched, gone = (deployment(name, namespace) for name in ("web", "untouched", "gone"))
    both = config_map("both", namespace)
    new = config_map("new", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), web, untouched, gone, both]})
    daemon.start()
    daemon.wait_in_sync(web, untouched, gone, both)
    daemon.stop()
    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    kubectl("delete", "deploy/gone", "-n", namespace)
    kubectl("patch", "configmap/both", "--type=merge", '-p={"data":{"colour":"blue"}}', "-n", namespace)
    kubectl("delete", "configmap/both", "-n", namespace)
    daemon.commit({"new.yaml": new})
    audit.mark()

    daemon.start()

    daemon.wait_in_sync(web, untouched, gone, both, new)
    daemon.wait(lambda: daemon.drift_total(namespace=namespace) >= 3, "all of it is counted")
    assert daemon.drift_total(namespace=namespace) == 3
    assert daemon.drift_total(namespace=namespace, kind="Deployment", type="modified", manager="kubectl") == 1
    assert daemon.drift_total(namespace=namespace, kind="Deployment", type="deleted") == 1
    assert daemon.drift_total(namespace=namespace, kind="ConfigMap", type="deleted") == 1
    assert _writes(audit, namespace) == ["both", "gone", "new", "web"]
    assert [line["name"] for line in daemon.events("synced")] == ["new"]


def test_a08_drift_after_an_unclean_end_is_counted(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """What the daemon knows of a commit in force outlives its being killed."""
    web = deployment("web", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), web]})
    daemon.start()
    daemon.wait_in_sync(web)
    daemon.wait(lambda: list(daemon.folder.glob("state/*/in-force.msgpack")), "the state is on disk")
    daemon.kill()
    kubectl("delete", "deploy/web", "-n", namespace)

    daemon.start()

    daemon.wait_in_sync(web)
    daemon.wait(lambda: daemon.drift_total(namespace=namespace, type="deleted"), "it is counted")
    assert daemon.drift_total(namespace=namespace, type="deleted") == 1
    assert live.difference(web, daemon.source) == ""


def test_a08_commit_from_while_down_is_no_drift(new_daemon: NewDaemon, audit: AuditTrail, namespace: str) -> None:
    """What a commit changed while the daemon was down is applied as sync: only that, and not counted."""
    changed, kept = config_map("changed", namespace, colour="red"), config_map("kept", namespace)
    daemon = new_daemon()
    daemon.commit({"a.yaml": [namespace_of(namespace), kept], "b.yaml": changed})
    daemon.start()
    daemon.wait_in_sync(changed, kept)
    daemon.stop()
    changed = config_map("changed", namespace, colour="green")
    daemon.commit({"b.yaml": changed})
    audit.mark()

    daemon.start()

    daemon.wait_in_sync(changed, kept)
    assert daemon.drift_total(namespace=namespace) == 0
    assert _writes(audit, namespace) == ["changed"]
