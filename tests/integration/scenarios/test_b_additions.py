"""What people add and Git does not declare is reverted exactly; what controllers add is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon, Scene


def _strategic(**pod: Any) -> tuple[str, ...]:
    return ("patch", "--type=strategic", "-p=" + json.dumps({"spec": {"template": {"spec": pod}}}))


SIDECAR = {"name": "shell", "image": "registry.example.com/shell:1.0"}
PORT = {"containerPort": 9999}
TOLERATION = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
VOLUME = {"name": "host", "hostPath": {"path": "/"}}
MOUNT = {"name": "host", "mountPath": "/host"}

ADDITIONS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "variable": (("set", "env", "-c=app", "DEBUG=1"), "kubectl-set", 'containers[name="app"].env[name="DEBUG"]'),
    "label": (("label", "team=night"), "kubectl-label", "metadata.labels.team"),
    "annotation": (("annotate", "example.com/note=x"), "kubectl-annotate", 'metadata.annotations["example.com/note"]'),
    "sidecar": (_strategic(containers=[SIDECAR]), "kubectl-patch", 'containers[name="shell"]'),
    "port": (
        _strategic(containers=[{"name": "app", "ports": [PORT]}]),
        "kubectl-patch",
        'containers[name="app"].ports',
    ),
    "toleration": (_strategic(tolerations=[TOLERATION]), "kubectl-patch", "spec.template.spec.tolerations"),
    "volume": (
        _strategic(volumes=[VOLUME], containers=[{"name": "app", "volumeMounts": [MOUNT]}]),
        "kubectl-patch",
        'volumes[name="host"]',
    ),
}


def _state(live: Live, declared: Manifest) -> dict[str, Any]:
    """What people see of an object: all but what every write changes, and the Deployment controller's notes."""
    found = live.get(declared)
    assert found is not None
    metadata = found["metadata"]
    annotations = {
        name: text
        for name, text in metadata.get("annotations", {}).items()
        if name != "deployment.kubernetes.io/revision"
    }
    labels = metadata.get("labels", {})
    return {"uid": metadata["uid"], "labels": labels, "annotations": annotations, "spec": found.get("spec")}


def test_b01_addition_is_reverted_exactly(scene: Scene, kubectl: Kubectl, live: Live) -> None:
    """Each thing that a person adds is removed, its author is named, and nothing else of the object has changed."""
    declared = {name: deployment(name, scene.namespace) for name in ADDITIONS}
    scene.declare(*declared.values())
    before = {name: _state(live, one) for name, one in declared.items()}

    for name, (command, _, _) in ADDITIONS.items():
        verb, *arguments = command
        target = [arguments.pop(0)] if verb == "set" else []
        kubectl(verb, *target, f"deploy/{name}", *arguments, "-n", scene.namespace)

    for name, (_, manager, field) in ADDITIONS.items():
        healed = scene.wait_drift(name, type="added")
        assert healed["manager"] == manager, healed
        assert any(field in each["path"] for each in healed["changes"]), healed["fields"]
    scene.settle()
    assert {name: _state(live, one) for name, one in declared.items()} == before
    assert len(scene.drifts()) == len(ADDITIONS), scene.drifts()
    for one in declared.values():
        assert not live.difference(one, scene.daemon.source)


def test_b01_addition_and_edit_at_once_are_both_reverted(scene: Scene, kubectl: Kubectl, live: Live) -> None:
    """One patch that changes a declared field and adds another leaves nothing behind."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    before = _state(live, web)

    container = {"name": "app", "image": "registry.example.com/app:2.0", "env": [{"name": "DEBUG", "value": "1"}]}
    verb, *patch = _strategic(containers=[container])
    kubectl(verb, "deploy/web", *patch, "-n", scene.namespace)

    scene.wait_drift("web", type="added")
    scene.settle()
    assert _state(live, web) == before
    assert scene.drift_total(manager="kubectl-patch") == 2


CONSOLES = ("oc", "node-fetch", "Mozilla", "GoogleCloudConsole", "k9s")


def test_b01_addition_by_any_console_is_reverted(scene: Scene, live: Live) -> None:
    """Who works with another program than kubectl is a person all the same."""
    declared = {console: config_map(console.lower(), scene.namespace) for console in CONSOLES}
    scene.declare(*declared.values())

    for console, one in declared.items():
        live.patch(one, {"data": {"extra": "1"}}, manager=console)

    for console, one in declared.items():
        assert scene.wait_drift(console.lower(), type="added")["manager"] == console
        assert "extra" not in (live.get(one) or {})["data"]


def _webhook(namespace: str) -> Manifest:
    """A webhook that is never called: nothing has the group that it asks for."""
    rule = {"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}
    hook = {
        "name": "hook.example.com",
        "clientConfig": {"service": {"name": "hook", "namespace": namespace}},
        "rules": [rule],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
    }
    return manifest(
        "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", f"{namespace}-hook", webhooks=[hook]
    )


CA_BUNDLE = (
    # A certificate is not looked at before the webhook is called; that it is PEM is.
    "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1BPT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="
)


NOTES = {
    "example-controller": "example.com/seen",
    "rancher": "field.cattle.io/publicEndpoints",
    "argocd-server": "argocd.argoproj.io/refresh",
}


def test_b02_additions_of_controllers_are_kept(scene: Scene, live: Live, audit: AuditTrail) -> None:
    """Injected sidecars and CA bundles, scaled replicas, token secrets: neither drift nor cause for a request."""
    web = deployment("web", scene.namespace)
    scaled = deployment("scaled", scene.namespace)
    del scaled["spec"]["replicas"]
    account = manifest("v1", "ServiceAccount", "robot", scene.namespace)
    webhook = _webhook(scene.namespace)
    scene.declare(web, scaled, account, webhook)
    audit.mark()

    pod = {"spec": {"template": {"spec": {"containers": [SIDECAR]}}}}
    live.patch(web, pod, manager="sidecar-injector", kind="strategic-merge")
    hook = {"webhooks": [{"name": "hook.example.com", "clientConfig": {"caBundle": CA_BUNDLE}}]}
    live.patch(webhook, hook, manager="cert-manager-cainjector", kind="strategic-merge")
    live.patch(account, {"secrets": [{"name": "robot-token"}]}, manager="kube-controller-manager")
    code, _ = live.request(
        "PATCH",
        f"{live.path(scaled)}/scale?fieldManager=kube-controller-manager",
        {"spec": {"replicas": 4}},
        media_type="application/merge-patch+json",
    )
    assert code == 200
    for one in (web, scaled, account, webhook):
        for controller, note in NOTES.items():
            live.patch(one, {"metadata": {"annotations": {note: "yes"}}}, manager=controller)
    scene.settle()

    found = live.get(web)
    assert found is not None
    assert {one["name"] for one in found["spec"]["template"]["spec"]["containers"]} == {"app", "sidecar", "shell"}
    assert found["metadata"]["annotations"].keys() >= set(NOTES.values())
    assert (live.get(scaled) or {})["spec"]["replicas"] == 4
    assert (live.get(account) or {})["secrets"] == [{"name": "robot-token"}]
    assert (live.get(webhook) or {})["webhooks"][0]["clientConfig"]["caBundle"] == CA_BUNDLE
    assert scene.drifts() == []
    assert scene.requests() == []
    assert audit.events(agent=AGENT, resource="mutatingwebhookconfigurations") == []


def test_b02_allocated_addresses_are_kept(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """A Service that people created and Git took over keeps its clusterIP and nodePort, whatever is healed of it."""
    service = manifest(
        "v1",
        "Service",
        "web",
        scene.namespace,
        spec={"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80}]},
    )
    kubectl("create", "namespace", scene.namespace)
    kubectl("create", "-f", "-", input=Scene.json(service))
    before = live.get(service)
    assert before is not None

    scene.declare(service)
    kubectl("label", "service/web", "team=night", "-n", scene.namespace)
    scene.wait_drift("web", type="added")
    live.patch(service, {"spec": {"selector": {"app": "other"}}}, manager="kubectl-edit")
    scene.wait_drift("web", type="modified")
    scene.settle()

    after = live.get(service)
    assert after is not None
    assert before["spec"]["ports"][0]["nodePort"]
    assert after["spec"] == before["spec"]
    assert "team" not in after["metadata"]["labels"]


def test_b03_rollout_restart_is_not_undone(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """A restarted Deployment keeps its restart through later heals, and rolls out once."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    path = f"/apis/apps/v1/namespaces/{scene.namespace}/replicasets"

    def replica_sets() -> int:
        owners = [one["metadata"]["ownerReferences"][0]["name"] for one in live.request("GET", path)[1]["items"]]
        return owners.count("web")

    scene.daemon.wait(lambda: replica_sets() == 1, "the first rollout has begun")
    kubectl("rollout", "restart", "deploy/web", "-n", scene.namespace)
    scene.daemon.wait(lambda: replica_sets() == 2, "the restart has begun")
    scene.settle()
    assert scene.drifts() == []
    assert scene.requests() == []

    restarted = (live.get(web) or {})["spec"]["template"]["metadata"]["annotations"]
    kubectl("set", "env", "deploy/web", "-c=app", "DEBUG=1", "-n", scene.namespace)
    scene.wait_drift("web", type="added")
    kubectl("scale", "deploy/web", "--replicas=5", "-n", scene.namespace)
    scene.wait_drift("web", type="modified")
    scene.settle()

    found = live.get(web)
    assert found is not None
    assert "kubectl.kubernetes.io/restartedAt" in restarted
    assert found["spec"]["template"]["metadata"]["annotations"] == restarted
    scene.daemon.wait(
        lambda: (live.get(web) or {})["status"].get("observedGeneration") == found["metadata"]["generation"],
        "the Deployment's controller has seen all of it",
    )
    assert replica_sets() <= 3  # the variable was there for a moment, which may have begun a rollout of its own


@pytest.fixture
def sources(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Make sources, each with a repository that declares some objects."""

    def made(**declared: list[Manifest]) -> list[dict[str, Any]]:
        found = []
        for name, manifests in declared.items():
            repository = Repository(tmp_path / name)
            repository.commit({"all.yaml": manifests})
            found.append({"name": name, "repository": str(repository.folder)})
        return found

    return made


def _writes(audit: AuditTrail, namespace: str) -> set[str]:
    return {
        event["objectRef"]["name"]
        for event in audit.events(agent=AGENT, namespace=namespace)
        if event["verb"] in WRITES
    }


def test_b04_additions_are_reported_or_ignored_where_that_is_asked_for(
    new_daemon: NewDaemon,
    live: Live,
    audit: AuditTrail,
    namespace: str,
    sources: Callable[..., list[dict[str, Any]]],
) -> None:
    """Globally reported, by one source ignored, by an object's annotation in Git reverted or ignored."""

    def annotated(name: str, additions: str) -> Manifest:
        made = config_map(name, namespace)
        made["metadata"]["annotations"] = {"driftwatch.io/additions": additions}
        return made

    loud, quiet = config_map("loud", namespace), config_map("quiet", namespace)
    reverted, silent = annotated("reverted", "revert"), annotated("silent", "ignore")
    made = sources(store=[namespace_of(namespace), loud, reverted, silent], lab=[quiet])
    made[1]["additions"] = "ignore"
    daemon = new_daemon(sources=made)
    daemon.configuration["drift"] = {"additions": "report"}
    daemon.start()
    daemon.wait_in_sync(loud, reverted, silent, source="store")
    daemon.wait_in_sync(quiet, source="lab")
    audit.mark()

    for one in (quiet, silent, loud, reverted):
        live.patch(one, {"data": {"extra": "1"}}, manager="kubectl-edit")

    daemon.wait_drift(namespace=namespace, name="reverted")
    [said] = daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="loud"), "the addition is reported")
    assert (said["type"], said["manager"]) == ("added", "kubectl-edit")
    assert [(one["path"], one["live"]) for one in said["changes"]] == [("data.extra", '"1"')]
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1
    assert daemon.drift_total(namespace=namespace, source="store", type="added") == 2
    assert {line["name"] for line in daemon.drifts(namespace=namespace)} == {"loud", "reverted"}
    assert _writes(audit, namespace) == {"reverted"}
    assert "extra" not in (live.get(reverted) or {})["data"]

    live.patch(loud, {"data": {"extra": None}}, manager="kubectl-edit")
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0, "nothing differs")
    assert _writes(audit, namespace) == {"reverted"}
    for one in (quiet, silent):
        assert (live.get(one) or {})["data"]["extra"] == "1"


def test_b04_reported_addition_stays_when_the_object_is_healed(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """An edit of a declared field is healed beside an added one that is only reported; both are counted once."""
    settings = config_map("settings", namespace)
    daemon = new_daemon(options={"additions": "report"})
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)

    live.patch(settings, {"data": {"extra": "1"}}, manager="kubectl-edit")
    daemon.wait(lambda: daemon.events("drift", name="settings", namespace=namespace), "the addition is reported")
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    daemon.wait_drift(namespace=namespace, name="settings", type="modified")

    daemon.wait(lambda: (live.get(settings) or {})["data"] == {"colour": "red", "extra": "1"}, "only that is healed")
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1, "the addition remains")
    assert daemon.drift_total(namespace=namespace, type="modified") == 1
    assert daemon.drift_total(namespace=namespace, type="added") == 1
