"""One object of each kind that scenario a02 names."""

from typing import Any

from tests.support.manifests import Manifest, config_map, crd, deployment, manifest, pod_spec, pod_template

RBAC = "rbac.authorization.k8s.io"
ROLE_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
SELECTOR = {"matchLabels": {"app": "web"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
PORTS = [{"port": 80, "protocol": "TCP"}]
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}
INGRESS_RULE = {"host": "a.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": BACKEND}]}}
SCALED = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


def every_kind(namespace: str, stem: str, group: str) -> list[Manifest]:
    """The objects, without the namespace; those of cluster-scoped kinds are called after `stem`, the CRD is the last.

    It defines the kind Widget of the API group `group`, whose object is the last but one.
    """
    reader = f"{stem}-reader"
    subjects = [{"kind": "ServiceAccount", "name": "robot", "namespace": namespace}]

    def inside(api_version: str, kind: str, name: str, **fields: Any) -> Manifest:
        return manifest(api_version, kind, name, namespace, **fields)

    def role_ref(kind: str) -> dict[str, str]:
        return {"apiGroup": RBAC, "kind": kind, "name": reader}

    return [
        config_map("settings", namespace),
        inside("v1", "Secret", "credentials", stringData={"user": "shop"}),
        inside("v1", "Service", "web", spec={"selector": {"app": "web"}, "ports": PORTS}),
        inside("v1", "ServiceAccount", "robot"),
        inside("v1", "PersistentVolumeClaim", "data", spec=CLAIM),
        inside("v1", "ResourceQuota", "quota", spec={"hard": {"count/secrets": "50"}}),
        inside("v1", "LimitRange", "limits", spec={"limits": [{"type": "Pod", "max": {"cpu": "4", "memory": "8Gi"}}]}),
        deployment("web", namespace),
        inside(
            "apps/v1",
            "StatefulSet",
            "db",
            spec={"serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": pod_template("db")},
        ),
        inside(
            "apps/v1",
            "DaemonSet",
            "agent",
            spec={"selector": {"matchLabels": {"app": "agent"}}, "template": pod_template("agent")},
        ),
        inside("batch/v1", "Job", "migrate", spec={"template": {"spec": pod_spec(restartPolicy="Never")}}),
        inside(
            "batch/v1",
            "CronJob",
            "report",
            spec={
                "schedule": "0 4 * * *",
                "jobTemplate": {"spec": {"template": {"spec": pod_spec(restartPolicy="Never")}}},
            },
        ),
        inside("networking.k8s.io/v1", "Ingress", "web", spec={"rules": [INGRESS_RULE]}),
        inside("networking.k8s.io/v1", "NetworkPolicy", "closed", spec={"podSelector": {}, "policyTypes": ["Ingress"]}),
        inside("policy/v1", "PodDisruptionBudget", "web", spec={"minAvailable": 1, "selector": SELECTOR}),
        inside("autoscaling/v2", "HorizontalPodAutoscaler", "web", spec={"scaleTargetRef": SCALED, "maxReplicas": 3}),
        inside(f"{RBAC}/v1", "Role", reader, rules=ROLE_RULES),
        inside(f"{RBAC}/v1", "RoleBinding", reader, roleRef=role_ref("Role"), subjects=subjects),
        manifest(f"{RBAC}/v1", "ClusterRole", reader, rules=ROLE_RULES),
        manifest(f"{RBAC}/v1", "ClusterRoleBinding", reader, roleRef=role_ref("ClusterRole"), subjects=subjects),
        manifest("scheduling.k8s.io/v1", "PriorityClass", f"{stem}-high", value=1000),
        manifest("storage.k8s.io/v1", "StorageClass", f"{stem}-fast", provisioner="example.com/none"),
        inside(f"{group}/v1", "Widget", "widget", spec={"size": 3}),
        crd("widgets", group, "Widget"),
    ]
