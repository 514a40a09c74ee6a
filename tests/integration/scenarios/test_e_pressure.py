"""An API server that has too much to do, and a namespace that others put back before we do."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.account import Account
from tests.support.daemon import Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene
from tests.support.waiting import until
from tests.support.webhook import webhook

FLOW = "flowcontrol.apiserver.k8s.io/v1"
HANGS = 30  # seconds, the longest that a webhook may take
ASKED = 1.0  # seconds for which priority and fairness asks to be left alone


@contextmanager
def _one_write_at_a_time(account: Account, live: Live, stem: str) -> Iterator[None]:
    """Give the account a single seat: priority and fairness answers 429 to whatever it writes while that is taken."""
    seats = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
    level = manifest(FLOW, "PriorityLevelConfiguration", stem, spec={"type": "Limited", "limited": seats})
    subject = {"kind": "ServiceAccount", "serviceAccount": {"namespace": account.namespace, "name": account.name}}
    writes = {"verbs": ["patch"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
    schema = manifest(
        FLOW,
        "FlowSchema",
        stem,
        spec={
            "priorityLevelConfiguration": {"name": stem},
            "matchingPrecedence": 500,
            "rules": [{"subjects": [subject], "resourceRules": [writes]}],
        },
    )
    for one in (level, schema):
        live.patch(one, one, manager="tests", kind="apply")
    try:
        yield
    finally:
        for one in (schema, level):
            live.request("DELETE", live.path(one))


@contextmanager
def _seat_taken(account: Account, live: Live, kubectl: Kubectl, folder: Path) -> Iterator[None]:
    """A write of the account that hangs in a webhook, and takes the seat meanwhile."""
    reached, leave = threading.Event(), threading.Event()

    def answer(_request: dict[str, Any]) -> dict[str, Any]:
        reached.set()
        leave.wait(HANGS)
        return {"allowed": True}

    seat = config_map("seat", account.namespace)
    live.patch(seat, seat, manager="tests", kind="apply")
    taker = Kubectl(kubectl.program, account.kubeconfig, folder)

    def take() -> None:
        for colour in itertools.count():  # a new webhook is asked some moments after it was configured
            patch = json.dumps({"data": {"colour": f"number-{colour}"}})
            taker("patch", "configmap", "seat", "-n", account.namespace, "--patch", patch, timeout=2 * HANGS)
            if reached.is_set():
                return

    with webhook(live, folder, account.namespace, answer, timeout=HANGS), ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take)
        try:
            until(reached.is_set, "the seat is taken")
            yield
        finally:
            leave.set()
            taken.result()


def _account(kubectl: Kubectl, live: Live, namespace: str, folder: Path) -> Account:
    for one in (namespace_of(namespace), manifest("v1", "ServiceAccount", "driftwatch", namespace)):
        live.patch(one, one, manager="tests", kind="apply")
    binding = manifest(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        namespace,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        subjects=[{"kind": "ServiceAccount", "name": "driftwatch", "namespace": namespace}],
    )
    live.patch(binding, binding, manager="tests", kind="apply")
    account = Account(kubectl, folder, namespace)
    account.wait_can("patch", "configmaps")
    return account


def _refused(daemon: Daemon) -> float:
    return daemon.metric("driftwatch_api_requests_total", verb="apply", code="429")


def _edit(live: Live, declared: Manifest) -> None:
    live.patch(declared, {"data": {"colour": "green"}}, manager="kubectl-edit")


def test_f01_writes_wait_as_long_as_priority_and_fairness_asks(
    new_daemon: NewDaemon, kubectl: Kubectl, live: Live, namespace: str, tmp_path: Path
) -> None:
    """While it answers 429 the daemon asks about once a second, not once for each object; then all is healed."""
    account = _account(kubectl, live, f"{namespace}-account", tmp_path)
    objects = [config_map(f"map-{number}", namespace) for number in range(30)]
    daemon = new_daemon(kubeconfig=account.kubeconfig)
    daemon.commit({"all.yaml": [namespace_of(namespace), *objects]})
    daemon.start()
    daemon.wait_in_sync(objects[-1])

    with _one_write_at_a_time(account, live, namespace), _seat_taken(account, live, kubectl, tmp_path):
        for one in objects:
            _edit(live, one)
        daemon.wait(lambda: daemon.metric("driftwatch_heal_concurrency_limit", priority="drift") == 0, "it is held up")
        assert daemon.metric("driftwatch_heal_concurrency_cuts_total", reason="throttled") >= 1
        daemon.wait(lambda: _refused_in(daemon, 3 * ASKED) <= 3 + 1, "it asks once a second")
        assert all((live.get(one) or {})["data"] == {"colour": "green"} for one in objects)

    for one in objects:
        daemon.wait_drift(namespace=namespace, name=one["metadata"]["name"])
    daemon.wait_in_sync(*objects)
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0


def _refused_in(daemon: Daemon, seconds: float) -> float:
    before = _refused(daemon)
    time.sleep(seconds)
    return _refused(daemon) - before


def test_a03_namespace_that_somebody_else_creates_anew_gets_its_contents_back(
    scene: Scene, live: Live, kubectl: Kubectl
) -> None:
    """It is not ours to create any more when we come, and what waited for it comes back all the same."""
    declared = [config_map(f"config-{number}", scene.namespace) for number in range(5)]
    scene.declare(*declared)
    home = namespace_of(scene.namespace)
    hold = [{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/hold"]}]
    live.patch(declared[0], hold, kind="json")
    uid = live.uid(home)
    kubectl("delete", "namespace", scene.namespace, "--wait=false")
    scene.daemon.wait(
        lambda: scene.daemon.metric("driftwatch_parked_objects", waits_for="namespace"), "what was in it waits"
    )

    with scene.daemon.suspended():
        live.patch(declared[0], [{"op": "remove", "path": "/metadata/finalizers"}], kind="json")
        scene.daemon.wait(lambda: not live.get(home), "the namespace has ended")
        kubectl("create", "namespace", scene.namespace)

    scene.daemon.wait_in_sync(home, *declared)
    assert live.uid(home) != uid
    assert scene.daemon.metric("driftwatch_parked_objects") == 0
