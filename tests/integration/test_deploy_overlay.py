"""The overlay of docs/deployment.md builds as it stands there, with every role that is printed and every component."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from driftwatch.tools import KUSTOMIZE, ensure

from tests.support.account import run_rbac
from tests.support.deploy import DEPLOY, SINGLE_NAMESPACE
from tests.support.documented import snippet
from tests.support.manifests import config_map, deployment, manifest
from tests.support.repository import Repository

NAMESPACE = "driftwatch-system"
RBAC = "rbac.authorization.k8s.io"
OVERLAY = snippet("deployment.md", "kind: Kustomization")
OVERLAYS = "../driftwatch/config/deploy/overlays"
COMPONENTS = [
    snippet("deployment.md", "components/persistence"),
    snippet("deployment.md", "components/tls"),
    snippet("grafana.md", "components/grafana"),
    "components: [../driftwatch/config/deploy/components/observe-only]\n",
]
WITHOUT_NAMESPACE = {
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}

Objects = list[dict[str, Any]]
VARIABLES = {"varsFrom": [{"configMap": "cluster-vars", "namespace": "platform", "optional": True}]}


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A folder for an overlay, beside a copy of what is in config/deploy."""
    shutil.copytree(DEPLOY, tmp_path / "driftwatch/config/deploy")
    folder = tmp_path / "production"
    folder.mkdir()
    shutil.copy(DEPLOY / "base/driftwatch.yaml", folder)
    shutil.copy(DEPLOY / "base/rbac.yaml", folder / "role.yaml")
    return folder


def _built(overlay: Path, kustomization: str) -> Objects:
    (overlay / "kustomization.yaml").write_text(kustomization)
    done = subprocess.run(
        [ensure(KUSTOMIZE).path, "build", overlay], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _place(each: dict[str, Any]) -> tuple[str, str, str]:
    return each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]


def _places(objects: Objects) -> set[tuple[str, str, str]]:
    return {_place(each) for each in objects}


def _roles(objects: Objects) -> Objects:
    """Roles and bindings in an order that does not depend on how they were made."""
    return sorted((each for each in objects if each["apiVersion"].startswith(RBAC)), key=_place)


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        pytest.param({}, (), id="default"),
        pytest.param({"source": VARIABLES}, (), id="variables"),
        pytest.param({}, ("--by-namespace",), id="by-namespace"),
        pytest.param({"source": VARIABLES}, ("--by-namespace",), id="by-namespace-variables"),
        pytest.param({"source": VARIABLES, "cluster": {"namespace": SINGLE_NAMESPACE}}, (), id="one-namespace"),
        pytest.param({"inventory": {"namespace": ""}}, (), id="no-inventory"),
        pytest.param({"inventory": {"namespace": "platform"}}, (), id="inventory-elsewhere"),
        pytest.param({"source": VARIABLES}, ("--output=json",), id="json"),
        pytest.param({}, ("--kind=Certificate.cert-manager.io",), id="kind"),
        pytest.param({"source": VARIABLES}, ("--name=other",), id="name"),
    ],
)
def test_overlay_has_the_roles_that_are_printed_and_no_others(
    overlay: Path, tmp_path: Path, cluster: LocalCluster, settings: dict[str, Any], flags: tuple[str, ...]
) -> None:
    """Whatever `driftwatch rbac` prints is taken as it is, in place of the base's roles."""
    repository = Repository(tmp_path / "git")
    declared = [config_map("settings", SINGLE_NAMESPACE), deployment("web", SINGLE_NAMESPACE)]
    if "cluster" not in settings:
        declared += [config_map("settings", "elsewhere"), manifest(f"{RBAC}/v1", "ClusterRole", "reader", rules=[])]
    repository.commit({"all.yaml": declared})
    configuration = {
        "cluster": {"kubeconfig": str(cluster.kubeconfig), **settings.get("cluster", {})},
        "inventory": settings.get("inventory", {}),
        "state": {"directory": str(tmp_path / "state")},
        "sources": [{"name": "apps", "repository": str(repository.folder), **settings.get("source", {})}],
    }
    file = overlay / "driftwatch.yaml"
    file.write_text(yaml.safe_dump(configuration))
    done = run_rbac(f"--config={file}", *flags)
    assert done.returncode == 0, done.stderr
    (overlay / "role.yaml").write_text(done.stdout)

    built = _built(overlay, OVERLAY)

    printed = list(yaml.safe_load_all(done.stdout))
    assert _roles(built) == _roles(printed[0].get("items", printed))
    assert {"Deployment", "ServiceAccount", "ConfigMap"} <= {each["kind"] for each in built}


@pytest.mark.parametrize("components", COMPONENTS, ids=lambda text: text.split("components/")[-1].strip("]\n"))
@pytest.mark.parametrize("under", ["own-role", "single-namespace"])
def test_components_come_into_the_namespace_of_the_daemon(overlay: Path, components: str, under: str) -> None:
    """What a component adds is where the daemon is, though the overlay names no namespace; no Role is moved."""
    kustomization = OVERLAY.replace(f"{OVERLAYS}/own-role", f"{OVERLAYS}/{under}")
    if under == "single-namespace":
        kustomization = kustomization.replace("  - role.yaml", "#")
    without = _places(_built(overlay, kustomization))

    found = _places(_built(overlay, kustomization + components))

    assert without < found
    assert {namespace for kind, namespace, _ in found - without if kind not in WITHOUT_NAMESPACE} <= {NAMESPACE}
    assert {namespace for kind, namespace, _ in found if kind not in WITHOUT_NAMESPACE} == (
        {NAMESPACE} | ({SINGLE_NAMESPACE} if under == "single-namespace" else set())
    )


def test_every_component_is_tried() -> None:
    """The documents show, or the tests have, each component there is."""
    shown = {Path(each).name for text in COMPONENTS for each in yaml.safe_load(text)["components"]}

    assert shown == {each.name for each in (DEPLOY / "components").iterdir()}


def test_the_image_of_the_overlay_is_what_runs(overlay: Path) -> None:
    """The name that is replaced is that of the base."""
    [daemon] = [each for each in _built(overlay, OVERLAY) if each["kind"] == "Deployment"]

    [container] = daemon["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("registry.internal/driftwatch:")
