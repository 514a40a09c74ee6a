"""Rendered sources through the whole daemon: healed like plain ones, and never without a last good snapshot."""

import base64
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.charts import HttpRepository, Registry
from tests.support.daemon import Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest, namespace_of
from tests.support.rendering import CHART, KUSTOMIZATION
from tests.support.scene import NewDaemon


def _service(name: str, namespace: str, port: int, **metadata: Any) -> Manifest:
    return manifest("v1", "Service", name, namespace, metadata=metadata, spec={"ports": [{"port": port}]})


def _create(live: Live, *objects: Manifest) -> None:
    for one in objects:
        live.patch(one, one, manager="tests", kind="apply")


def _overlay(namespace: str) -> dict[str, Any]:
    """The kustomization, in this namespace, which it declares."""
    overlay = KUSTOMIZATION["overlays/prod/kustomization.yaml"].replace("namespace: shop", f"namespace: {namespace}")
    return {
        **KUSTOMIZATION,
        "overlays/prod/kustomization.yaml": overlay.replace("[../../base]", "[../../base, namespace.yaml]"),
        "overlays/prod/namespace.yaml": namespace_of(namespace),
    }


def _diff(daemon: Daemon) -> tuple[int, str]:
    """Exit status and output of `driftwatch diff`."""
    command = [sys.executable, "-m", "driftwatch", "diff", f"--config={daemon.folder / 'driftwatch.yaml'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def _deleted_and_healed(daemon: Daemon, live: Live, *objects: Manifest) -> None:
    for one in objects:
        uid = live.uid(one)
        live.request("DELETE", live.path(one))
        daemon.wait(lambda one=one, uid=uid: live.uid(one) not in ("", uid), f"{one['metadata']['name']} is back")


def test_d03_a_kustomize_overlay_is_healed_and_survives_a_restart_without_git(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """What kustomize builds is healed; a commit that does not build leaves it in force; so does a start without Git."""
    daemon = new_daemon(options={"path": "overlays/prod"})
    daemon.commit(_overlay(namespace))
    daemon.start()
    web = _service("prod-web", namespace, 443, labels={"stage": "prod"})
    daemon.wait_in_sync(web)
    _deleted_and_healed(daemon, live, web)
    assert _diff(daemon) == (0, "")

    daemon.commit({"overlays/prod/api.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: nobody}\n"})
    [failure, *_] = daemon.wait(lambda: daemon.events("source cannot be read"), "the failure is told")
    assert "overlays/prod cannot be rendered: no resource matches" in failure["error"]
    assert "stays in force" in failure["next"]
    _deleted_and_healed(daemon, live, web)

    daemon.stop()
    live.request("DELETE", live.path(web))
    shutil.rmtree(daemon.repository.folder)
    daemon.start()
    daemon.wait_in_sync(web)
    _deleted_and_healed(daemon, live, web)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Run an OCI registry."""
    registry = Registry(tmp_path / "registry")
    yield registry
    registry.stop()


@pytest.fixture
def charts(tmp_path: Path) -> Iterator[HttpRepository]:
    """Run a chart repository."""
    charts = HttpRepository(tmp_path / "charts")
    yield charts
    charts.stop()


@pytest.mark.parametrize("kind", ["http", "oci"])
def test_d03_a_chart_from_a_chart_repository_heals_when_that_and_git_are_away(
    new_daemon: NewDaemon, live: Live, namespace: str, kind: str, request: pytest.FixtureRequest
) -> None:
    """A restart with Git and the chart repository gone heals all that the chart declares."""
    remote = request.getfixturevalue("charts" if kind == "http" else "registry")
    remote.publish("1.0.0", port=8080)
    chart = {"chart": "shop", "repository": remote.url, "version": "1.0.0", "plainHTTP": kind == "oci"}
    chart |= {"releaseName": "web", "namespace": namespace, "values": {"port": 8443}, "includeCRDs": False}
    daemon = new_daemon(name="plain")
    daemon.commit({"namespace.yaml": namespace_of(namespace)})
    repository = daemon.configuration["sources"][0]["repository"]
    daemon.configuration["sources"].append(
        {"name": "charts", "repository": repository, "interval": "250ms", "helm": chart}
    )
    daemon.start()
    web = _service("web-shop", namespace, 8443)
    daemon.wait_in_sync(web, source="charts")

    daemon.stop()
    remote.stop()
    shutil.rmtree(daemon.repository.folder)
    live.request("DELETE", live.path(web))
    daemon.start(ready=False)
    daemon.wait_in_sync(web, source="charts")
    _deleted_and_healed(daemon, live, web)


def test_d03_a_chart_sees_the_clusters_version_and_apis(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Capabilities are those of the API server; hooks and tests of the chart are not created."""
    template = CHART["shop/templates/extra.yaml"].replace("x.io/v1", "apps/v1/Deployment")
    template = template.replace("name: extra", f"name: extra\n  namespace: {namespace}")
    helm = {"releaseName": "shop", "values": {"extra": True}, "includeCRDs": False}
    daemon = new_daemon(options={"path": "shop", "namespace": namespace, "helm": helm})
    daemon.commit({**CHART, "shop/templates/extra.yaml": template, "shop/templates/ns.yaml": namespace_of(namespace)})
    daemon.start()
    version = live.request("GET", "/version")[1]["gitVersion"]
    extra = config_map("extra", namespace, kube=version, has="true")
    daemon.wait_in_sync(extra, _service("shop-shop", namespace, 80))
    assert live.uid(manifest("batch/v1", "Job", "migrate", namespace)) == ""


def test_d03_variables_from_the_cluster_are_followed(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A changed ConfigMap and Secret change the manifests without a commit; a deleted one leaves its last values."""
    team = config_map("cluster-vars", namespace, **{"TEAM": "one", "not-a-name": "x"})
    word = manifest("v1", "Secret", "words", namespace, data={"WORD": base64.b64encode(b"sesame-7531").decode()})
    _create(live, namespace_of(namespace), team, word)
    settings = config_map("settings", namespace, team="${TEAM}", stage="${STAGE}")
    login = manifest("v1", "Secret", "login", namespace, stringData={"word": "${WORD}"})
    references = [{"configMap": "cluster-vars", "namespace": namespace}, {"secret": "words", "namespace": namespace}]
    daemon = new_daemon(options={"vars": {"STAGE": "prod"}, "varsFrom": references}, log_level="debug")
    daemon.commit({"all.yaml": [settings, login]})
    daemon.start()
    daemon.wait_in_sync(config_map("settings", namespace, team="one", stage="prod"))

    live.patch(team, {"data": {"TEAM": "two"}}, manager="tests")
    expected = config_map("settings", namespace, team="two", stage="prod")
    daemon.wait_in_sync(expected)
    live.request("DELETE", live.path(team))
    _deleted_and_healed(daemon, live, expected)
    daemon.wait_in_sync(expected)
    secret = live.get(login)
    assert secret is not None
    assert base64.b64decode(secret["data"]["word"]) == b"sesame-7531"
    assert "sesame-7531" not in daemon.text()


def test_d05_a_source_whose_variables_are_missing_waits_for_them(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """The object is named with what to do, another source is healed meanwhile, and its creation is enough."""
    settings, other = config_map("settings", namespace, team="${TEAM}"), config_map("other", namespace)
    daemon = new_daemon(name="plain")
    daemon.commit({"plain/all.yaml": [namespace_of(namespace), other], "vars/all.yaml": settings})
    [plain] = daemon.configuration["sources"]
    plain["path"] = "plain"
    references = [{"configMap": "late", "namespace": namespace}]
    daemon.configuration["sources"].append({**plain, "name": "vars", "path": "vars", "varsFrom": references})
    daemon.start(ready=False)
    daemon.wait_in_sync(other)
    [failure, *_] = daemon.wait(lambda: daemon.events("source cannot be read", source="vars"), "it is told")
    assert f"ConfigMap {namespace}/late, which varsFrom names, is not in the cluster: create it" in failure["error"]

    _create(live, config_map("late", namespace, TEAM="three"))
    daemon.wait_in_sync(config_map("settings", namespace, team="three"), source="vars")


def test_d12_a_chart_that_loops_holds_up_no_healing(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """While it is rendered, and after it was ended, the last good snapshot heals."""
    daemon = new_daemon(options={"path": "shop", "namespace": namespace, "toolLimits": {"timeout": "3s"},
                        "helm": {"releaseName": "shop", "includeCRDs": False}})  # fmt: skip
    daemon.commit({**CHART, "shop/templates/ns.yaml": namespace_of(namespace)})
    daemon.start()
    web = _service("shop-shop", namespace, 80)
    daemon.wait_in_sync(web)
    loop = "{{ range until 20000 }}{{ range until 20000 }}{{ end }}{{ end }}"
    daemon.commit({"shop/templates/loop.yaml": loop})
    _deleted_and_healed(daemon, live, web)
    [failure, *_] = daemon.wait(lambda: daemon.events("source cannot be read"), "the failure is told")
    assert "helm was ended: it was not done within 3 s; see toolLimits.timeout" in failure["error"]
    _deleted_and_healed(daemon, live, web)
