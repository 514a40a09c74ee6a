"""What is deleted comes back."""

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene


def test_a01_deleted_deployment_is_restored_by_its_event(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """A deleted Deployment is back with a new uid although no poll interval has passed."""
    web = deployment("web", namespace)
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit({"web.yaml": [namespace_of(namespace), web]})
    daemon.start()
    daemon.wait_in_sync(web)
    asked_git = daemon.metric("driftwatch_git_last_success_timestamp_seconds")
    uid = live.uid(web)

    kubectl("delete", "deploy", "web", "-n", namespace, "--wait=false")

    daemon.wait(lambda: live.uid(web) not in ("", uid), "the Deployment is back")
    daemon.wait_in_sync(web)
    assert daemon.wait_drift(kind="Deployment", namespace=namespace, name="web")["type"] == "deleted"
    assert daemon.drift_total(source=daemon.source, kind="Deployment", namespace=namespace, type="deleted") == 1
    assert daemon.metric("driftwatch_heals_total", kind="Deployment", namespace=namespace, result="success") == 1
    assert daemon.metric("driftwatch_git_last_success_timestamp_seconds") == asked_git


def _hold(live: Live, namespace: str, *finalizers: str) -> None:
    """Let a namespace that is deleted end only when these finalizers are gone, too."""
    path = live.path(namespace_of(namespace))
    _, found = live.request("GET", path)
    kept = [name for name in found["spec"]["finalizers"] if name == "kubernetes"]
    found["spec"]["finalizers"] = [*kept, *finalizers]
    code, answer = live.request("PUT", f"{path}/finalize", found)
    assert code == 200, answer


def test_a03_deleted_namespace_comes_back_with_everything_in_it(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """While a namespace ends the daemon does not try again and again; then it comes back with all that is declared."""
    declared = [config_map(f"config-{number}", scene.namespace) for number in range(12)]
    declared += [
        manifest("v1", "Secret", "secret", scene.namespace, stringData={"user": "shop"}),
        manifest("v1", "ServiceAccount", "robot", scene.namespace),
        deployment("web", scene.namespace),
    ]
    scene.declare(*declared)
    _hold(live, scene.namespace, "example.com/hold")
    uids = {one["metadata"]["name"]: live.uid(one) for one in (namespace_of(scene.namespace), *declared)}
    scene.audit.mark()

    kubectl("delete", "namespace", scene.namespace, "--wait=false")
    scene.daemon.wait(lambda: not any(map(live.get, declared)), "everything that can go is gone")
    elsewhere = Scene(scene.daemon, live, AuditTrail(scene.audit._log), f"{scene.namespace}-2")
    elsewhere.declare(config_map("other", elsewhere.namespace))
    for _ in range(10):  # healing goes on elsewhere, and time passes
        elsewhere.settle()

    writes = [event for event in scene.audit.events(agent=AGENT, namespace=scene.namespace) if event["verb"] in WRITES]
    refused = [event for event in writes if event["responseStatus"]["code"] >= 400]
    assert len(refused) <= len(declared) + 1, "no more than one try for each object"
    assert writes == refused
    _hold(live, scene.namespace)

    scene.daemon.wait_in_sync(namespace_of(scene.namespace), *declared)
    assert all(live.uid(one) != uids[one["metadata"]["name"]] for one in (namespace_of(scene.namespace), *declared))
    assert scene.drift_total(type="deleted", kind="Deployment") == 1
    scene.daemon.wait(
        lambda: scene.daemon.metric("driftwatch_drifted_objects", namespace=scene.namespace) == 0, "nothing is amiss"
    )


def test_a09_deleted_and_created_anew_with_other_content(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """What somebody deletes and at once creates anew, unlabelled and otherwise, is healed and counted once."""
    mine = config_map("config", scene.namespace, colour="red")
    scene.declare(mine)
    uid = live.uid(mine)
    other = config_map("config", scene.namespace, colour="blue")

    with scene.daemon.suspended():  # it cannot be quicker than whoever does it
        kubectl("delete", "configmap", "config", "-n", scene.namespace)
        kubectl("create", "-f", "-", input=scene.json(other))

    scene.daemon.wait_in_sync(mine)
    assert live.uid(mine) != uid
    scene.settle()
    assert [line["event"] for line in scene.drifts()] == ["drift healed"]
    assert scene.drifts()[0]["type"] in ("deleted", "modified")
    assert len(scene.requests()) == 1


def test_a09_deleted_and_created_anew_under_our_label(scene: Scene, kubectl: Kubectl) -> None:
    """The same where the new object carries the tracking label: one drift, and the content is Git's."""
    mine = config_map("config", scene.namespace, colour="red")
    scene.declare(mine)
    other = config_map("config", scene.namespace, colour="blue")
    other["metadata"]["labels"] = {"driftwatch.io/source": scene.daemon.source}

    with scene.daemon.suspended():
        kubectl("delete", "configmap", "config", "-n", scene.namespace)
        kubectl("create", "-f", "-", input=scene.json(other))

    scene.daemon.wait_in_sync(mine)
    scene.settle()
    assert [line["event"] for line in scene.drifts()] == ["drift healed"]
    assert len(scene.requests()) <= 2


@pytest.mark.parametrize("cascade", ["orphan", "foreground", "background"])
def test_a10_cascading_deletion_is_awaited(scene: Scene, live: Live, kubectl: Kubectl, cascade: str) -> None:
    """However a Deployment is deleted, the daemon writes once: when it is gone, it creates it."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    uid = live.uid(web)
    scene.daemon.wait(
        lambda: kubectl("get", "replicaset", "-n", scene.namespace, "-l", "app=web", "-o", "name").stdout,
        "the Deployment has a ReplicaSet to wait for",
    )

    kubectl("delete", "deployment", "web", "-n", scene.namespace, f"--cascade={cascade}", "--wait=false")

    scene.daemon.wait(lambda: live.uid(web) not in ("", uid), "the Deployment is back")
    scene.daemon.wait_in_sync(web)
    scene.settle()
    assert scene.requests(name="web") == ["patch deployments/web → 201"]
    assert scene.drift_total(kind="Deployment", type="modified") == 0


def test_a10_object_with_a_pending_finalizer_is_awaited(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """An object that ends but is not gone is reported and left alone; when it is gone it is created at once."""
    mine = config_map("config", scene.namespace)
    scene.declare(mine)
    live.patch(mine, {"metadata": {"finalizers": ["example.com/hold"]}}, manager="controller")
    uid = live.uid(mine)

    kubectl("delete", "configmap", "config", "-n", scene.namespace, "--wait=false")
    scene.settle()

    assert scene.requests() == []
    assert [line["event"] for line in scene.drifts()] == ["drift"]
    assert scene.daemon.metric("driftwatch_drifted_objects", namespace=scene.namespace) == 1
    live.patch(mine, {"metadata": {"finalizers": []}}, manager="controller")
    scene.daemon.wait(lambda: live.uid(mine) not in ("", uid), "the ConfigMap is back")
    scene.daemon.wait_in_sync(mine)
    scene.daemon.wait_drift(namespace=scene.namespace, name="config")
    assert scene.daemon.metric("driftwatch_drifted_objects", namespace=scene.namespace) == 0
    assert scene.requests() == ["patch configmaps/config → 201"]
    scene.settle()
    assert len([line for line in scene.drifts() if line["event"] == "drift healed"]) == 1
