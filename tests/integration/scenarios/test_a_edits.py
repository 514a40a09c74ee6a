"""What is edited is put back, whichever way it is edited, and the editor is named."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import deployment, manifest
from tests.support.scene import Scene

IMAGE = "registry.example.com/app:2.0"


class Editor:
    """A person with kubectl, and the Deployment `web` that is declared."""

    def __init__(self, kubectl: Kubectl, live: Live, declared: Manifest, folder: Path) -> None:
        self.kubectl = kubectl
        self.live = live
        self.declared = declared
        self.folder = folder
        self.at = ("-n", declared["metadata"]["namespace"])

    def scale(self) -> None:
        self.kubectl("scale", "deploy/web", "--replicas=5", *self.at)

    def set_image(self) -> None:
        self.kubectl("set", "image", "deploy/web", f"app={IMAGE}", *self.at)

    def set_env(self) -> None:
        self.kubectl("set", "env", "deploy/web", "-c", "app", "LEVEL=debug", *self.at)

    def edit(self) -> None:
        script = self.folder / "editor"
        script.write_text("#!/bin/sh\nsed -i 's/replicas: 2/replicas: 7/' \"$1\"\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        with_editor = Kubectl(self.kubectl.program, self.kubectl.kubeconfig, self.folder)
        with_editor._environment["KUBE_EDITOR"] = str(script)
        with_editor("edit", "deploy/web", *self.at)

    def patch_merge(self) -> None:
        self.kubectl("patch", "deploy/web", "--type=merge", '-p={"spec":{"replicas":4}}', *self.at)

    def patch_strategic(self) -> None:
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": IMAGE}]}}}}
        self.kubectl("patch", "deploy/web", "--type=strategic", f"-p={json.dumps(patch)}", *self.at)

    def patch_json(self) -> None:
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": IMAGE}]
        self.kubectl("patch", "deploy/web", "--type=json", f"-p={json.dumps(patch)}", *self.at)

    def _changed(self, found: Manifest) -> str:
        found["spec"]["replicas"] = 6
        return json.dumps(found)

    def replace(self) -> None:
        found = json.loads(self.kubectl("get", "deploy/web", "-o", "json", *self.at).stdout)
        self.kubectl("replace", "-f", "-", input=self._changed(found))

    def replace_with_untracked(self) -> None:
        self.kubectl("replace", "-f", "-", input=self._changed(json.loads(json.dumps(self.declared))))

    def apply_client_side(self) -> None:
        self.kubectl("apply", "-f", "-", input=self._changed(json.loads(json.dumps(self.declared))))

    def apply_server_side(self) -> None:
        changed = self._changed(json.loads(json.dumps(self.declared)))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=changed)


EDITS = [
    (Editor.scale, "kubectl", "spec.replicas"),
    (Editor.set_image, "kubectl-set", 'spec.template.spec.containers[name="app"].image'),
    (Editor.set_env, "kubectl-set", 'spec.template.spec.containers[name="app"].env[name="LEVEL"].value'),
    (Editor.edit, "kubectl-edit", "spec.replicas"),
    (Editor.patch_merge, "kubectl-patch", "spec.replicas"),
    (Editor.patch_strategic, "kubectl-patch", 'spec.template.spec.containers[name="app"].image'),
    (Editor.patch_json, "kubectl-patch", 'spec.template.spec.containers[name="app"].image'),
    (Editor.replace, "kubectl-replace", "spec.replicas"),
    (Editor.apply_client_side, "kubectl-client-side-apply", "spec.replicas"),
    (Editor.apply_server_side, "kubectl", "spec.replicas"),
]


@pytest.mark.parametrize(("edit", "manager", "field"), EDITS, ids=[edit.__name__ for edit, _, _ in EDITS])
def test_a04_edit_is_reverted_and_its_manager_named(
    scene: Scene, kubectl: Kubectl, live: Live, tmp_path: Path, edit: Callable[[Editor], None], manager: str, field: str
) -> None:
    """An edit of a declared field is reverted in place, and counted once under the manager that made it."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    uid = live.uid(web)

    edit(Editor(kubectl, live, web, tmp_path))

    healed = scene.wait_drift("web")
    scene.daemon.wait_in_sync(web)
    assert live.uid(web) == uid
    assert healed["type"] == "modified"
    assert healed["manager"] == manager
    assert field in healed["fields"]
    scene.settle()
    assert scene.drift_total(type="modified", manager=manager) == 1
    assert len(scene.drifts()) == 1, scene.drifts()


def test_a04_replacement_without_the_tracking_label_is_reverted(
    scene: Scene, kubectl: Kubectl, live: Live, tmp_path: Path
) -> None:
    """Who replaces an object by a file of her own takes the label away, too: put back in place, never a deletion."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    uid = live.uid(web)

    Editor(kubectl, live, web, tmp_path).replace_with_untracked()

    scene.daemon.wait_in_sync(web)
    assert live.uid(web) == uid
    scene.settle()
    assert scene.drift_total(type="modified") == 1
    assert len(scene.drifts()) == 1, scene.drifts()


def _json_patch(path: str) -> tuple[str, ...]:
    return ("--type=json", f'-p=[{{"op":"remove","path":"{path}"}}]')


PODS = "/spec/template/spec"
REMOVALS = [
    ("label", "deploy/web", ("label", "deploy/web", "tier-")),
    ("annotation", "deploy/web", ("annotate", "deploy/web", "example.com/owner-")),
    ("variable", "deploy/web", ("set", "env", "deploy/web", "-c", "app", "LEVEL-")),
    ("container", "deploy/web", ("patch", "deploy/web", *_json_patch(f"{PODS}/containers/1"))),
    (
        "volume",
        "deploy/web",
        (
            "patch",
            "deploy/web",
            "--type=json",
            "-p="
            + json.dumps(
                [
                    {"op": "remove", "path": f"{PODS}/volumes/0"},
                    {"op": "remove", "path": f"{PODS}/containers/0/volumeMounts/0"},
                ]
            ),
        ),
    ),
    ("rule of a Role", "role/reader", ("patch", "role/reader", *_json_patch("/rules/1"))),
    ("rule of an Ingress", "ingress/web", ("patch", "ingress/web", *_json_patch("/spec/rules/1"))),
    ("key of a ConfigMap", "cm/settings", ("patch", "cm/settings", "--type=merge", '-p={"data":{"colour":null}}')),
    ("key of a Secret", "secret/login", ("patch", "secret/login", "--type=merge", '-p={"data":{"user":null}}')),
]


def _ingress_rule(host: str) -> dict:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}


def _tampered_with(namespace: str) -> dict[str, Manifest]:
    rules = [{"apiGroups": [""], "resources": [what], "verbs": ["get"]} for what in ("pods", "services")]
    hosts = [_ingress_rule(f"{name}.example.com") for name in "ab"]
    return {
        "deploy/web": deployment("web", namespace),
        "role/reader": manifest("rbac.authorization.k8s.io/v1", "Role", "reader", namespace, rules=rules),
        "ingress/web": manifest("networking.k8s.io/v1", "Ingress", "web", namespace, spec={"rules": hosts}),
        "cm/settings": manifest("v1", "ConfigMap", "settings", namespace, data={"colour": "red", "size": "4"}),
        "secret/login": manifest("v1", "Secret", "login", namespace, stringData={"user": "shop", "word": "sesame"}),
    }


@pytest.mark.parametrize(("target", "command"), [case[1:] for case in REMOVALS], ids=[case[0] for case in REMOVALS])
def test_a05_removed_part_is_put_back(
    scene: Scene, live: Live, kubectl: Kubectl, target: str, command: tuple[str, ...]
) -> None:
    """A declared part that somebody removes is put back in place, and counts as one modification."""
    declared = _tampered_with(scene.namespace)[target]
    scene.declare(declared)
    before = live.get(declared)
    assert before is not None

    kubectl(*command, "-n", scene.namespace)

    scene.wait_drift(declared["metadata"]["name"])
    scene.daemon.wait_in_sync(declared)
    after = live.get(declared)
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after.get("spec") == before.get("spec")
    scene.settle()
    assert [line["type"] for line in scene.drifts()] == ["modified"]
    assert scene.drift_total(type="modified") == 1
