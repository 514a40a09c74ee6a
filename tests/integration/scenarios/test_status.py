"""`driftwatch status`, asked of a running daemon: at its address, and through the API server as a kubectl plugin."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support import schemas
from tests.support.daemon import Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of, pod_spec
from tests.support.scene import NewDaemon, daemons
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((schemas.DOCS / "status.schema.json").read_text())
SNOOZE = "driftwatch.io/snooze-until"


def address(daemon: Daemon) -> str:
    """Where the daemon listens."""
    return daemon.events("listening")[-1]["address"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call `driftwatch status`."""
    return subprocess.run(
        [sys.executable, "-m", "driftwatch", "status", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def asked(daemon: Daemon) -> dict[str, Any]:
    """The status document, from the daemon itself."""
    code, text = daemon.get("/api/v1/status")
    assert code == 200
    return json.loads(text)


def objects(status: dict[str, Any], namespace: str) -> dict[str, dict[str, Any]]:
    """What is said of the objects of a namespace."""
    return {each["name"]: each for each in status["objects"] if each["namespace"] == namespace}


@pytest.fixture(scope="module")
def daemon(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Run a daemon in whose repository nothing is declared yet."""
    with daemons(cluster, live, tmp_path_factory) as new:
        made = new()
        made.commit({"README.md": "Nothing is declared yet."})
        yield made.start()


@pytest.fixture
def plugin(tmp_path: Path, kubectl: Kubectl) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call the real kubectl with the plugin on PATH, made from the entry point as an installer makes it."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["kubectl-driftwatch"].partition(":")
    script = tmp_path / "bin" / "kubectl-driftwatch"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    script.chmod(0o755)
    path = os.pathsep.join([str(script.parent), str(kubectl.program.parent), os.environ["PATH"]])

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [kubectl.program, "driftwatch", "status", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(kubectl.kubeconfig)},
        )

    return call


def test_b05_status_says_what_was_healed_and_that_all_is_fine(daemon: Daemon, kubectl: Kubectl, namespace: str) -> None:
    """Exit status 0, the source with its commit, the watches, and who drifted what and how fast it was healed."""
    web = deployment("web", namespace)
    daemon.declare(namespace_of(namespace), web, file=f"{namespace}.yaml")
    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    daemon.wait_drift(namespace=namespace, name="web")
    daemon.wait_in_sync(web)

    shown = run("--address", address(daemon))
    assert (shown.returncode, shown.stderr) == (0, "")
    head, numbers, *_ = shown.stdout.splitlines()
    assert ": ready, up " in head
    assert numbers.endswith("objects managed, all as Git declares them")
    commit = daemon.events("snapshot")[-1]["commit"]
    assert any(row.split()[:2] == [daemon.source, commit] for row in shown.stdout.splitlines())
    row = next(row for row in shown.stdout.splitlines() if f"Deployment {namespace}/web" in row)
    assert row.startswith("healed")
    assert "kubectl" in row
    assert "modified spec.replicas: 2 → 5" in row

    document = json.loads(run("--address", f"http://{address(daemon)}/", "--output", "json").stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["daemon"]["ready"] is True
    [source] = document["sources"]
    assert source["commit"].startswith(commit)
    assert source["fetched"] is not None
    assert {"kind": "Deployment", "up": True, "error": None} in document["watches"]
    [recent] = [line for line in document["recent"] if line["object"]["namespace"] == namespace]
    assert (recent["event"], recent["manager"]) == ("healed", "kubectl")
    assert 0 < recent["seconds"] < 60


def test_b07_status_shows_what_drifts_fails_and_is_snoozed(daemon: Daemon, live: Live, namespace: str) -> None:
    """Exit status 1; a snoozed object shows who snoozed it until when, and what of it drifts; then all is fine."""
    snoozed, quiet, wrong = (config_map(name, namespace) for name in ("snoozed", "quiet", "wrong"))
    daemon.declare(namespace_of(namespace), snoozed, quiet, file=f"{namespace}.yaml")
    for one, changed in ((snoozed, {"data": {"colour": "blue"}}), (quiet, {})):
        annotated = {"metadata": {"annotations": {SNOOZE: "2099-01-01T00:00:00Z"}}}
        live.patch(one, {**annotated, **changed}, manager="kubectl-edit")
    wrong["data"] = {"no good key": "1"}
    daemon.commit(
        {
            f"{namespace}.yaml": [namespace_of(namespace), snoozed, quiet, wrong],
            "broken.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: [\n",
        }
    )

    def complete() -> dict[str, Any] | None:
        status = asked(daemon)
        found = objects(status, namespace)
        whole = found.keys() == {"snoozed", "quiet", "wrong"} and found["snoozed"]["type"]
        return status if whole and status["sources"][0]["invalid"] else None

    status = daemon.wait(complete, "the status has all three, and the invalid document")
    jsonschema.validate(status, SCHEMA)
    found = objects(status, namespace)
    assert {name: each["state"] for name, each in found.items()} == {
        "snoozed": "snoozed",
        "quiet": "snoozed",
        "wrong": "failed",
    }
    assert (found["snoozed"]["type"], found["quiet"]["type"]) == ("modified", None)
    assert found["snoozed"]["snoozedBy"] == "kubectl-edit"
    assert found["snoozed"]["fields"][0]["live"] == '"blue"'
    assert "no good key" in found["wrong"]["error"]
    assert found["wrong"]["retryAt"] is not None
    assert status["counts"]["snoozed"] == 2
    assert status["counts"]["drifting"] == 1

    shown = run("--address", address(daemon))
    assert shown.returncode == 1
    assert "1 drifting, 1 failed, 2 snoozed" in shown.stdout
    assert f"invalid: {daemon.source}: broken.yaml:" in shown.stdout
    row = next(row for row in shown.stdout.splitlines() if f"ConfigMap {namespace}/snoozed" in row)
    assert row.split()[0] == "snoozed"
    assert "data[no good key]" in shown.stdout, "what looks like markup is shown as it is"

    daemon.commit({f"{namespace}.yaml": [namespace_of(namespace), snoozed, quiet], "broken.yaml": None})
    for one in (snoozed, quiet):
        live.patch(one, {"metadata": {"annotations": {SNOOZE: None}}}, manager="kubectl-annotate")
    daemon.wait_in_sync(snoozed, quiet)
    daemon.wait(lambda: run("--address", address(daemon)).returncode == 0, "all is fine again")


def test_b06_status_shows_what_is_only_observed(
    new_daemon: NewDaemon, kubectl: Kubectl, live: Live, namespace: str
) -> None:
    """What drifts in mode observe is in the status until somebody mends it."""
    settings = config_map("settings", namespace)
    for one in (namespace_of(namespace), settings):
        kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", input=json.dumps(one))
    daemon = new_daemon(options={"mode": "observe"})
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    daemon.wait(lambda: objects(asked(daemon), namespace), "the drift is in the status")
    [drifting] = objects(asked(daemon), namespace).values()
    assert (drifting["state"], drifting["type"], drifting["manager"]) == ("drifting", "modified", "kubectl-edit")
    shown = run("--address", address(daemon))
    assert shown.returncode == 1
    assert "observe" in shown.stdout
    live.patch(settings, {"data": {"colour": "red"}}, manager="kubectl-edit")
    daemon.wait(lambda: not objects(asked(daemon), namespace), "it is in order again")
    assert asked(daemon)["recent"][-1]["event"] == "mended"


def test_d08_status_shows_a_source_that_fails(new_daemon: NewDaemon, namespace: str) -> None:
    """Why Git fails and since when is said, with the commit that stays in force; exit status 1."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    commit = daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    daemon.repository.folder.rename(daemon.folder / "gone")
    daemon.wait(lambda: asked(daemon)["sources"][0]["error"], "the failure is in the status")
    [source] = asked(daemon)["sources"]
    assert source["commit"] == commit
    assert source["failingSince"] >= source["fetched"]
    assert run("--address", address(daemon)).returncode == 1
    (daemon.folder / "gone").rename(daemon.repository.folder)
    daemon.wait(lambda: not asked(daemon)["sources"][0]["error"], "Git answers again")
    assert asked(daemon)["sources"][0]["failingSince"] is None


def test_status_of_nobody(tmp_path: Path) -> None:
    """Exit status 2 and one line that says what to do, whatever is at the address, or nothing."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        shown = run("--address", f"127.0.0.1:{port}")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith(f"driftwatch: no daemon answers at http://127.0.0.1:{port}: ")
    assert shown.stderr.count("\n") == 1
    file = tmp_path / "driftwatch.yaml"
    file.write_text(
        yaml.safe_dump({"server": {"listen": f"0.0.0.0:{port}"}, "sources": [{"name": "x", "repository": "x"}]})
    )
    assert f"http://127.0.0.1:{port}: " in run("--config", str(file)).stderr
    missing = run("--token-file", str(tmp_path / "none"))
    assert (missing.returncode, "cannot be read" in missing.stderr) == (2, True)


def test_status_as_kubectl_plugin_at_an_address(
    daemon: Daemon, plugin: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """`kubectl driftwatch status` is the same program."""
    shown = plugin("--address", address(daemon), "-o", "json")
    assert shown.stderr == ""
    jsonschema.validate(json.loads(shown.stdout), SCHEMA)
    assert "Usage: kubectl driftwatch status" in plugin("--help").stdout


def test_status_as_kubectl_plugin_through_the_api_server(
    new_daemon: NewDaemon,
    kubectl: Kubectl,
    namespace: str,
    plugin: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Without an address the daemon's Pod is found by its label, and asked through the API server."""
    host = own_address()
    kubectl("create", "namespace", namespace)
    nobody = plugin("-n", namespace)
    assert nobody.returncode == 2
    assert f"no Pod has the label app.kubernetes.io/name=driftwatch in namespace {namespace}" in nobody.stderr

    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["server"]["listen"] = f"{host}:0"
    daemon.commit({"all.yaml": [settings]})
    daemon.start()
    port = address(daemon).rpartition(":")[2]
    pod = manifest(
        "v1",
        "Pod",
        "driftwatch-0",
        namespace,
        metadata={"labels": {"app.kubernetes.io/name": "driftwatch"}},
        spec=pod_spec(),
    )
    until(
        lambda: kubectl("apply", "-f", "-", input=json.dumps(pod), check=False).returncode == 0, "the Pod is admitted"
    )
    status = {
        "phase": "Running",
        "podIP": host,
        "podIPs": [{"ip": host}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kubectl("patch", "pod", "driftwatch-0", "-n", namespace, "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": status}))  # fmt: skip
    shown = plugin("-n", namespace, "--port", port, "-o", "json")
    assert (shown.returncode, shown.stderr) == (0, "")
    document = json.loads(shown.stdout)
    jsonschema.validate(document, SCHEMA)
    assert document["counts"]["managed"] == 1

    # There is no kubelet here: what kubectl says of the port that it cannot forward is passed on.
    refused = plugin("-n", namespace, "--port", "1")
    assert refused.returncode == 2
    assert f"Pod {namespace}/driftwatch-0 through the API server: its proxy: " in refused.stderr
    assert "; kubectl port-forward: error: " in refused.stderr


def test_status_by_port_forward(daemon: Daemon, kubectl: Kubectl, namespace: str, tmp_path: Path) -> None:
    """A token does not pass the API server's proxy, so kubectl forwards a port; it is ended afterwards."""
    kubectl("create", "namespace", namespace)
    labels = {"app.kubernetes.io/name": "driftwatch"}
    pod = manifest("v1", "Pod", "driftwatch-0", namespace, metadata={"labels": labels}, spec=pod_spec())
    until(
        lambda: kubectl("apply", "-f", "-", input=json.dumps(pod), check=False).returncode == 0, "the Pod is admitted"
    )
    # Without nodes nothing can be forwarded: this kubectl says that the daemon's own port is the near end.
    port = address(daemon).rpartition(":")[2]
    stand_in = tmp_path / "kubectl"
    stand_in.write_text(
        f'#!/bin/sh\necho "$$ $*" > {tmp_path}/called\necho "Forwarding from 127.0.0.1:{port} -> 9464"\n'
        "exec sleep 600\n"
    )
    stand_in.chmod(0o755)
    (tmp_path / "token").write_text("sesame-token\n")
    shown = run("--in-cluster", "-n", namespace, "--kubeconfig", str(kubectl.kubeconfig), "--token-file",
                str(tmp_path / "token"), "-o", "json", PATH=f"{tmp_path}:{os.environ['PATH']}")  # fmt: skip
    assert shown.stderr == ""
    jsonschema.validate(json.loads(shown.stdout), SCHEMA)
    number, _, arguments = (tmp_path / "called").read_text().strip().partition(" ")
    assert arguments == (
        f"--kubeconfig={kubectl.kubeconfig} --namespace={namespace} port-forward --address=127.0.0.1 "
        "pod/driftwatch-0 :9464"
    )
    assert "sesame" not in arguments
    assert not Path(f"/proc/{number}").exists()


def own_address() -> str:
    """Find an address of this machine that the API server proxies to: it refuses loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        found = probe.getsockname()[0]
    if found.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    return found


def test_status_watch_prints_what_changes(daemon: Daemon, live: Live, namespace: str, tmp_path: Path) -> None:
    """Where nobody looks at a screen, each change is a line of JSON; Ctrl-C ends it with the last exit status."""
    settings = config_map("settings", namespace)
    daemon.declare(namespace_of(namespace), settings, file=f"{namespace}.yaml")
    output = tmp_path / "output"
    with output.open("wb") as stream:
        watch = subprocess.Popen(
            [sys.executable, "-m", "driftwatch", "status", "--address", address(daemon), "--watch", "-o", "json",
             "--interval", "50ms"],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:

            def lines() -> list[dict[str, Any]]:
                return [json.loads(line) for line in output.read_text().splitlines()]

            until(lambda: len(lines()) == 1, "the first is shown", evidence=output.read_text)
            live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
            until(
                lambda: any(line["object"]["namespace"] == namespace for line in lines()[-1]["recent"]),
                "the heal is shown",
                evidence=output.read_text,
            )
            watch.send_signal(signal.SIGINT)
            assert watch.wait(20) == 0
        finally:
            watch.kill()
            watch.wait()
    assert all(jsonschema.validate(line, SCHEMA) is None for line in lines())


def test_status_watch_on_a_terminal(daemon: Daemon) -> None:
    """On a terminal the screen is drawn anew, and left as it was at the end."""
    near, far = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-m", "driftwatch", "status", "--address", address(daemon), "--watch", "--interval", "50ms"],
        stdin=far, stdout=far, stderr=far, env={**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"},
    )  # fmt: skip
    os.close(far)
    os.set_blocking(near, False)
    seen = bytearray()

    def shows(words: bytes) -> bool:
        with contextlib.suppress(OSError):  # nothing to read, or the far end is closed
            seen.extend(os.read(near, 65536))
        return seen.count(words) >= 2

    try:
        until(lambda: shows(b"GIT ANSWERED"), "it is drawn again and again", evidence=lambda: repr(bytes(seen[-2000:])))
        watch.send_signal(signal.SIGINT)
        until(lambda: shows(b"\0") or watch.poll() is not None, "it ends")
        assert watch.returncode in (0, 1)
        assert b"\x1b[?1049h" in seen
    finally:
        watch.kill()
        watch.wait()
        os.close(near)
