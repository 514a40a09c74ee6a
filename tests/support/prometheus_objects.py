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
_METADATA = {"name": "driftwatch", "labels": {"app.kubernetes.io/name": "driftwatch"}}


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


def _dumped(manifest: dict[str, Any]) -> str:
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
