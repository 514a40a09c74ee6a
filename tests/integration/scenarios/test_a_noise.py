"""What controllers write is no drift, and costs no request."""

from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import deployment, manifest, pod_spec
from tests.support.scene import Scene


def test_a13_status_and_controller_annotations_are_no_drift(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """Status updates and a controller's annotations on a Deployment are neither drift nor cause for a request."""
    web = deployment("web", scene.namespace)
    scene.declare(web)

    for replicas in range(20):
        status = {"status": {"observedGeneration": 1, "replicas": replicas, "unavailableReplicas": replicas}}
        live.request("PATCH", f"{live.path(web)}/status", status, media_type="application/merge-patch+json")
    for revision in range(2, 5):
        annotations = {"example.com/observed-revision": str(revision)}
        live.patch(web, {"metadata": {"annotations": annotations}}, manager="example-controller")
    scene.daemon.wait(
        lambda: "deployment.kubernetes.io/revision" in (live.get(web) or {})["metadata"]["annotations"],
        "the Deployment's controller has annotated it",
    )
    kubectl("patch", "deploy/web", "--subresource=status", "--type=merge", '-p={"status":{"replicas":99}}',
            "-n", scene.namespace)  # fmt: skip
    scene.settle()

    _assert_silence(scene)


def test_a13_endpoints_and_events_are_no_drift(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """A Service whose endpoints come and go, and Events about it, are neither drift nor cause for a request."""
    service = manifest(
        "v1", "Service", "web", scene.namespace, spec={"selector": {"app": "web"}, "ports": [{"port": 80}]}
    )
    scene.declare(service)
    node = manifest("v1", "Node", scene.namespace)  # only Pods of a node that there is are endpoints
    assert live.request("POST", "/api/v1/nodes", node)[0] == 201
    labels, spec = {"labels": {"app": "web"}}, pod_spec(nodeName=scene.namespace)
    pod = manifest("v1", "Pod", "web", scene.namespace, metadata=labels, spec=spec)
    pods = live.path(pod).removesuffix("/web")
    scene.daemon.wait(lambda: live.request("POST", pods, pod)[0] == 201, "the Pod's service account is there")
    slices = ("get", "endpointslices", "-n", scene.namespace, "-l", "kubernetes.io/service-name=web",
              "-o", "jsonpath={.items[*].endpoints[*].addresses[*]}")  # fmt: skip
    for address in ("10.1.0.1", "10.1.0.2"):
        conditions = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
        live.request("PATCH", f"{live.path(pod)}/status", {"status": status}, media_type="application/merge-patch+json")
        scene.daemon.wait(lambda address=address: kubectl(*slices).stdout == address, f"{address} is an endpoint")
    event = manifest(
        "v1",
        "Event",
        "web.1",
        scene.namespace,
        involvedObject={"apiVersion": "v1", "kind": "Service", "name": "web", "namespace": scene.namespace},
        reason="Tested",
        type="Normal",
    )
    assert live.request("POST", live.path(event).removesuffix("/web.1"), event)[0] == 201
    live.request("DELETE", live.path(node))
    scene.settle()

    _assert_silence(scene)


def _assert_silence(scene: Scene) -> None:
    assert scene.requests() == []
    assert scene.drifts() == []
    assert scene.drift_total(type="modified") + scene.drift_total(type="added") == 0
