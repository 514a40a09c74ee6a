"""What is deleted comes back, whatever its kind."""

from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.daemon import Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, deployment, manifest, namespace_of, pod_spec, pod_template
from tests.support.scene import daemons

NAMESPACE = "a02-kinds"
GROUP = "a02.example.com"
RBAC = "rbac.authorization.k8s.io"
ROLE_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
SUBJECTS = [{"kind": "ServiceAccount", "name": "robot", "namespace": NAMESPACE}]
SELECTOR = {"matchLabels": {"app": "web"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
PORTS = [{"port": 80, "protocol": "TCP"}]
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
INGRESS_RULE = {"host": "a.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}
SCALED = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def _namespaced(api_version: str, kind: str, name: str, **fields: object) -> Manifest:
    return manifest(api_version, kind, name, NAMESPACE, **fields)


def _role_ref(kind: str) -> dict[str, str]:
    return {"apiGroup": RBAC, "kind": kind, "name": "a02-reader"}


OBJECTS = [
    config_map("settings", NAMESPACE),
    _namespaced("v1", "Secret", "credentials", stringData={"user": "shop"}),
    _namespaced("v1", "Service", "web", spec={"selector": {"app": "web"}, "ports": PORTS}),
    _namespaced("v1", "ServiceAccount", "robot"),
    _namespaced("v1", "PersistentVolumeClaim", "data", spec=CLAIM),
    _namespaced("v1", "ResourceQuota", "quota", spec={"hard": {"count/secrets": "50"}}),
    _namespaced("v1", "LimitRange", "limits", spec={"limits": [{"type": "Pod", "max": {"cpu": "4", "memory": "8Gi"}}]}),
    deployment("web", NAMESPACE),
    _namespaced(
        "apps/v1",
        "StatefulSet",
        "db",
        spec={"serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": pod_template("db")},
    ),
    _namespaced(
        "apps/v1",
        "DaemonSet",
        "agent",
        spec={"selector": {"matchLabels": {"app": "agent"}}, "template": pod_template("agent")},
    ),
    _namespaced("batch/v1", "Job", "migrate", spec={"template": {"spec": pod_spec(restartPolicy="Never")}}),
    _namespaced(
        "batch/v1",
        "CronJob",
        "report",
        spec={
            "schedule": "0 4 * * *",
            "jobTemplate": {"spec": {"template": {"spec": pod_spec(restartPolicy="Never")}}},
        },
    ),
    _namespaced("networking.k8s.io/v1", "Ingress", "web", spec={"rules": [INGRESS_RULE]}),
    _namespaced(
        "networking.k8s.io/v1", "NetworkPolicy", "closed", spec={"podSelector": {}, "policyTypes": ["Ingress"]}
    ),
    _namespaced("policy/v1", "PodDisruptionBudget", "web", spec={"minAvailable": 1, "selector": SELECTOR}),
    _namespaced("autoscaling/v2", "HorizontalPodAutoscaler", "web", spec={"scaleTargetRef": SCALED, "maxReplicas": 3}),
    _namespaced(f"{RBAC}/v1", "Role", "a02-reader", rules=ROLE_RULES),
    _namespaced(f"{RBAC}/v1", "RoleBinding", "a02-reader", roleRef=_role_ref("Role"), subjects=SUBJECTS),
    manifest(f"{RBAC}/v1", "ClusterRole", "a02-reader", rules=ROLE_RULES),
    manifest(f"{RBAC}/v1", "ClusterRoleBinding", "a02-reader", roleRef=_role_ref("ClusterRole"), subjects=SUBJECTS),
    manifest("scheduling.k8s.io/v1", "PriorityClass", "a02-high", value=1000),
    manifest("storage.k8s.io/v1", "StorageClass", "a02-fast", provisioner="example.com/none"),
    _namespaced(f"{GROUP}/v1", "Widget", "widget", spec={"size": 3}),
    crd("widgets", GROUP, "Widget"),
]
WIDGET, WIDGETS = OBJECTS[-2:]


@pytest.fixture(scope="module")
def keeper(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that keeps one object of each kind, and never looks at Git again."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new(options={"interval": "1h"})
        daemon.commit({"all.yaml": [namespace_of(NAMESPACE), *OBJECTS]})
        daemon.start()
        daemon.wait_in_sync(*OBJECTS)
        yield daemon


@pytest.mark.parametrize("declared", OBJECTS, ids=lambda declared: declared["kind"])
def test_a02_deleted_object_of_any_kind_is_restored(
    keeper: Daemon, live: Live, kubectl: Kubectl, declared: Manifest
) -> None:
    """A deleted object comes back with a new uid, in sync, and counts as one deletion."""
    kind, name = declared["kind"], declared["metadata"]["name"]
    namespace = declared["metadata"].get("namespace", "")
    uid = live.uid(declared)
    group = declared["apiVersion"].rpartition("/")[0]

    kubectl(
        "delete", f"{kind}.{group}" if group else kind, name, *(["-n", namespace] if namespace else []), "--wait=false"
    )

    keeper.wait(lambda: live.uid(declared) not in ("", uid), f"the {kind} is back")
    keeper.wait_in_sync(declared)
    shown = f"{kind}.{GROUP}" if group == GROUP else kind
    healed = keeper.wait_drift(kind=shown, namespace=namespace, name=name)
    assert healed["verdict"] == "deleted"
    assert keeper.drift_total(kind=shown, namespace=namespace, type="modified") == 0


def test_a02_custom_resources_come_back_with_their_crd(keeper: Daemon, live: Live, kubectl: Kubectl) -> None:
    """With a deleted CRD its custom resources end, too; both come back, and the kind is watched as before."""
    uid = keeper.wait(lambda: _uid_or_none(live), "the custom resource is there")

    kubectl("delete", "crd", WIDGETS["metadata"]["name"], "--wait=false")
    keeper.wait(lambda: _uid_or_none(live) not in ("", uid), "the custom resource is back")
    keeper.wait_in_sync(WIDGETS, WIDGET)

    live.patch(WIDGET, {"spec": {"size": 7}}, manager="kubectl-edit")
    keeper.wait_in_sync(WIDGET)
    live.request("DELETE", live.path(WIDGET))
    keeper.wait_in_sync(WIDGET)


def _uid_or_none(live: Live) -> str:
    """The custom resource's uid; the path answers 404 in other words while its kind is not served."""
    code, found = live.request("GET", live.path(WIDGET))
    return found["metadata"]["uid"] if code == 200 else ""
