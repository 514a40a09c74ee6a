"""Files of config/deploy that follow from others: roles, the schema of the chart's values, alert rules, dashboards.

`python -m tests.support.deploy` writes them; a test compares.
"""

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from driftwatch.config.reference import json_schema
from driftwatch.model import GroupKind
from driftwatch.oneshot.rbac.requirements import guessed, of_kind
from driftwatch.oneshot.rbac.role import Account, manifests, rules

from tests.support import grafana_panels, prometheus_objects

DEPLOY = Path(__file__).parents[2] / "config/deploy"
SINGLE_NAMESPACE = "shop"

# What most teams keep in Git. No Secrets: who writes them can read them, too. No roles and no definitions.
NAMESPACED = [
    GroupKind("", "ConfigMap"),
    GroupKind("", "LimitRange"),
    GroupKind("", "PersistentVolumeClaim"),
    GroupKind("", "ResourceQuota"),
    GroupKind("", "Service"),
    GroupKind("", "ServiceAccount"),
    GroupKind("apps", "DaemonSet"),
    GroupKind("apps", "Deployment"),
    GroupKind("apps", "StatefulSet"),
    GroupKind("autoscaling", "HorizontalPodAutoscaler"),
    GroupKind("batch", "CronJob"),
    GroupKind("batch", "Job"),
    GroupKind("networking.k8s.io", "Ingress"),
    GroupKind("networking.k8s.io", "NetworkPolicy"),
    GroupKind("policy", "PodDisruptionBudget"),
]
USUAL = [GroupKind("", "Namespace"), *NAMESPACED]

_GENERATED = (
    "# Made by `python -m tests.support.deploy`: the role for the usual kinds. Put your own in its place, which\n"
)
_BY = "# `driftwatch rbac --config FILE` prints.\n"


def files() -> dict[Path, str]:
    """Every generated file and its content."""
    usual, namespaced = _requirements(USUAL), _requirements(NAMESPACED)
    namespace = Account().namespace
    inventory = manifests([], Account(), inventory=namespace)[2]["rules"]
    chart = DEPLOY / "chart"
    return {
        DEPLOY / "base/rbac.yaml": _documents(manifests(usual, Account(), inventory=namespace)),
        DEPLOY / "overlays/single-namespace/rbac.yaml": _documents(
            manifests(namespaced, Account(), confined=SINGLE_NAMESPACE, inventory=namespace)
        ),
        chart / "files/clusterrole.yaml": _yaml(rules(usual)),
        chart / "files/role.yaml": _yaml(rules(namespaced, confined=True)),
        chart / "files/inventory.yaml": _yaml(inventory),
        chart / "values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
        **_prometheus_rules(),
        **_dashboards(),
    }


def _prometheus_rules() -> dict[Path, str]:
    """What a kustomization and a chart need lies in their own folders: kustomize and helm read no others."""
    return {
        **{DEPLOY / "components/prometheus" / path.name: text for path, text in prometheus_objects.pages().items()},
        DEPLOY / "chart/files/driftwatch.rules.yaml": prometheus_objects.RULES.read_text(encoding="utf-8"),
    }


def _dashboards() -> dict[Path, str]:
    """The same for the dashboards, which are written without spaces: nobody reads these copies."""
    return {
        folder / f"{name}.json": json.dumps(dashboard, separators=(",", ":"), ensure_ascii=False) + "\n"
        for name, dashboard in grafana_panels.dashboards().items()
        for folder in (DEPLOY / "components/grafana", DEPLOY / "chart/files/dashboards")
    }


def values_schema() -> dict[str, Any]:
    """The schema of the chart's values; `config` has that of the configuration file."""
    config = copy.deepcopy(json_schema())
    definitions = config.pop("$defs", {})
    for key in ("$schema", "$id", "title"):
        config.pop(key, None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart driftwatch",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "image": _object(
                repository=_text(1), tag=_text(), pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}
            ),
            "imagePullSecrets": {"type": "array", "items": _object(name=_text(1))},
            "config": config,
            "gitSecretName": _text(1),
            "secretName": _text(1),
            "extraVolumes": _list("name"),
            "extraVolumeMounts": _list("name", "mountPath"),
            "serviceAccount": _object(create=_FLAG, name=_text(), annotations=_MAP),
            "rbac": _object(create=_FLAG, rules=_list("verbs")),
            "observeOnly": _FLAG,
            "persistence": _object(enabled=_FLAG, existingClaim=_text(), storageClassName=_text(), size=_text(1)),
            "serviceMonitor": _object(
                enabled=_FLAG,
                interval=_text(1),
                labels=_MAP,
                scheme={"enum": ["", "http", "https"]},
                tlsConfig={"type": "object"},
                authorization={"type": "object"},
            ),
            "prometheusRule": _object(enabled=_FLAG, labels=_MAP),
            "grafana": _object(dashboards=_object(enabled=_FLAG, labels=_MAP, annotations=_MAP)),
            "networkPolicy": _object(
                enabled=_FLAG,
                prometheusNamespace=_text(1),
                egressPorts={"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
                extraIngress=_list(),
                extraEgress=_list(),
            ),
            "log": _object(format={"enum": ["text", "json"]}, level={"enum": ["debug", "info", "warning", "error"]}),
            "env": _list("name"),
            "resources": {"type": "object"},
            "podAnnotations": _MAP,
            "podLabels": _MAP,
            "nodeSelector": _MAP,
            "tolerations": {"type": "array"},
            "affinity": {"type": "object"},
            "priorityClassName": _text(),
            "global": {"type": "object"},
        },
        "$defs": definitions,
    }


_FLAG = {"type": "boolean"}
_MAP = {"type": "object", "additionalProperties": {"type": "string"}}


def _text(shortest: int = 0) -> dict[str, Any]:
    return {"type": "string", "minLength": shortest}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _list(*required: str) -> dict[str, Any]:
    """A list of mappings with at least these keys; what else they have is for the API server to check."""
    return {"type": "array", "items": {"type": "object", **({"required": [*required]} if required else {})}}


def _requirements(kinds: list[GroupKind]) -> list[Any]:
    return [of_kind(guessed(kind)) for kind in kinds]


def _documents(objects: list[dict[str, Any]]) -> str:
    return _GENERATED + _BY + yaml.safe_dump_all(objects, sort_keys=False, width=120)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=120)


if __name__ == "__main__":
    for path, content in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
