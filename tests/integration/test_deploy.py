"""What is in config/deploy is taken by a real API server, and the daemon works there as it is deployed."""

import copy
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import pytest
import urllib3
import yaml
from driftwatch.localcluster import LocalCluster
from driftwatch.model import GroupKind
from driftwatch.oneshot.rbac.requirements import Resource, guessed

from tests.support import deploy, grafana_panels, prometheus_objects
from tests.support.account import Account
from tests.support.daemon import Daemon
from tests.support.deploy import DEPLOY
from tests.support.documented import snippet
from tests.support.helm import Helm, Objects
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, daemons
from tests.support.waiting import until

NAMESPACE = "driftwatch-system"
EXAMPLES = Path(__file__).parents[2] / "config/examples"
ENDPOINTS = yaml.safe_load(snippet("deployment.md", "extraVolumes"))
CONFIG_MAP = manifest("v1", "ConfigMap", "driftwatch", NAMESPACE)
APPLY = ("apply", "--server-side", "--validate=strict", "--force-conflicts")
HELMS_OWN = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}


class Stage(NamedTuple):
    """A control plane of these tests' own: what is deployed here has names that others use, too."""

    cluster: LocalCluster
    kubectl: Kubectl
    live: Live


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A control plane with the base applied to it."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    cluster.up()
    live = Live(cluster.kubeconfig, tmp_path_factory.mktemp("credentials"))
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, tmp_path_factory.mktemp("home"))
    kubectl(*APPLY, "-k", str(DEPLOY / "base"))
    yield Stage(cluster, kubectl, live)
    live.close()
    cluster.down(delete=True)


@pytest.fixture(scope="module")
def account(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Account:
    """The service account of the base."""
    return Account(stage.kubectl, tmp_path_factory.mktemp("account"), NAMESPACE)


@pytest.fixture
def new_daemon(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDaemon]:
    """Make daemons for this control plane."""
    with daemons(stage.cluster, stage.live, tmp_path_factory) as new:
        yield new


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real helm."""
    return Helm(tmp_path_factory.mktemp("helm"))


def _kustomized(kubectl: Kubectl, folder: Path) -> Objects:
    return list(yaml.safe_load_all(kubectl("kustomize", str(folder)).stdout))


def _comparable(objects: Objects) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Objects by what they are, without what helm adds to each, and without the namespace, which helm's user makes."""
    found = {}
    for each in objects:
        stripped = _without_labels(copy.deepcopy(each))
        if each["kind"] == "ConfigMap":
            stripped["data"] = {name: yaml.safe_load(text) for name, text in each["data"].items()}
        metadata = each["metadata"]
        found[each["kind"], metadata.get("namespace", ""), metadata["name"]] = stripped
    return {key: each for key, each in found.items() if key[0] != "Namespace"}


def _without_labels(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_labels(each) for key, each in value.items() if key not in HELMS_OWN}
    if isinstance(value, list):
        return [_without_labels(each) for each in value]
    return value


def test_generated_files_are_current() -> None:
    """The usual roles and the schema of the chart's values are as the code has them now."""
    for path, content in deploy.files().items():
        assert path.read_text() == content, f"{path}: run `python -m tests.support.deploy`"


def test_every_built_in_kind_is_called_what_the_rule_for_plurals_says(stage: Stage) -> None:
    """Without a cluster, `driftwatch rbac` knows name and scope of every kind of Kubernetes as the API server does."""
    discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    found = [stage.live.request("GET", path, accept=discovery)[1]["items"] for path in ("/api", "/apis")]
    served = {
        GroupKind(group["metadata"].get("name", ""), each["responseKind"]["kind"]): each
        for group in [*found[0], *found[1]]
        for version in group["versions"]
        for each in version["resources"]
        if {"patch", "list", "watch"} <= set(each["verbs"])
    }

    assert len(served) > 40
    for kind, each in served.items():
        assert guessed(kind) == Resource(kind.group, each["resource"], namespaced=each["scope"] == "Namespaced")


def test_base_is_taken_by_the_api_server(stage: Stage) -> None:
    """`kubectl apply -k` with strict validation has taken it, and its Pod meets the restricted security standard."""
    stage.kubectl("wait", "--for=create", "pod", "-l", "app.kubernetes.io/name=driftwatch", "-n", NAMESPACE)

    again = stage.kubectl(*APPLY, "-k", str(DEPLOY / "base"))

    assert "Warning" not in again.stderr
    assert again.stdout.count("serverside-applied") == len(_kustomized(stage.kubectl, DEPLOY / "base"))


@pytest.mark.parametrize("overlay", ["observe-only", "own-role", "single-namespace"])
def test_overlay_is_taken_by_the_api_server(stage: Stage, overlay: str) -> None:
    """Each overlay passes strict validation as a whole."""
    stage.kubectl("create", "namespace", deploy.SINGLE_NAMESPACE, check=False)

    done = stage.kubectl(*APPLY, "--dry-run=server", "-k", str(DEPLOY / "overlays" / overlay))

    assert "Warning" not in done.stderr


def test_chart_is_taken_by_the_api_server(stage: Stage, helm: Helm) -> None:
    """What `helm template` prints passes strict validation in a namespace that allows restricted Pods only."""
    namespace = namespace_of("chart")
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    stage.kubectl("apply", "-f", "-", input=yaml.safe_dump(namespace))
    rendered = helm({"persistence": {"enabled": True}, "observeOnly": True}, release="other", namespace="chart")

    done = stage.kubectl(*APPLY, "-f", "-", input=rendered.stdout)

    assert "Warning" not in done.stderr
    stage.kubectl("wait", "--for=create", "pod", "-l", "app.kubernetes.io/instance=other", "-n", "chart")


def test_chart_and_base_are_the_same(stage: Stage, helm: Helm) -> None:
    """The chart with its own values renders what the base has, object by object, but for helm's labels."""
    assert _comparable(helm.objects()) == _comparable(_kustomized(stage.kubectl, DEPLOY / "base"))


@pytest.mark.parametrize(
    "variant", ["observe-only", "single-namespace", "persistence", "prometheus", "grafana", "endpoints"]
)
def test_chart_and_kustomize_have_the_same_variants(stage: Stage, helm: Helm, tmp_path: Path, variant: str) -> None:
    """An overlay or component and the value that is for the same come to the same objects."""
    folder = DEPLOY / "overlays" / variant
    values: dict[str, Any] = {
        "observe-only": {"observeOnly": True},
        "persistence": {"persistence": {"enabled": True}},
        "prometheus": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        "grafana": {"grafana": {"dashboards": {"enabled": True}}},
        "endpoints": {**ENDPOINTS, "prometheusRule": {"enabled": True}},
    }.get(variant, {})
    if folder.exists():
        values["config"] = yaml.safe_load((folder / "driftwatch.yaml").read_text())
    elif variant == "endpoints":
        folder = _with_components(tmp_path, "prometheus", "tls", "token", configuration=EXAMPLES / "endpoints.yaml")
    else:
        folder = _with_components(tmp_path, variant)

    rendered, kustomized = _comparable(helm.objects(values)), _comparable(_kustomized(stage.kubectl, folder))

    assert rendered.keys() == kustomized.keys()
    for key, each in rendered.items():
        assert _unlabelled(each) == _unlabelled(kustomized[key])


def _with_components(folder: Path, *components: str, configuration: Path = DEPLOY / "base/driftwatch.yaml") -> Path:
    """An overlay of the base with these components and this configuration."""
    shutil.copy(configuration, folder / "driftwatch.yaml")
    generator = {"name": "driftwatch", "namespace": NAMESPACE, "behavior": "merge", "files": ["driftwatch.yaml"]}
    kustomization = {
        "configMapGenerator": [generator],
        "resources": [os.path.relpath(DEPLOY / "base", folder.resolve())],
        "components": [os.path.relpath(DEPLOY / "components" / each, folder.resolve()) for each in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def _unlabelled(each: dict[str, Any]) -> dict[str, Any]:
    """Objects of components and overlays do not all carry the label of the base."""
    each["metadata"].pop("labels", None)
    return each


def test_rules_and_dashboards_are_taken_by_the_api_server(stage: Stage, helm: Helm, tmp_path: Path) -> None:
    """Components and chart pass strict validation by the operator's definitions, as far as our objects go into them."""
    definitions = yaml.safe_dump_all(prometheus_objects.definitions())
    stage.kubectl("apply", "-f", "-", input=definitions)
    try:
        stage.kubectl("wait", "--for=condition=Established", "-f", "-", input=definitions)
        overlay = _with_components(tmp_path, "grafana", "prometheus", "tls", "token")
        values = {
            **ENDPOINTS,
            "grafana": {"dashboards": {"enabled": True}},
            "prometheusRule": {"enabled": True},
        }

        by_kustomize = stage.kubectl(*APPLY, "--dry-run=server", "-k", str(overlay))
        by_helm = stage.kubectl(*APPLY, "--dry-run=server", "-f", "-", input=helm(values, release="beside").stdout)

        for done, name in ((by_kustomize, "driftwatch"), (by_helm, "beside")):
            assert "Warning" not in done.stderr
            for applied in (f"prometheusrule.monitoring.coreos.com/{name}", f"configmap/{name}-dashboard-overview"):
                assert applied in done.stdout
    finally:
        stage.kubectl("delete", "-f", "-", input=definitions)


def test_the_chart_has_the_rules_as_they_are(helm: Helm) -> None:
    """Helm leaves the rules' own templates alone; the labels that the operator selects by are added."""
    values = {"prometheusRule": {"enabled": True, "labels": {"release": "monitoring"}}}

    [rule] = [each for each in helm.objects(values) if each["kind"] == "PrometheusRule"]

    assert rule["spec"] == prometheus_objects.rules()
    assert rule["metadata"]["labels"]["release"] == "monitoring"
    assert "PrometheusRule" not in {each["kind"] for each in helm.objects()}


def test_dashboards_carry_the_label_that_the_sidecar_looks_for(stage: Stage, helm: Helm, tmp_path: Path) -> None:
    """By chart and by component each dashboard is a ConfigMap of its own, as it is in grafana/, and none by default."""
    annotations = {"grafana_folder": "driftwatch"}
    values = {"grafana": {"dashboards": {"enabled": True, "annotations": annotations}}}
    rendered = helm.objects(values)
    kustomized = _kustomized(stage.kubectl, _with_components(tmp_path, "grafana"))

    for objects in (rendered, kustomized):
        found = [each for each in objects if each["metadata"].get("labels", {}).get("grafana_dashboard") == "1"]
        texts = {name: text for each in found for name, text in each["data"].items()}
        assert {f"{name}.json" for name in grafana_panels.NAMES} == texts.keys()
        for name, dashboard in grafana_panels.dashboards().items():
            assert json.loads(texts[f"{name}.json"]) == dashboard
    assert all(each["metadata"]["annotations"] == annotations for each in rendered if "-dashboard-" in _name(each))
    assert not any("-dashboard-" in _name(each) for each in helm.objects())


def _name(each: dict[str, Any]) -> str:
    return str(each["metadata"]["name"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grafana": {"dashboards": {"enable": True}}}, "'enable' not allowed"),
        ({"prometheusRule": {"enabled": "yes"}}, "/prometheusRule/enabled"),
        ({"config": {"sources": [{"name": "a", "repository": "b", "intervall": "1s"}]}}, "'intervall' not allowed"),
        ({"config": {"sources": []}}, "/config/sources"),
        ({"persistance": {"enabled": True}}, "'persistance' not allowed"),
        ({"extraVolumeMounts": [{"name": "tls"}]}, "/extraVolumeMounts/0"),
        ({"serviceMonitor": {"scheme": "HTTPS"}}, "/serviceMonitor/scheme"),
        ({"config": {"server": {"listen": "127.0.0.1:9464"}}}, "the kubelet's probes need a fixed port"),
        ({"config": {"server": {"listen": "0.0.0.0:0"}}}, "the kubelet's probes need a fixed port"),
        ({"config": {"server": {"tokenFile": "/t", "openProbes": False}}}, "the kubelet has no token"),
    ],
)
def test_values_that_are_wrong_are_refused(helm: Helm, values: dict[str, Any], words: str) -> None:
    """The values' schema knows the chart's keys, and the configuration's; what no probe could reach is not rendered."""
    done = helm(values)

    assert done.returncode != 0
    assert words in done.stderr


def _in_cluster(new_daemon: NewDaemon, stage: Stage, account: Account) -> Daemon:
    """A daemon as it runs in its Pod: the deployed configuration, the service account's files, no kubeconfig."""
    daemon: Daemon = new_daemon(name="apps")
    launcher = daemon.folder / "in_cluster.py"
    # The one thing that is not as in a Pod: there these files are below /var/run.
    launcher.write_text(
        "from driftwatch.cli import main\n"
        "from kubernetes.aio.config import incluster_config\n"
        f"incluster_config.SERVICE_TOKEN_FILENAME = {str(account.token_file)!r}\n"
        f"incluster_config.SERVICE_CERT_FILENAME = {str(account.certificate_file)!r}\n"
        "main()\n"
    )
    address = urlparse(account.server)
    daemon.program = [sys.executable, str(launcher)]
    daemon.environment = {
        "KUBERNETES_SERVICE_HOST": str(address.hostname),
        "KUBERNETES_SERVICE_PORT": str(address.port),
    }
    deployed = stage.live.get(CONFIG_MAP)
    assert deployed is not None
    configuration = yaml.safe_load(deployed["data"]["driftwatch.yaml"])
    configuration["server"]["listen"] = "127.0.0.1:0"
    configuration["state"]["directory"] = str(daemon.folder / "state")
    configuration["sources"][0] |= {"repository": str(daemon.repository.folder), "interval": "250ms"}
    daemon.configuration = configuration
    return daemon


def _code(account: Account, token: str) -> int:
    """How the API server answers to a token."""
    with urllib3.PoolManager(ca_certs=str(account.certificate_file)) as pool:
        return pool.request("GET", f"{account.server}/version", headers={"Authorization": f"Bearer {token}"}).status


def test_daemon_with_the_deployed_configuration_heals_in_the_cluster(
    new_daemon: NewDaemon, stage: Stage, account: Account, namespace: str
) -> None:
    """With in-cluster credentials and the base's role alone it becomes ready, heals, and outlives its token."""
    live, bound_to = stage.live, manifest("v1", "Secret", "first-token", NAMESPACE)
    stage.kubectl("apply", "-f", "-", input=yaml.safe_dump(bound_to))
    bound = ("--bound-object-kind=Secret", "--bound-object-name=first-token")
    first = stage.kubectl("create", "token", "driftwatch", "-n", NAMESPACE, *bound).stdout.strip()
    account.put(first)
    daemon = _in_cluster(new_daemon, stage, account)
    settings, web = config_map("settings", namespace), deployment("web", namespace)
    daemon.commit({"clusters/production/all.yaml": [namespace_of(namespace), settings, web]})

    daemon.start()

    daemon.wait_in_sync(settings, web)
    live.request("DELETE", live.path(settings))
    daemon.wait_drift(kind="ConfigMap", type="deleted")

    # The kubelet replaces the token, and the first one ends: deleting what it is bound to ends it before its time.
    account.rotate()
    live.request("DELETE", live.path(bound_to))
    until(lambda: _code(account, first) == 401, "the first token is refused", timeout=60)
    live.patch(web, {"spec": {"replicas": 5}}, manager="kubectl-scale")
    daemon.wait_drift(kind="Deployment", type="modified")
    daemon.wait_in_sync(settings, web)
    assert daemon.events("not applied") == []
    assert daemon.events("watch is down") == []


def test_observe_only_admits_dry_runs_and_events_alone(
    new_daemon: NewDaemon, stage: Stage, account: Account, namespace: str
) -> None:
    """Under the observe-only overlay drift is reported; a write is refused even where the configuration is wrong."""
    stage.kubectl("create", "namespace", namespace)
    settings = config_map("settings", namespace)
    stage.kubectl("apply", "-f", "-", input=yaml.safe_dump(settings))
    account.rotate()
    policy = str(DEPLOY / "components/observe-only/admissionpolicy.yaml")
    stage.kubectl(*APPLY, "-k", str(DEPLOY / "overlays/observe-only"))
    try:
        until(lambda: _is_refused(stage, account, namespace), "the admission policy holds")
        stage.kubectl("create", "configmap", "tried", "-n", namespace, "--dry-run=server", f"--as={account.user}")
        observer = _in_cluster(new_daemon, stage, account)
        observer.commit({"clusters/production/all.yaml": settings})
        observer.start()
        stage.live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        observer.wait(lambda: observer.drifts(name="settings", type="modified"), "the drift is reported")

        writer = _in_cluster(new_daemon, stage, account)
        writer.configuration["sources"][0]["mode"] = "heal"
        writer.commit({"clusters/production/all.yaml": settings})
        writer.start(ready=False)

        (said,) = writer.wait(lambda: writer.events("not applied"), "the write is refused")
        assert "driftwatch only observes here" in said["error"]
        assert stage.live.get(settings)["data"] == {"colour": "blue"}
    finally:
        stage.kubectl("delete", "-f", policy)
        stage.kubectl(*APPLY, "-k", str(DEPLOY / "base"))


def _is_refused(stage: Stage, account: Account, namespace: str) -> bool:
    """Whether the account cannot create a ConfigMap, which its role allows."""
    done = stage.kubectl("create", "configmap", "tried", "-n", namespace, f"--as={account.user}", check=False)
    if done.returncode == 0:
        stage.kubectl("delete", "configmap", "tried", "-n", namespace)
    return "driftwatch only observes here" in done.stderr
