"""What is wrong is said once, clearly, with the object and the file; everything else is healed all the same."""

import base64
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.daemon import CANNOT_START, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene


def _exit_of(daemon: Daemon, namespace: str, *, breaking: Callable[[dict[str, Any]], None] = lambda _: None) -> int:
    """Exit status of a daemon whose configuration is broken somehow."""
    daemon.commit({"all.yaml": [namespace_of(namespace), config_map("settings", namespace)]})
    breaking(daemon.configuration)
    return daemon.start(ready=False).wait_exit(timeout=30)


def _only_error(daemon: Daemon, event: str) -> str:
    """The one error that a daemon has told, by this event; all that it has written are events."""
    assert [line for line in daemon.log() if not line["event"] or "logger" in line] == []
    [told] = [line for line in daemon.log() if line["level"] != "info"]
    assert told["event"] == event
    assert "Traceback" not in daemon.text()
    return told["error"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources:\n- name: shop\n  repository: x\n  revison: main\n", ":4: unknown key `sources[0].revison`"),
        ("sources:\n- name: shop\n  revision: main\n", ":2: missing key `sources[0].repository`"),
        ("server: {listen: '127.0.0.1:0'}\n", ":1: missing key `sources`"),
    ],
    ids=["unknown key", "missing key", "no sources"],
)
def test_bad_configuration_is_refused_with_its_line(new_daemon: NewDaemon, text: str, message: str) -> None:
    """An unknown or missing key ends the start with status 2, and names file and line."""
    daemon = new_daemon()
    daemon.raw_configuration = text

    assert daemon.start(ready=False).wait_exit() == 2

    assert f"driftwatch.yaml{message}" in _only_error(daemon, "configuration cannot be used")


def _kubeconfig(cluster: LocalCluster, file: Path, **changes: Callable[[dict[str, Any]], None]) -> str:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    for change in changes.values():
        change(document)
    file.write_text(yaml.safe_dump(document))
    return str(file)


def test_unreachable_cluster_is_waited_for(
    new_daemon: NewDaemon, cluster: LocalCluster, tmp_path: Path, namespace: str
) -> None:
    """A cluster that does not answer is named with its address, in the log and by readiness, until it is stopped."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = f"https://127.0.0.1:{unused.getsockname()[1]}"

        def move(document: dict[str, Any]) -> None:
            document["clusters"][0]["cluster"]["server"] = server

        file = _kubeconfig(cluster, tmp_path / "kubeconfig", move=move)
        daemon = new_daemon()
        daemon.commit({"all.yaml": [namespace_of(namespace), config_map("settings", namespace)]})
        daemon.configuration["cluster"]["kubeconfig"] = file
        daemon.start(ready=False)
        lines = daemon.wait(lambda: daemon.events("the API server cannot be reached")[1:], "it is tried again")
        code, words = daemon.get("/readyz")
        alive, _ = daemon.get("/healthz")
        daemon.stop()

    assert lines[0]["cluster"] == server
    assert server in lines[0]["error"]
    assert lines[0]["next"].startswith("tried again in")
    assert (code, alive) == (503, 200)
    assert f"- API server: {server}" in words
    assert "Traceback" not in daemon.text()


def test_state_folder_that_cannot_be_had_ends_the_start(new_daemon: NewDaemon, namespace: str, tmp_path: Path) -> None:
    """A folder of state that cannot be made ends the start with status 1, the setting, and the folder."""
    (tmp_path / "file").touch()
    daemon = new_daemon()

    assert _exit_of(daemon, namespace, breaking=lambda c: c["state"].update(directory=f"{tmp_path}/file/state")) == 1

    told = _only_error(daemon, CANNOT_START)
    assert told.startswith(f"state.directory: {tmp_path}/file/state/")
    assert told.endswith(" cannot be used: Not a directory")


def test_wrong_credentials_end_the_start(
    new_daemon: NewDaemon, cluster: LocalCluster, tmp_path: Path, namespace: str
) -> None:
    """A token that the API server does not know ends the start with status 1 and the server's words, not the token."""

    def use_token(document: dict[str, Any]) -> None:
        document["users"][0]["user"] = {"token": "no-such-token"}

    file = _kubeconfig(cluster, tmp_path / "kubeconfig", use_token=use_token)
    daemon = new_daemon()

    assert _exit_of(daemon, namespace, breaking=lambda c: c["cluster"].update(kubeconfig=file)) == 1

    assert "Unauthorized (HTTP 401 Unauthorized)" in _only_error(daemon, CANNOT_START)
    assert "no-such-token" not in daemon.text()


def test_no_kubeconfig_ends_the_start(new_daemon: NewDaemon, tmp_path: Path, namespace: str) -> None:
    """Nothing to find the cluster by ends the start with status 1 and where it was looked for."""
    daemon = new_daemon()

    assert _exit_of(daemon, namespace, breaking=lambda c: c["cluster"].update(kubeconfig=f"{tmp_path}/none")) == 1

    assert f"{tmp_path}/none" in _only_error(daemon, CANNOT_START)


def test_a_port_in_use_ends_the_start(new_daemon: NewDaemon, namespace: str) -> None:
    """Somebody else who listens ends the start with status 1 and the address."""
    daemon = new_daemon()
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        assert _exit_of(daemon, namespace, breaking=lambda c: c["server"].update(listen=address)) == 1

    told = _only_error(daemon, CANNOT_START)
    assert told == f"server.listen: cannot listen on {address}: Address already in use"


def test_a_person_is_told_in_words(new_daemon: NewDaemon, tmp_path: Path, namespace: str) -> None:
    """Without `--log-format json` an error of the start is a line that says it, and nothing else."""
    daemon = new_daemon()
    daemon.log_format = "text"

    assert _exit_of(daemon, namespace, breaking=lambda c: c["cluster"].update(kubeconfig=f"{tmp_path}/none")) == 1
    assert daemon.text().startswith("driftwatch: cannot start: ")
    assert f"{tmp_path}/none" in daemon.text()
    assert daemon.text().count("\n") == 1

    daemon.raw_configuration = "sources:\n- name: shop\n"
    assert daemon.start(ready=False).wait_exit() == 2
    assert "\ndriftwatch: configuration:\n" in daemon.text()
    assert "level=" not in daemon.text()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("revision", "no-such-branch"), ("path", "no/such/folder"), ("repository", "/no/such/repository")],
)
def test_source_that_cannot_be_read_ends_the_start(
    new_daemon: NewDaemon, namespace: str, setting: str, value: str
) -> None:
    """An only source without the revision or path, or that is no repository, ends the start with status 1, named."""
    daemon = new_daemon()

    assert _exit_of(daemon, namespace, breaking=lambda c: c["sources"][0].update({setting: value})) == 1

    assert f"source {daemon.source}" in (told := daemon.events(CANNOT_START)[-1]["error"])
    assert value in told
    assert "Traceback" not in daemon.text()
    assert [line for line in daemon.log() if not line["event"] or "logger" in line] == []


def test_source_that_cannot_be_read_does_not_stop_another(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str
) -> None:
    """Beside a source that cannot be read another one is applied and healed; readiness names what is missing."""
    settings = config_map("settings", namespace)
    daemon = new_daemon(name="good")
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.configuration["sources"].append({"name": "bad", "repository": str(tmp_path)})

    daemon.start(ready=False)

    daemon.wait_in_sync(settings)
    live.request("DELETE", live.path(settings))
    daemon.wait_in_sync(settings)
    [failure] = daemon.events("source cannot be read", source="bad")
    assert str(tmp_path) in failure["error"]
    daemon.wait(lambda: daemon.events("first pass done"), "the first pass is done")
    code, text = daemon.get("/readyz")
    assert (code, "source bad" in text, "source good" in text) == (503, True, False)


def _refused_by_the_server(namespace: str) -> dict[str, Any]:
    typo, text = deployment("typo", namespace), deployment("text", namespace)
    typo["spec"]["replicsa"] = 3
    text["spec"]["replicas"] = "three"
    return {"typo": typo, "text": text}


def test_manifests_that_the_server_refuses_do_not_stop_others(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """What does not fit its schema is reported once, with file, line and the server's words; the rest is healed."""
    settings = config_map("settings", namespace)
    refused = _refused_by_the_server(namespace)
    daemon = new_daemon()
    daemon.commit({"good.yaml": [namespace_of(namespace), settings], "bad.yaml": list(refused.values())})

    daemon.start()

    daemon.wait_in_sync(settings)
    reports = {line["name"]: line for line in daemon.events("not applied")}
    assert reports.keys() == refused.keys()
    assert len(daemon.events("not applied")) == 2
    assert all(line["outcome"] == "failed" and line["file"].startswith("bad.yaml:") for line in reports.values())
    assert "replicsa" in reports["typo"]["error"]
    assert "spec.replicas" in reports["text"]["error"]
    live.request("DELETE", live.path(settings))
    daemon.wait_drift(namespace=namespace, name="settings")
    assert daemon.metric("driftwatch_heals_total", namespace=namespace, result="failed") == 2

    mended = deployment("typo", namespace)
    daemon.commit({"bad.yaml": mended})
    daemon.wait_in_sync(mended, settings)


def test_documents_that_are_no_manifests_do_not_stop_others(scene: Scene) -> None:
    """A manifest without a name or a kind, and one of a kind that there is not, are named; the rest is applied."""
    settings = config_map("settings", scene.namespace)
    nameless = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": scene.namespace}}
    kindless = {"apiVersion": "v1", "metadata": {"name": "kindless"}}
    unknown = manifest("nowhere.example.com/v1", "Nothing", "nothing", scene.namespace)
    scene.daemon.commit({"nameless.yaml": nameless, "kindless.yaml": kindless, "unknown.yaml": unknown})

    scene.declare(settings)

    reasons = {line["file"]: line["error"] for line in scene.daemon.events("invalid manifest")}
    assert "metadata.name" in reasons["nameless.yaml:1"]
    assert "no kind" in reasons["kindless.yaml:1"]
    missing = scene.daemon.wait(
        lambda: scene.daemon.events("kind is not served", kind="Nothing.nowhere.example.com"), "the kind is reported"
    )
    assert missing[0]["file"] == "unknown.yaml:1"


def test_secret_values_are_in_no_log(new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str) -> None:
    """No Secret that is edited, refused by the server or unreadable brings a value into logs or metrics."""
    values = ["sesame-declared", "sesame-edited", "sesame-added", "sesame-refused", "735573557355", "sesame-broken"]
    login = manifest("v1", "Secret", "login", namespace, stringData={"word": "sesame-declared"})
    refused = [
        manifest("v1", "Secret", "list", namespace, data={"word": ["sesame-refused"]}),
        manifest("v1", "Secret", "number", namespace, data={"word": 735573557355}),
        manifest("v1", "Secret", "text", namespace, data={"word": "sesame-refused"}),
        manifest("v1", "Secret", "field", namespace, word="sesame-refused"),
    ]
    broken = "apiVersion: v1\nkind: Secret\nmetadata: {name: broken}\nstringData: {word: [sesame-broken}\n"
    daemon = new_daemon(log_level="debug")
    daemon.commit({"all.yaml": [namespace_of(namespace), login], "refused.yaml": refused, "broken.yaml": broken})
    daemon.start()
    encoded = base64.b64encode(b"sesame-edited").decode()
    patch = f'{{"data":{{"word":"{encoded}"}},"stringData":{{"new":"sesame-added"}}}}'
    kubectl("patch", "secret/login", "--type=merge", f"-p={patch}", "-n", namespace)
    daemon.wait_drift(namespace=namespace, name="login")
    login["data"] = {"word": base64.b64encode(login.pop("stringData")["word"].encode()).decode()}
    daemon.wait_in_sync(login)
    assert {line["name"] for line in daemon.events("not applied")} <= {"list", "number", "text", "field"}

    _, metrics = daemon.get("/metrics")
    for value in values:
        for spelling in (value, base64.b64encode(value.encode()).decode()):
            assert spelling not in daemon.text()
            assert spelling not in metrics
    assert live.difference(login, daemon.source) == ""
