"""The objects of the contenders. They differ only in the namespace, so every contender has the same work."""

from pathlib import PurePosixPath
from typing import Any

import yaml

Body = dict[str, Any]

PROBED = "bench-probed"  # label of the objects that the probe watches; it does not see the thousands of others
IMAGE = "registry.example/shop:1.0"
WRONG_IMAGE = "registry.example/shop:0.9-hotfix"
DECLARED = "declared"
EDITED = "edited by hand"
VICTIMS = {"delete": "victim-deleted", "edit": "victim-edited"}
"""The disturbed object of each disturbance. One object for both would drift too often, so its heals would slow down."""

_COLLECTIONS = {"Deployment": ("/apis/apps/v1", "deployments"), "ConfigMap": ("/api/v1", "configmaps")}
KINDS = tuple(_COLLECTIONS)


def collection(kind: str, namespace: str = "") -> str:
    """API path of all objects of a kind, in one namespace or in all."""
    prefix, plural = _COLLECTIONS[kind]
    return f"{prefix}/namespaces/{namespace}/{plural}" if namespace else f"{prefix}/{plural}"


def path(kind: str, namespace: str, name: str) -> str:
    """API path of one object."""
    return f"{collection(kind, namespace)}/{name}"


def declared_value(kind: str) -> str:
    """The declared value of the field that the probe edits."""
    return IMAGE if kind == "Deployment" else DECLARED


def value_of(live: Body) -> str:
    """The live value of the field that the probe edits."""
    if live["kind"] == "Deployment":
        return str(live["spec"]["template"]["spec"]["containers"][0]["image"])
    return str(live["data"]["setting"])


def edit_of(kind: str) -> tuple[str, Body]:
    """The probe's edit, as content type and patch: `kubectl set image`, or a value changed in an editor."""
    if kind == "Deployment":
        containers = [{"name": "app", "image": WRONG_IMAGE}]
        return "application/strategic-merge-patch+json", {"spec": {"template": {"spec": {"containers": containers}}}}
    return "application/merge-patch+json", {"data": {"setting": EDITED}}


def configmap(namespace: str, name: str, *labels: str, setting: str = DECLARED) -> Body:
    """A small ConfigMap."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "shop"} | dict.fromkeys(labels, "yes")},
        "data": {"setting": setting, "log.level": "info", "database.url": f"postgres://db.{namespace}.svc:5432/{name}"},
    }


def deployment(namespace: str, name: str, *labels: str) -> Body:
    """A Deployment of a common size. With managedFields and status its watch event has about 3 KB."""
    container = {
        "name": "app",
        "image": IMAGE,
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "shop"} | dict.fromkeys(labels, "yes")},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [container]},
            },
        },
    }


NOISY_GROUP = "bench.example"
FILLER = {
    f"setting-{number:02}": "a sentence about it that makes the object as large as they are" for number in range(24)
}


def noisy(namespace: str, number: int) -> list[Body]:
    """A custom resource definition with a status subresource, and one object. Its watch event has about 3 KB."""
    kind, plural = f"Noisy{number:02}", f"noisy{number:02}s"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
        "subresources": {"status": {}},
    }
    names = {"kind": kind, "plural": plural, "singular": plural.removesuffix("s"), "listKind": f"{kind}List"}
    return [
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{NOISY_GROUP}"},
            "spec": {"group": NOISY_GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
        },
        {
            "apiVersion": f"{NOISY_GROUP}/v1",
            "kind": kind,
            "metadata": {"name": "noisy", "namespace": namespace, "labels": {"app": "shop"}},
            "spec": FILLER,
        },
    ]


def noisy_path(namespace: str, number: int) -> str:
    """API path of the object from `noisy`."""
    return f"/apis/{NOISY_GROUP}/v1/namespaces/{namespace}/noisy{number:02}s/noisy"


def burst_names(count: int) -> list[str]:
    """Names of the ConfigMaps of a burst."""
    return [f"burst-{number:05}" for number in range(count)]


def contested(namespace: str, burst: int) -> list[Body]:
    """The objects of a contender in latency measurements: victims of each kind, and `burst` ConfigMaps."""
    return [
        *(deployment(namespace, name, PROBED) for name in VICTIMS.values()),
        *(configmap(namespace, name, PROBED) for name in VICTIMS.values()),
        *(configmap(namespace, name, PROBED) for name in burst_names(burst)),
    ]


def many(namespace: str, count: int, burst: int = 0) -> list[Body]:
    """`count` objects, most of them ConfigMaps: those of a contender, one that the commits change, and others."""
    first = [*contested(namespace, burst), configmap(namespace, "changed", PROBED)]
    return first + [configmap(namespace, f"item-{number:05}") for number in range(count - len(first))]


def files(bodies: list[Body]) -> dict[PurePosixPath, str]:
    """The files of `bodies` in a repository: one file for each object, a hundred files in a folder."""
    return {
        PurePosixPath(f"part-{number // 100:03}", f"{body['kind'].lower()}-{body['metadata']['name']}.yaml"): as_yaml(
            body
        )
        for number, body in enumerate(bodies)
    }


def as_yaml(body: Body) -> str:
    """One manifest as text."""
    return yaml.dump(body, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
