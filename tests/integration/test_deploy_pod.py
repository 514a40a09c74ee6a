"""The daemon works with what its Pod has: the files that are mounted, the port and the scheme that are probed."""

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from driftwatch.tools import KUSTOMIZE, ensure

from tests.support.daemon import Daemon
from tests.support.deploy import DEPLOY
from tests.support.documented import snippet
from tests.support.helm import Helm, Objects
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.pod import Pod, ask
from tests.support.receiver import receiver
from tests.support.scene import NewDaemon, daemons
from tests.support.self_signed import write_pair

EXAMPLES = Path(__file__).parents[2] / "config/examples"
OVERLAY = snippet("deployment.md", "kind: Kustomization")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
TOKEN = "a-token-of-the-endpoints"


@pytest.fixture
def new_daemon(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDaemon]:
    """Make daemons of the test's own; they are stopped after it."""
    with daemons(cluster, live, tmp_path_factory) as new:
        yield new


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real helm."""
    return Helm(tmp_path_factory.mktemp("helm"))


def _overlay(folder: Path, configuration: Path, *snippets: str) -> Objects:
    """What the overlay of the page makes, with these snippets of the page beside it."""
    shutil.copytree(DEPLOY, folder / "driftwatch/config/deploy")
    overlay = folder / "production"
    overlay.mkdir()
    shutil.copy(configuration, overlay / "driftwatch.yaml")
    shutil.copy(DEPLOY / "base/rbac.yaml", overlay / "role.yaml")
    (overlay / "kustomization.yaml").write_text(OVERLAY + "".join(snippets))
    done = subprocess.run(
        [ensure(KUSTOMIZE).path, "build", overlay], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _endpoints(made_by: str, folder: Path, helm: Helm) -> Objects:
    """What the page on deployment shows for TLS and a token, made by one of the two."""
    if made_by == "kustomize":
        return _overlay(folder, EXAMPLES / "endpoints.yaml", snippet("deployment.md", "components/tls"))
    values = yaml.safe_load(snippet("deployment.md", "extraVolumes"))
    if made_by == "helm, another port":
        values["config"]["server"]["listen"] = "0.0.0.0:8443"
    return helm.objects(values)


def _one(objects: Objects, kind: str) -> dict[str, Any]:
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def _in_pod(daemon: Daemon, pod: Pod) -> None:
    """Have the daemon run with the Pod's configuration, files and variables, but from its own repository."""
    configuration = pod.configuration
    listens_on = int(configuration["server"]["listen"].rpartition(":")[2])
    assert listens_on == pod.port
    configuration["server"]["listen"] = "127.0.0.1:0"
    configuration["cluster"] = daemon.configuration["cluster"]
    configuration["sources"] = daemon.configuration["sources"]
    daemon.configuration = configuration
    daemon.environment = pod.environment


@pytest.mark.parametrize("made_by", ["kustomize", "helm", "helm, another port"])
def test_endpoints_with_tls_and_a_token_are_probed_and_scraped(
    new_daemon: NewDaemon, helm: Helm, tmp_path: Path, namespace: str, made_by: str
) -> None:
    """The kubelet's probes are answered, Prometheus is with what its ServiceMonitor names, and nobody else is."""
    write_pair(tmp_path / "tls.crt", tmp_path / "tls.key", "driftwatch")
    pair = {name: (tmp_path / name).read_text() for name in ("tls.crt", "tls.key")}
    secrets = {"driftwatch-tls": {**pair, "ca.crt": pair["tls.crt"]}, "driftwatch-secrets": {"token": f"{TOKEN}\n"}}
    objects = _endpoints(made_by, tmp_path, helm)
    (tmp_path / "volumes").mkdir()
    pod = Pod(objects, secrets, tmp_path / "volumes")
    daemon = new_daemon()
    settings = config_map("settings", namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    _in_pod(daemon, pod)

    daemon.start(ready=False)

    daemon.wait(lambda: daemon.events("listening"), "it listens")
    port = int(daemon.events("listening")[-1]["address"].rpartition(":")[2])
    daemon.wait(lambda: [pod.probe(name, port) for name in PROBES] == [200, 200, 200], "every probe is answered")
    daemon.wait_in_sync(settings)
    [endpoint] = _one(objects, "ServiceMonitor")["spec"]["endpoints"]
    authority, credentials = endpoint["tlsConfig"]["ca"]["secret"], endpoint["authorization"]["credentials"]
    context = ssl.create_default_context(cadata=secrets[authority["name"]][authority["key"]])
    scraped = endpoint["scheme"], port, endpoint["path"], context
    assert ask(*scraped, secrets[credentials["name"]][credentials["key"]].strip()) == 200
    assert ask(*scraped, "another") == 401
    assert endpoint["tlsConfig"]["serverName"] == "driftwatch.driftwatch-system.svc"
    [served] = _one(objects, "Service")["spec"]["ports"]
    assert served == {"name": endpoint["port"], "port": pod.port, "targetPort": "http"}


def test_receivers_of_the_example_are_told_from_the_pod(
    new_daemon: NewDaemon, helm: Helm, kubectl: Kubectl, tmp_path: Path
) -> None:
    """The example as the chart's configuration: addresses, tokens and journal are on volumes, and each is told."""
    namespace = "shop-notified"
    values = yaml.safe_load(snippet("deployment.md", "TEAMS_WORKFLOW_URL"))
    values["config"] = yaml.safe_load((EXAMPLES / "notifications.yaml").read_text())
    write_pair(tmp_path / "audit.crt", tmp_path / "audit.key", "audit")
    (tmp_path / "volumes").mkdir()
    with receiver(tmp_path / "audit.crt", tmp_path / "audit.key") as audit, receiver() as others:
        secret = {
            "slack-url": f"{others.url}/slack\n",
            "audit-token": TOKEN,
            "audit-ca.crt": (tmp_path / "audit.crt").read_text(),
            "teams-url": f"{others.url}/teams",
        }
        pod = Pod(helm.objects(values), {"driftwatch-secrets": secret}, tmp_path / "volumes")
        daemon = new_daemon()
        settings = config_map("settings", namespace)
        daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
        _in_pod(daemon, pod)
        # What is no secret stands in the configuration, and leads to nobody here.
        there = {"audit": {"url": audit.url}, "alertmanager": {"url": f"{others.url}/am"}}
        daemon.configuration["notifications"] = [
            {**each, **there.get(each["name"], {}), "severity": "info", "batchWindow": "20ms"}
            for each in daemon.configuration["notifications"]
        ]

        daemon.start()
        daemon.wait_in_sync(settings)
        kubectl("label", "configmap", "settings", "-n", namespace, "extra=yes")
        daemon.wait_drift(name="settings", namespace=namespace)

        told = {"/slack", "/teams", "/am/api/v2/alerts"}
        daemon.wait(lambda: audit.requests and {each.path for each in others.requests} == told, "each is told")
        assert audit.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"
        journal = values["config"]["journal"]["file"]
        assert '"event":"healed"' in pod.here(journal).read_text()
        assert pod.may_write(journal)
        daemon.stop()


def test_the_port_of_the_example_s_receiver_is_open(helm: Helm, tmp_path: Path) -> None:
    """The rule that the page shows, for kustomize and for the chart, lets the example's Alertmanager be reached."""
    opened = snippet("deployment.md", "path: /spec/egress/-")
    patched = _one(_overlay(tmp_path, EXAMPLES / "notifications.yaml", opened), "NetworkPolicy")
    values = yaml.safe_load(snippet("deployment.md", "TEAMS_WORKFLOW_URL"))
    rendered = _one(helm.objects(values), "NetworkPolicy")
    receivers = yaml.safe_load((EXAMPLES / "notifications.yaml").read_text())["notifications"]
    [url] = [each["url"] for each in receivers if each["name"] == "alertmanager"]

    assert patched["spec"]["egress"] == rendered["spec"]["egress"]
    [rule] = [each for each in rendered["spec"]["egress"] if "to" in each]
    [namespace] = [each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for each in rule["to"]]
    assert url == f"http://alertmanager.{namespace}:{rule['ports'][0]['port']}"


def test_the_api_server_s_proxy_can_be_let_in(helm: Helm, tmp_path: Path) -> None:
    """The rule that the page on status shows is added to those that are there, as the chart's value is."""
    shown = snippet("status.md", "path: /spec/ingress/-")
    [operation] = yaml.safe_load(yaml.safe_load(shown)["patches"][0]["patch"])

    patched = _one(_overlay(tmp_path, DEPLOY / "base/driftwatch.yaml", shown), "NetworkPolicy")
    rendered = _one(helm.objects({"networkPolicy": {"extraIngress": [operation["value"]]}}), "NetworkPolicy")

    assert patched["spec"]["ingress"] == rendered["spec"]["ingress"]
    assert len(patched["spec"]["ingress"]) == 2


@pytest.mark.parametrize("example", ["endpoints", "notifications"])
def test_pod_is_taken_by_the_api_server(kubectl: Kubectl, helm: Helm, namespace: str, example: str) -> None:
    """What the chart makes of the page's values passes strict validation where only restricted Pods are allowed."""
    words = {"endpoints": "extraVolumes", "notifications": "TEAMS_WORKFLOW_URL"}[example]
    values = yaml.safe_load(snippet("deployment.md", words))
    values["serviceMonitor"] = {"enabled": False}  # there is no definition of it
    values.setdefault("config", yaml.safe_load((EXAMPLES / f"{example}.yaml").read_text()))
    place = namespace_of(namespace)
    place["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl("apply", "-f", "-", input=yaml.safe_dump(place))
    rendered = helm(values, release=namespace, namespace=namespace)
    assert rendered.returncode == 0, rendered.stderr

    done = kubectl("apply", "--server-side", "--validate=strict", "-f", "-", input=rendered.stdout)

    try:
        assert "Warning" not in done.stderr
        kubectl("wait", "--for=create", "pod", "-l", f"app.kubernetes.io/instance={namespace}", "-n", namespace)
    finally:
        kubectl("delete", "--wait=false", "-f", "-", input=rendered.stdout)
        kubectl("delete", "namespace", namespace, "--wait=false")
