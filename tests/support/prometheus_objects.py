"""The alert rules as objects for the Prometheus operator: `python -m tests.support.prometheus_objects` writes them.

Rules have one source, config/prometheus/driftwatch.rules.yaml, which a plain Prometheus loads as it is.
"""

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "config" / "prometheus"
RULES = FOLDER / "driftwatch.rules.yaml"
INTERVAL = "15s"

_HEAD = "# Made from driftwatch.rules.yaml by `python -m tests.support.prometheus_objects`; do not edit it by hand.\n"
# A component's objects are in no namespace but the one that they name: the overlay that takes it up may not set one.
_METADATA = {
    "name": "driftwatch",
    "namespace": "driftwatch-system",
    "labels": {"app.kubernetes.io/name": "driftwatch"},
}


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines stay readable."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def rules() -> dict[str, Any]:
    """The rule file."""
    return yaml.safe_load(RULES.read_text(encoding="utf-8"))


def pages() -> dict[Path, str]:
    """Each file as it should be."""
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": _METADATA,
        "spec": rules(),
    }
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _METADATA,
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": {"app.kubernetes.io/name": "driftwatch"}},
            # Else the operator's labels take the place of ours: namespace is that of the object, not of the daemon.
            "endpoints": [{"port": "http", "path": "/metrics", "interval": INTERVAL, "honorLabels": True}],
        },
    }
    return {
        FOLDER / "prometheusrule.yaml": _HEAD + _dumped(rule),
        FOLDER / "servicemonitor.yaml": _HEAD + _dumped(monitor),
    }


def definitions() -> list[dict[str, Any]]:
    """The operator's two definitions, as far as our objects have fields of them; whatever else is refused."""
    text, texts = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
    expression = {"x-kubernetes-int-or-string": True}
    rule = {"alert": text, "record": text, "expr": expression, "for": text, "labels": texts, "annotations": texts}
    group = _object(["name"], name=text, interval=text, rules=_list(_object(["expr"], **rule)))
    key = _object(["key"], name=text, key=text)
    endpoint = {
        **dict.fromkeys(("port", "path", "scheme", "interval"), text),
        "honorLabels": {"type": "boolean"},
        "tlsConfig": _object([], ca=_object([], secret=key, configMap=key), serverName=text),
        "authorization": _object([], type=text, credentials=key),
    }
    return [
        _definition("PrometheusRule", _object([], groups=_list(group))),
        _definition(
            "ServiceMonitor",
            _object(
                ["endpoints", "selector"],
                jobLabel=text,
                selector=_object([], matchLabels=texts),
                endpoints=_list(_object([], **endpoint)),
            ),
        ),
    ]


def _definition(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    plural, group = f"{kind.lower()}s", "monitoring.coreos.com"
    schema = _object(["spec"], spec=spec, apiVersion={"type": "string"}, kind={"type": "string"})
    schema["properties"]["metadata"] = {"type": "object"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _dumped(manifest: dict[str, Any]) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
