"""What Kubernetes itself takes over needs no rule of the user's, and makes no loop."""

import base64
from typing import Any

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import crd, deployment, manifest
from tests.support.scene import Scene


def _autoscale(live: Live, declared: Manifest, replicas: int) -> None:
    """Scale as the controller of a HorizontalPodAutoscaler does."""
    code, answer = live.request(
        "PATCH",
        f"{live.path(declared)}/scale?fieldManager=kube-controller-manager",
        {"spec": {"replicas": replicas}},
        media_type="application/merge-patch+json",
    )
    assert code == 200, answer


def _replicas(live: Live, declared: Manifest) -> int:
    return int((live.get(declared) or {})["spec"]["replicas"])


def test_c02_autoscaled_replicas_need_no_rule(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """What the autoscaler sets stays through heals and commits; what a person sets is drift."""
    web = deployment("web", scene.namespace)
    scene.declare(web)

    for replicas in (4, 6, 5):
        _autoscale(live, web, replicas)
    scene.settle()
    assert _replicas(live, web) == 5
    assert scene.drifts() == []
    assert len(scene.requests()) <= 1, scene.requests()

    kubectl("label", "deploy/web", "--overwrite", "tier=db", "-n", scene.namespace)
    scene.wait_drift("web", manager="kubectl-label")
    assert _replicas(live, web) == 5
    web["metadata"]["labels"]["tier"] = "cache"
    scene.daemon.commit({f"{scene.namespace}.yaml": [scene._witness, web]})
    scene.daemon.wait(lambda: (live.get(web) or {})["metadata"]["labels"]["tier"] == "cache", "the commit is applied")
    assert _replicas(live, web) == 5

    kubectl("scale", "deploy/web", "--replicas=9", "-n", scene.namespace)
    scaled = scene.wait_drift("web", manager="kubectl")
    assert [(one["path"], one["subresource"]) for one in scaled["changes"]] == [("spec.replicas", "scale")]
    scene.daemon.wait_in_sync(web)
    assert _replicas(live, web) == 2


def test_c02_autoscaler_that_follows_a_person_is_left_alone(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """After a hand-scaled Deployment was healed the autoscaler may scale it again."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    kubectl("scale", "deploy/web", "--replicas=9", "-n", scene.namespace)
    scene.wait_drift("web", manager="kubectl")

    _autoscale(live, web, 4)

    scene.settle()
    assert _replicas(live, web) == 4
    assert len(scene.drifts()) == 1, scene.drifts()


def _ca(text: str) -> str:
    body = base64.b64encode(text.encode()).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    return base64.b64encode(pem.encode()).decode()


def _hook(name: str, namespace: str, **fields: Any) -> dict[str, Any]:
    """A webhook that is never called: nothing has the group that it asks for."""
    return {
        "name": name,
        "clientConfig": {"service": {"name": "hook", "namespace": namespace}, "caBundle": _ca("placeholder")},
        "rules": [
            {"apiGroups": ["none.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nones"]}
        ],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        **fields,
    }


def _writes(audit: AuditTrail, one: Manifest) -> list[dict[str, Any]]:
    events = audit.events(agent=AGENT, name=one["metadata"]["name"])
    return [event for event in events if event["verb"] in WRITES]


def test_c05_ca_bundles_are_left_to_whoever_issues_them(scene: Scene, live: Live, audit: AuditTrail) -> None:
    """CA bundles of webhooks and of a CRD's conversion, which Git declares too, stay as they are put in."""
    registration, stem = "admissionregistration.k8s.io/v1", scene.namespace
    configurations = [
        manifest(
            registration,
            kind,
            f"{stem}-{kind[:2].lower()}",
            webhooks=[_hook(f"{one}.example.com", stem) for one in "ab"],
        )
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ]
    gadgets = crd("gadgets", "c05.example.com", "Gadget")
    client = {"service": {"name": "hook", "namespace": stem}, "caBundle": _ca("placeholder")}
    gadgets["spec"]["conversion"] = {
        "strategy": "Webhook",
        "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]},
    }
    scene.declare(*configurations, gadgets)
    audit.mark()

    bundles = [{"name": f"{name}.example.com", "clientConfig": {"caBundle": _ca("issued")}} for name in "ab"]
    for one in configurations:
        live.patch(one, {"webhooks": bundles}, manager="cert-manager-cainjector", kind="strategic-merge")
    conversion = {"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": _ca("issued")}}}}}
    live.patch(gadgets, conversion, manager="cert-manager-cainjector")
    scene.settle()
    first = [len(_writes(audit, one)) for one in (*configurations, gadgets)]
    assert max(first) <= 1
    for number in range(3):
        for one in (*configurations, gadgets):
            live.patch(one, {"metadata": {"annotations": {"example.com/seen": str(number)}}}, manager="a-controller")
    for one in configurations:
        live.patch(one, {"metadata": {"labels": {"team": "night"}}}, manager="kubectl-label")
        scene.daemon.wait_drift(kind=one["kind"], name=one["metadata"]["name"], type="added")
    scene.settle()

    for one in configurations:
        hooks = (live.get(one) or {})["webhooks"]
        assert [hook["clientConfig"]["caBundle"] for hook in hooks] == [_ca("issued")] * 2
        assert len(_writes(audit, one)) <= 3
    found = live.get(gadgets)
    assert found is not None
    assert found["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] == _ca("issued")
    assert len(_writes(audit, gadgets)) <= 1
    for one in (*configurations, gadgets):
        assert scene.daemon.drift_total(kind=one["kind"], type="modified") == 0
    live.request("DELETE", live.path(gadgets))


def test_c05_rules_of_aggregated_cluster_roles_are_left_to_their_controller(
    scene: Scene, live: Live, audit: AuditTrail
) -> None:
    """The controller that aggregates ClusterRoles and the daemon agree; a role of which Git has rules as well."""
    rbac, stem = "rbac.authorization.k8s.io/v1", scene.namespace
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    labels = {"labels": {f"{stem}/aggregate": "yes"}}
    part = manifest(rbac, "ClusterRole", f"{stem}-part", metadata=labels, rules=rules)
    selector = {"clusterRoleSelectors": [{"matchLabels": labels["labels"]}]}
    wholes = [
        manifest(rbac, "ClusterRole", f"{stem}-whole-{number}", aggregationRule=selector, **fields)
        for number, fields in enumerate(({}, {"rules": []}, {"rules": [{**rules[0], "verbs": ["delete"]}]}))
    ]
    scene.declare(manifest("v1", "ConfigMap", "beside", stem), part)
    scene.daemon.commit({f"{stem}.yaml": [scene._witness, part, *wholes]})

    def has(one: Manifest, expected: list[dict[str, Any]]) -> bool:
        return bool((live.get(one) or {}).get("rules") == expected)

    for one in wholes:
        scene.daemon.wait(lambda one=one: has(one, rules), "the rules are aggregated")
    part["rules"] = [{**rules[0], "verbs": ["get", "list"]}]
    scene.daemon.commit({f"{stem}.yaml": [scene._witness, part, *wholes]})
    for one in wholes:
        scene.daemon.wait(lambda one=one: has(one, part["rules"]), "the new rules are aggregated")
    scene.settle()
    audit.mark()
    for one in wholes:
        live.patch(one, {"metadata": {"annotations": {"example.com/seen": "yes"}}}, manager="a-controller")
    scene.settle()

    for one in wholes:
        assert has(one, part["rules"])
        assert _writes(audit, one) == []
    assert scene.daemon.drift_total(kind="ClusterRole", type="modified") == 0
    assert scene.daemon.drift_total(kind="ClusterRole", type="added") == 0
