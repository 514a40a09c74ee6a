"""Manifests that tests declare, as small as their kinds allow."""

from typing import Any

Manifest = dict[str, Any]


def manifest(api_version: str, kind: str, name: str, namespace: str = "", **fields: Any) -> Manifest:
    """Any object."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **fields.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def namespace_of(name: str) -> Manifest:
    """A Namespace."""
    return manifest("v1", "Namespace", name)


def config_map(name: str, namespace: str, **data: str) -> Manifest:
    """A ConfigMap."""
    return manifest("v1", "ConfigMap", name, namespace, data=data or {"colour": "red"})


def pod_spec(**fields: Any) -> dict[str, Any]:
    """A Pod's spec; nothing runs it, there are no nodes."""
    return {"containers": [{"name": "app", "image": "registry.example.com/app:1.0"}], **fields}


def pod_template(name: str, **fields: Any) -> dict[str, Any]:
    """A Pod template whose label `app` is the name."""
    return {"metadata": {"labels": {"app": name}}, "spec": pod_spec(**fields)}


def deployment(name: str, namespace: str, **spec: Any) -> Manifest:
    """A Deployment with an environment variable, a volume, requests, a label and an annotation to tamper with."""
    container = {
        "name": "app",
        "image": "registry.example.com/app:1.0",
        "env": [{"name": "LEVEL", "value": "info"}, {"name": "REGION", "value": "eu"}],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    sidecar = {"name": "sidecar", "image": "registry.example.com/sidecar:1.0"}
    template = pod_template(name, containers=[container, sidecar], volumes=[{"name": "scratch", "emptyDir": {}}])
    return manifest(
        "apps/v1",
        "Deployment",
        name,
        namespace,
        metadata={"labels": {"tier": "web"}, "annotations": {"example.com/owner": "shop"}},
        spec={"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    )


def crd(plural: str, group: str, kind: str) -> Manifest:
    """A CustomResourceDefinition of a namespaced kind with one field, `spec.size`."""
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return manifest(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        f"{plural}.{group}",
        spec={
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [version],
        },
    )


def deep(depth: int) -> dict[str, Any]:
    """A value that is nested so deeply: JSONPath's `..` gives up at a hundred, as by a mistake of our own."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


def anything(definition: Manifest) -> Manifest:
    """The CustomResourceDefinition, with objects that may hold any fields."""
    [version] = definition["spec"]["versions"]
    version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return definition
