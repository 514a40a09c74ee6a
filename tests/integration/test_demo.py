"""The demo as its user meets it: what it shows, how it ends, and that it leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from driftwatch.demo.repository import DEMO_LABEL
from driftwatch.localcluster import LocalCluster

from tests.support.kubectl import Kubectl
from tests.support.waiting import until

STORY_SECONDS = 90.0
STEPS = 8


class Demo:
    """`driftwatch demo` with a temporary folder and a home of its own, and what it has printed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._printed = folder / "printed"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        with self._printed.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "driftwatch", "demo", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, "TMPDIR": str(self.temporary)},
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text(encoding="utf-8")

    def until_it_says(self, words: str) -> None:
        until(
            lambda: words in self.printed or self.process.poll() is not None,
            f"the demo says {words!r}",
            timeout=STORY_SECONDS,
            evidence=lambda: self.printed,
        )
        assert words in self.printed, self.printed

    def exit_status(self) -> int:
        return self.process.wait(STORY_SECONDS)

    def processes(self) -> list[str]:
        """Every process that was started with a path below the temporary folder."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.temporary) in command and process.pid != os.getpid():
                found.append(command)
        return found

    def left_behind(self) -> list[str]:
        return [*self.processes(), *map(str, self.temporary.iterdir())]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start the demo; it is killed at the end if it still runs."""
    started: list[Demo] = []

    def start(*arguments: str) -> Demo:
        started.append(Demo(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_the_story_heals_every_step_and_leaves_nothing_behind(demo):
    run = demo("--once")
    assert run.exit_status() == 0, run.printed
    assert f"{STEPS} of {STEPS} steps" in run.printed
    assert run.printed.count("✔") == STEPS + 1
    assert "✘" not in run.printed
    for line in (
        r"Deployment nginx/nginx +deleted by unknown, healed in [\d.]+ ms",
        r"Deployment nginx/nginx +modified by kubectl, healed in [\d.]+ ms\n +spec.replicas: 2 → 5",
        r"modified by kubectl-set, healed in [\d.]+ ms\n .*image: \"nginx:1.29-alpine\" → \"nginx:latest\"",
        r"modified by unknown, healed in [\d.]+ ms\n +metadata.labels.tier: \"web\" → <none>",
        r"added by kubectl-set, healed in [\d.]+ ms\n .*env: <none> → ",
        r"Namespace nginx +deleted by unknown, healed in [\d.]+ m?s",
        r"spec.replicas is 3, [\d.]+ m?s after the commit",
    ):
        assert re.search(line, run.printed), line
    assert "\x1b" not in run.printed
    assert run.left_behind() == []


def test_after_the_story_it_stays_up_and_shows_what_is_done_by_hand_until_it_is_told_to_end(demo):
    run = demo()
    run.until_it_says("Ctrl-C")
    address = re.search(r"curl (\S+/metrics)", run.printed)[1]
    with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310
        assert re.search(rb'driftwatch_drift_total\{[^}]*kind="Namespace"', answer.read())
    kubeconfig = re.search(r"KUBECONFIG=(\S+)", run.printed)[1]
    kubectl = re.search(r"alias kubectl=(\S+)", run.printed)[1]
    subprocess.run([kubectl, f"--kubeconfig={kubeconfig}", "label", "ns", "nginx", "team=me"], check=True, timeout=20)
    run.until_it_says('metadata.labels.team: <none> → "me"')
    assert len(run.processes()) >= 4
    run.process.send_signal(signal.SIGTERM)
    assert run.exit_status() == 0, run.printed
    assert run.left_behind() == []


def test_ctrl_c_in_the_middle_of_the_story_leaves_nothing_behind(demo):
    run = demo()
    run.until_it_says("kubectl delete deploy")
    run.process.send_signal(signal.SIGINT)
    assert run.exit_status() == 128 + signal.SIGINT
    assert "Stopped before the end of the story" in run.printed
    assert "Traceback" not in run.printed
    assert run.left_behind() == []


def test_no_process_outlives_a_demo_that_is_killed(demo):
    run = demo()
    run.until_it_says("kubectl delete deploy")
    assert run.processes()
    run.process.kill()
    until(lambda: not run.processes(), "every process of the demo is gone", evidence=lambda: "\n".join(run.processes()))


def test_a_named_folder_is_kept_and_is_no_other_folder(demo, tmp_path):
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "precious").touch()
    run = demo("--once", "--dir", str(occupied))
    assert run.exit_status() == 1
    assert "holds other files" in run.printed
    assert [item.name for item in occupied.iterdir()] == ["precious"]


@pytest.fixture
def no_demo_namespace(kubectl: Kubectl) -> Iterator[None]:
    """The namespace of the demo is gone before and after, since the cluster is shared."""
    yield
    kubectl("delete", "namespace", "nginx", "--ignore-not-found", timeout=60)


@pytest.mark.usefixtures("no_demo_namespace")
class TestOnAClusterOfTheUsers:
    def test_the_story_is_played_and_its_namespace_removed(self, demo, cluster: LocalCluster, kubectl: Kubectl):
        run = demo("--once", "--yes", "--kubeconfig", str(cluster.kubeconfig))
        assert run.exit_status() == 0, run.printed
        assert f"context driftwatch-local, server {cluster.server}" in run.printed
        assert f"{STEPS} of {STEPS} steps" in run.printed
        assert kubectl("get", "ns", "nginx", check=False).returncode != 0
        assert run.left_behind() == []

    def test_nothing_is_touched_when_nobody_can_be_asked(self, demo, cluster: LocalCluster, kubectl: Kubectl):
        run = demo("--once", "--kubeconfig", str(cluster.kubeconfig))
        assert run.exit_status() == 2
        assert "--yes" in run.printed
        assert kubectl("get", "ns", "nginx", check=False).returncode != 0

    def test_a_namespace_of_somebody_else_is_left_alone(self, demo, cluster: LocalCluster, kubectl: Kubectl):
        kubectl("create", "namespace", "nginx")
        uid = kubectl("get", "ns", "nginx", "-o", "jsonpath={.metadata.uid}").stdout
        run = demo("--once", "--yes", "--kubeconfig", str(cluster.kubeconfig))
        assert run.exit_status() == 1, run.printed
        assert "is not the demo's" in run.printed
        assert kubectl("get", "ns", "nginx", "-o", "jsonpath={.metadata.uid}").stdout == uid
        assert DEMO_LABEL not in kubectl("get", "ns", "nginx", "-o", "jsonpath={.metadata.labels}").stdout

    @pytest.mark.usefixtures("no_scaling_down")
    def test_what_is_not_healed_ends_the_story_with_the_reason_and_keeps_the_log(
        self, demo, cluster: LocalCluster, kubectl: Kubectl
    ):
        run = demo("--once", "--yes", "--kubeconfig", str(cluster.kubeconfig))
        assert run.exit_status() == 1, run.printed
        assert "✘ Deployment nginx: not healed after" in run.printed, run.printed
        assert "no scaling down on a Friday" in run.printed
        assert f"5 of {STEPS} steps were not played" in run.printed
        log = Path(re.search(r"The daemon's log is kept: (\S+)", run.printed)[1])
        assert "no scaling down on a Friday" in log.read_text()
        assert run.processes() == []
        assert kubectl("get", "ns", "nginx", check=False).returncode != 0


@pytest.fixture
def no_scaling_down(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    """The API server refuses to lower the replicas of a Deployment of the demo: a heal that cannot be done."""
    kubectl("create", "namespace", namespace)
    rules = [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]},
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]},
    ]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": namespace},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "matchConditions": [{"name": "here", "expression": f"request.namespace in ['nginx', '{namespace}']"}],
            "validations": [
                {
                    "expression": "request.operation == 'CREATE' ? object.metadata.name != 'probe' "
                    ": object.spec.replicas >= oldObject.spec.replicas",
                    "message": "no scaling down on a Friday",
                }
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": namespace},
        "spec": {"policyName": namespace, "validationActions": ["Deny"]},
    }
    kubectl("apply", "-f", "-", input=yaml.safe_dump_all([policy, binding]))
    probe = ("create", "configmap", "probe", "-n", namespace, "--dry-run=server")
    until(lambda: kubectl(*probe, check=False).returncode != 0, "the policy is in force")
    time.sleep(1.0)  # it is read anew once a second, for one resource after the other
    yield
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy", "namespace"):
        kubectl("delete", kind, namespace, timeout=60)
