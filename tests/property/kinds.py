"""The kinds of which random manifests are made, with the fields that people tamper with.

Fields that cannot be changed once they are set (selectors, roleRef) stand still: what is to be done about those is
another matter.
"""

from typing import Any

from hypothesis import strategies as st

from tests.support.manifests import manifest
from tests.support.strategies import (
    GONE,
    Change,
    Item,
    Keyed,
    KindOf,
    Leaf,
    Map,
    Members,
    Struct,
    base64_words,
    one_of,
    quantity,
    words,
)

GROUP = "property.example.com"

YES, NO = True, False

_IMAGE = one_of("registry.example.com/app:1.0", "registry.example.com/app:2.0", "registry.example.com/other")
_ENV = Keyed(
    ({"name": "LEVEL"}, {"name": "REGION"}),
    ({"name": "ADDED"}, {"name": "x_added"}),
    Struct({"value": Leaf(words.filter(bool))}),
)
_PORTS = Keyed(
    ({"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}),
    ({"containerPort": 9999, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}),
    Struct({}),
    {"protocol": "TCP"},
)
_RESOURCES = Struct(
    {"requests": Map(("cpu", "memory"), ("ephemeral-storage",), quantity("1", "1000m", "2", "0.5", "500m", "1Ki"))}
)
_CONTAINER = Struct(
    {"image": _IMAGE},
    {
        "env": _ENV,
        "ports": _PORTS,
        "resources": _RESOURCES,
        "args": one_of(["--serve"], ["--serve", "--verbose"]),
        "imagePullPolicy": one_of("Always", "IfNotPresent"),
    },
)
_CONTAINERS = Keyed(({"name": "app"}, {"name": "sidecar"}), ({"name": "x-added"},), _CONTAINER)
_VOLUMES = Keyed(
    ({"name": "scratch"},),
    ({"name": "x-volume"},),
    Struct({"emptyDir": Struct({"sizeLimit": quantity("1Gi", "1024Mi", "2Gi")})}),
)
_TOLERATIONS = one_of([{"key": "a", "operator": "Exists"}], [{"key": "b", "operator": "Exists", "effect": "NoExecute"}])
_POD = {"containers": _CONTAINERS}
_POD_OPTIONS = {
    "volumes": _VOLUMES,
    "tolerations": _TOLERATIONS,
    "nodeSelector": one_of({"disk": "fast"}, {"disk": "slow", "zone": "a"}),
    "imagePullSecrets": Keyed(({"name": "registry"},), ({"name": "x-registry"},), Struct({})),
    "terminationGracePeriodSeconds": one_of(5, 30),
}
_TEMPLATE_LABELS = Map(("app",), ("x-added",), one_of("web"))
_STRATEGY = Struct({"type": one_of("RollingUpdate"), "rollingUpdate": Struct({"maxSurge": one_of(1, 2, "25%", "50%")})})

_APP = (("name", "app"),)
_TO_FIELD = {"name": "LEVEL", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
_CONTAINERS_AT = ("spec", "template", "spec", "containers")
DEPLOYMENT = KindOf(
    "apps/v1",
    "Deployment",
    Struct(
        {
            "spec": Struct(
                {
                    "selector": Leaf(st.just({"matchLabels": {"app": "web"}})),
                    "template": Struct(
                        {"metadata": Struct({"labels": _TEMPLATE_LABELS}), "spec": Struct(_POD, _POD_OPTIONS)}
                    ),
                },
                {
                    "replicas": one_of(0, 1, 2),
                    "minReadySeconds": one_of(3, 5),
                    "strategy": _STRATEGY,
                    "revisionHistoryLimit": one_of(1, 2),
                    "paused": one_of(YES),
                },
            )
        }
    ),
    swaps=(
        (Change(("spec", "strategy"), {"type": "Recreate"}),),
        (Change((*_CONTAINERS_AT, Item(_APP), "env", Item((("name", "LEVEL"),))), _TO_FIELD),),
        (
            Change(
                ("spec", "template", "spec", "volumes", Item((("name", "scratch"),))),
                {"name": "scratch", "configMap": {"name": "other"}},
            ),
        ),
    ),
    scales=True,
    status={"observedGeneration": 1},
)


def _name_ports(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**port, "name": f"port-{port['port']}"} for port in found]


class _ServicePorts(Keyed):
    """A Service's ports have names, each another one."""

    def __init__(self) -> None:
        super().__init__(
            ({"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 443, "protocol": "TCP"}),
            ({"port": 9999, "protocol": "TCP"},),
            Struct({"targetPort": one_of(80, 8080, "http")}, {"name": one_of("a-port", "other-port")}),
            {"protocol": "TCP"},
        )
        self.values = self.values.map(_name_ports)


SERVICE = KindOf(
    "v1",
    "Service",
    Struct(
        {
            "spec": Struct(
                {"ports": _ServicePorts(), "selector": one_of({"app": "web"}, {"app": "web", "tier": "a"})},
                {"sessionAffinity": one_of("None", "ClientIP"), "publishNotReadyAddresses": one_of(YES)},
            )
        }
    ),
    swaps=(
        (Change(("spec", "type"), "NodePort"),),
        (Change(("spec", "externalIPs"), ["192.0.2.7"]),),
    ),
)

_DATA = ("colour", "app.conf", "UPPER_case", "a-b")
_RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]},
]
_SUBJECTS = [{"kind": "ServiceAccount", "name": name, "namespace": "default"} for name in ("a", "b")]
_PORTS_80 = [{"port": 80, "protocol": "TCP"}]


def _ingress_rule(host: str) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}


_INGRESS_RULES = [_ingress_rule(f"{name}.example.com") for name in "ab"]
_JOB_POD = Struct({**_POD, "restartPolicy": one_of("OnFailure", "Never")}, _POD_OPTIONS)

SIMPLE = (
    KindOf(
        "v1",
        "ConfigMap",
        Struct(
            {"data": Map(_DATA, ("x-added", "z.conf"), Leaf(words))},
            {"binaryData": Map(("blob",), ("x-blob",), Leaf(base64_words))},
        ),
    ),
    KindOf("v1", "Secret", Struct({"data": Map(_DATA, ("x-added", "z.conf"), Leaf(base64_words))})),
    KindOf(
        "v1",
        "ServiceAccount",
        Struct(
            {},
            {
                "automountServiceAccountToken": one_of(YES, NO),
                "secrets": Keyed(({"name": "a"}, {"name": "b"}), ({"name": "x-added"},), Struct({})),
            },
        ),
    ),
    KindOf(
        "v1",
        "ResourceQuota",
        Struct(
            {
                "spec": Struct(
                    {
                        "hard": Map(
                            ("count/jobs.batch", "configmaps"), ("services",), quantity("500", "1k", "1000", "2k")
                        )
                    }
                )
            }
        ),
        status={"hard": {"configmaps": "7"}},
    ),
    KindOf("rbac.authorization.k8s.io/v1", "Role", Struct({"rules": one_of(_RULES, _RULES[:1], _RULES[1:])})),
    KindOf(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        Struct(
            {
                "roleRef": Leaf(st.just({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"})),
                "subjects": one_of(_SUBJECTS, _SUBJECTS[:1]),
            }
        ),
    ),
    KindOf(
        "networking.k8s.io/v1",
        "Ingress",
        Struct(
            {
                "spec": Struct(
                    {"rules": one_of(_INGRESS_RULES, _INGRESS_RULES[:1], _INGRESS_RULES[1:])},
                    {
                        "ingressClassName": one_of("a", "b"),
                        "tls": one_of([{"hosts": ["a.example.com"], "secretName": "a"}]),
                    },
                )
            }
        ),
        status={"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
    ),
    KindOf(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        Struct(
            {
                "spec": Struct(
                    {"podSelector": one_of({"matchLabels": {"app": "a"}}, {"matchLabels": {"app": "b", "tier": "b"}})},
                    {
                        "policyTypes": one_of(["Ingress"], ["Ingress", "Egress"]),
                        "ingress": one_of([{"ports": _PORTS_80}], [{"from": [{"podSelector": {}}]}]),
                    },
                )
            }
        ),
    ),
    KindOf(
        "policy/v1",
        "PodDisruptionBudget",
        Struct(
            {
                "spec": Struct(
                    {
                        "minAvailable": one_of(1, 2, "50%"),
                        "selector": one_of({"matchLabels": {"app": "a"}}, {"matchLabels": {"app": "b"}}),
                    },
                    {"unhealthyPodEvictionPolicy": one_of("AlwaysAllow", "IfHealthyBudget")},
                )
            }
        ),
        swaps=((Change(("spec", "minAvailable"), GONE), Change(("spec", "maxUnavailable"), 1)),),
        status={"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
    ),
    KindOf(
        "batch/v1",
        "CronJob",
        Struct(
            {
                "spec": Struct(
                    {
                        "schedule": one_of("0 0 1 1 *", "0 0 2 1 *"),
                        "suspend": one_of(YES),
                        "jobTemplate": Struct({"spec": Struct({"template": Struct({"spec": _JOB_POD})})}),
                    },
                    {"concurrencyPolicy": one_of("Allow", "Forbid"), "successfulJobsHistoryLimit": one_of(1, 2)},
                )
            }
        ),
    ),
)

_PART = Struct({"size": one_of(1, 2)}, {"note": one_of("a", "b"), "limits": Map(("a",), ("x",), one_of(1, 2))})
_ANYTHING = Map(("a", "b"), ("x-added",), one_of(1, 2, YES, "1", ["a"], [{"name": "x"}]))
WIDGET = KindOf(
    f"{GROUP}/v1",
    "Widget",
    Struct(
        {
            "spec": Struct(
                {"port": one_of(80, "http", "80")},  # a spec that loses its last field becomes null, and is refused
                {
                    "settings": Map(("a", "b.c"), ("x-added",), one_of("1", "", "true")),
                    "tags": Members(("a", "b"), ("x-added",)),
                    "parts": Keyed(({"id": "a"}, {"id": "b"}), ({"id": "x-added"},), _PART),
                    "order": one_of([1, 2], [2, 1], []),
                    "extra": Struct({}, {"known": one_of("a", "b"), "unknown": _ANYTHING}),
                    "replicas": one_of(1, 3),
                },
            )
        }
    ),
    scales=True,
    status={"phase": "Ready"},
    strategic=False,
)

KINDS = (DEPLOYMENT, SERVICE, WIDGET, *SIMPLE)


def _schema() -> dict[str, Any]:
    text = {"type": "string"}
    number = {"type": "integer"}
    part = {
        "type": "object",
        "required": ["id"],
        "properties": {
            "id": text,
            "size": number,
            "note": text,
            "limits": {"type": "object", "additionalProperties": number},
        },
    }
    spec = {
        "settings": {"type": "object", "additionalProperties": text},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": text},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": part,
        },
        "order": {"type": "array", "x-kubernetes-list-type": "atomic", "items": number},
        "port": {"x-kubernetes-int-or-string": True},
        "extra": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "replicas": number,
    }
    status = {"type": "object", "properties": {"phase": text, "replicas": number}}
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}, "status": status}}


def widget_crd() -> dict[str, Any]:
    """The CRD of the widgets: a map, a set, a keyed and an atomic list, int-or-string, unknown fields, subresources."""
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _schema()},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
    }
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
    return manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"widgets.{GROUP}", spec=spec)
