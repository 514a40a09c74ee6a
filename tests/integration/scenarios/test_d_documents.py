"""What is read from a repository, and what is passed over."""

import json

from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon


def test_d01_all_forms_of_manifests_are_applied(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """YAML and JSON, several documents, Lists in Lists: all applied; empty files and other YAML: passed over."""
    names = ("document-1", "document-2", "json", "listed", "nested", "typed")
    declared = {name: config_map(name, namespace) for name in names}
    inner = {"apiVersion": "v1", "kind": "List", "items": [declared["nested"]]}
    files = {
        "documents.yaml": [namespace_of(namespace), declared["document-1"], declared["document-2"]],
        "deep/down/object.json": json.dumps(declared["json"]),
        "list.yml": {"apiVersion": "v1", "kind": "List", "items": [declared["listed"], inner]},
        "typed.yaml": {"apiVersion": "v1", "kind": "ConfigMapList", "items": [declared["typed"]]},
        "empty.yaml": "",
        "comment.yaml": "# nothing yet\n",
        "separators.yaml": "---\n---\n# nothing\n---\n",
        "values.yaml": "replicas: 3\nimage: web\n",
        "ci.yml": "stages: [build, test]\nbuild:\n  script: make\n",
        "overlay/kustomization.yaml": "resources: [../documents.yaml]\n",
        "README.md": "kind: ConfigMap\n",
    }
    daemon = new_daemon(log_level="debug", options={"interval": "1h"})
    daemon.commit(files)

    daemon.start()

    daemon.wait_in_sync(*declared.values())
    assert [line for line in daemon.log() if line.get("level") in ("error", "warning")] == []
    passed_over = {line["file"].rpartition(":")[0]: line["reason"] for line in daemon.events("passed over")}
    assert {"values.yaml", "ci.yml", "overlay/kustomization.yaml"} <= passed_over.keys()
    assert all(passed_over.values())
    assert daemon.metric("driftwatch_managed_objects", kind="ConfigMap") == len(declared)
    assert live.difference(declared["nested"], daemon.source) == ""
