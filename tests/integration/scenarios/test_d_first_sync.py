"""The first sync of a repository, and what comes into it later."""

import random

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene, failed_writes


def _everything(namespace: str, kind: str) -> list[Manifest]:
    group = f"{kind.lower()}.example.com"
    return [
        namespace_of(namespace),
        crd(f"{kind.lower()}s", group, kind),
        manifest(f"{group}/v1", kind, "one", namespace, spec={"size": 1}),
        manifest("v1", "ServiceAccount", "robot", namespace),
        manifest("v1", "Secret", "login", namespace, stringData={"user": "shop"}),
        # More than are written at once: were they tried first, the API server would not wait for their namespace.
        *(config_map(f"settings-{number}", namespace) for number in range(20)),
        deployment("web", namespace),
        manifest("v1", "Service", "web", namespace, spec={"selector": {"app": "web"}, "ports": [{"port": 80}]}),
    ]


@pytest.mark.parametrize("order", ["as needed", "reversed", "shuffled"])
def test_d13_everything_is_applied_in_one_pass(
    new_daemon: NewDaemon, audit: AuditTrail, namespace: str, order: str
) -> None:
    """A namespace, its contents, a CRD and its objects are applied without a refusal, however the files are named."""
    declared = _everything(namespace, f"Gadget{order[0].upper()}")
    files = list(declared)
    if order == "reversed":
        files.reverse()
    elif order == "shuffled":
        random.Random(7).shuffle(files)
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit({f"{number:02}.yaml": one for number, one in enumerate(files)})

    daemon.start()

    assert [line for line in daemon.log() if line.get("level") == "error"] == []
    daemon.wait_in_sync(*declared)
    assert failed_writes(audit) == []
    writes = [event for event in audit.events(agent=AGENT) if event["verb"] in WRITES]
    assert len(writes) == len(declared), "each object is applied once"
    assert daemon.drift_total() == 0


def test_d13_crd_that_somebody_else_applies_releases_what_waits_for_it(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """A custom resource whose CRD is not in Git is reported, and applied as soon as its kind is served."""
    definition = crd("laters", "later.example.com", "Later")
    custom = manifest("later.example.com/v1", "Later", "one", namespace, spec={"size": 1})
    beside = config_map("beside", namespace)
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit({"all.yaml": [namespace_of(namespace), custom, beside]})
    daemon.start()
    daemon.wait_in_sync(beside)
    [missing] = daemon.events("kind is not served")
    assert missing["kind"] == "Later.later.example.com"
    assert missing["file"].startswith("all.yaml:")

    kubectl("apply", "-f", "-", input=Scene.json(definition))
    kubectl("wait", "--for=condition=Established", f"crd/{definition['metadata']['name']}")

    daemon.wait_in_sync(custom)
    live.patch(custom, {"spec": {"size": 2}}, manager="kubectl-edit")
    daemon.wait_drift(namespace=namespace, name="one", manager="kubectl-edit")
    daemon.wait_in_sync(custom)
    assert failed_writes(audit) == []


def test_d13_commit_brings_kinds_and_values_without_restart(scene: Scene, live: Live) -> None:
    """A commit with a kind that was not watched before is applied and guarded; what it changes is no drift."""
    settings = config_map("settings", scene.namespace, colour="red")
    scene.declare(settings)
    changed = config_map("settings", scene.namespace, colour="green")
    budget = manifest(
        "policy/v1",
        "PodDisruptionBudget",
        "web",
        scene.namespace,
        spec={"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    )

    scene.declare(changed, budget)

    assert scene.drifts() == []
    live.request("DELETE", live.path(budget))
    scene.wait_drift("web", kind="PodDisruptionBudget")
    scene.daemon.wait_in_sync(budget, changed)


def test_d13_commit_that_drops_an_object_leaves_it_alone(scene: Scene, live: Live) -> None:
    """What left Git stays in the cluster, and is neither deleted nor healed; it is reported as orphaned."""
    kept, dropped = config_map("kept", scene.namespace), config_map("dropped", scene.namespace)
    scene.declare(kept, dropped)
    scene.declare(kept)

    live.patch(dropped, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    scene.settle()

    found = live.get(dropped)
    assert found is not None
    assert found["data"] == {"colour": "blue"}
    assert scene.requests(name="dropped") == []
    assert [(line["name"], line["type"]) for line in scene.drifts()] == [("dropped", "orphaned")]
