"""What the API server, a webhook, a quota or RBAC refuses: that part fails loudly, and all else is healed."""

import base64
import json
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import anything, config_map, crd, deep, manifest, namespace_of
from tests.support.scene import NewDaemon
from tests.support.waiting import until
from tests.support.webhook import webhook


def _edit(live: Live, declared: Manifest, colour: str = "green") -> None:
    live.patch(declared, {"data": {"colour": colour}}, manager="kubectl-edit")


def _is_back(live: Live, declared: Manifest) -> bool:
    return bool((found := live.get(declared)) and found["data"] == declared["data"])


def _writes(audit: AuditTrail, namespace: str, name: str) -> list[dict[str, Any]]:
    events = audit.events(agent=AGENT, namespace=namespace)
    return [
        event
        for event in events
        if event["verb"] in WRITES and event["objectRef"]["name"] == name and "dryRun=All" not in event["requestURI"]
    ]


def test_e02_one_object_that_fails_keeps_no_other_waiting(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Among a hundred objects ten are refused for ever; the others come, and are healed while those fail."""
    good = [config_map(f"good-{number}", namespace) for number in range(90)]
    bad = [
        manifest("v1", "Service", f"bad-{number}", namespace, spec={"ports": [{"port": 70000}]}) for number in range(10)
    ]
    daemon = new_daemon()
    mixed = [good.pop() if number % 10 else bad[number // 10] for number in range(100)]
    good = [one for one in mixed if one["kind"] == "ConfigMap"]
    daemon.commit({"all.yaml": [namespace_of(namespace), *mixed]})
    daemon.start()

    daemon.wait(lambda: len({line["name"] for line in daemon.events("not applied")}) == 10, "ten are refused")
    assert all("70000" in line["error"] and line["file"] for line in daemon.events("not applied"))
    for one in good:
        _edit(live, one)
    daemon.wait_in_sync(*good)
    assert len(daemon.events("not applied")) == 10, "what is refused is told once, and not tried again all the time"


def test_e02_what_fails_by_our_own_mistake_is_shown_as_failed(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """In metrics and status, with its place in Git; the others are healed, and so is it when the cause is gone."""
    definition = anything(crd("wells", "e02.example.com", "Well"))
    well = manifest("e02.example.com/v1", "Well", "deep", namespace, spec=deep(120))
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["ignore"] = [{"kind": "Well", "paths": ["$..level"]}]
    daemon.commit({"all.yaml": [namespace_of(namespace), definition, settings], "well.yaml": well})
    daemon.start(ready=False)
    try:
        daemon.wait(lambda: daemon.events("not applied", name="deep"), "the mistake is made")
        daemon.wait_in_sync(settings)
        assert daemon.metric("driftwatch_heals_total", kind="Well.e02.example.com", result="failed") >= 1
        status = json.loads(daemon.get("/api/v1/status")[1])
        [shown] = [each for each in status["objects"] if each["name"] == "deep"]
        assert (shown["state"], shown["file"]) == ("failed", "well.yaml:1")
        assert "unexpectedly: JSONPathRecursionError" in shown["error"]
        _edit(live, settings)
        daemon.wait_in_sync(settings)
        well["spec"] = deep(10)
        daemon.commit({"well.yaml": well})
        daemon.wait_in_sync(well)
        daemon.wait(
            lambda: "deep" not in [each["name"] for each in json.loads(daemon.get("/api/v1/status")[1])["objects"]],
            "nothing is said of it any more",
        )
    finally:
        daemon.kill()  # to stop it asks for a log without a mistake


def test_e05_a_webhook_that_refuses_is_quoted_and_asked_again(
    new_daemon: NewDaemon, live: Live, namespace: str, tmp_path: Path
) -> None:
    """The webhook's words are in the log once, and what it refuses is counted; it is asked again, ever more rarely.

    When it lets the write pass, the objects are healed without anybody's doing.
    """
    settings, gone, other = config_map("settings", namespace), config_map("gone", namespace), _account(namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, gone, other]})
    daemon.start()
    daemon.wait_in_sync(settings, gone, other)
    locked, refusals = threading.Event(), defaultdict[str, list[float]](list)
    place = {"source": daemon.source, "namespace": namespace}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        ours = "driftwatch" in json.dumps(request.get("options", {}))
        if ours and locked.is_set():
            refusals[request["name"]].append(time.monotonic())
            return {"allowed": False, "status": {"code": 503, "message": "the change freeze is on"}}
        return {"allowed": True}

    with webhook(live, tmp_path, namespace, answer):
        locked.set()
        until(lambda: _edits_until_seen(live, settings), "the webhook is asked")
        live.request("DELETE", live.path(gone))
        for one in (settings, gone):
            name = one["metadata"]["name"]
            daemon.wait(lambda name=name: daemon.events("not applied", name=name), f"{name} is refused")
            until(lambda name=name: len(refusals[name]) >= 8, "it is asked again and again")
            [refused] = daemon.events("not applied", name=name)
            assert "the change freeze is on" in refused["error"]
            assert refused["outcome"] == "retry"
        assert daemon.metric("driftwatch_refused_objects", **place, kind="ConfigMap", outcome="retry") == 2
        assert daemon.metric("driftwatch_drifted_objects", **place) == 1, "what is gone is known to differ"
        live.request("DELETE", live.path(other))
        daemon.wait_in_sync(other)
        locked.clear()
        for one in (settings, gone):
            daemon.wait(lambda one=one: _is_back(live, one), "it is healed once the webhook lets it")
    assert refusals["gone"][7] - refusals["gone"][6] >= 1.0, "each wait is twice the one before, from 50 ms on"
    daemon.wait(lambda: not daemon.metric("driftwatch_refused_objects", **place), "nothing is refused any more")
    daemon.wait(lambda: not daemon.metric("driftwatch_drifted_objects", **place), "nothing differs any more")
    assert {line["name"] for line in daemon.events("drift healed")} == {"settings", "gone", "other"}


def _account(namespace: str) -> Manifest:
    """An object of a kind that the webhook is not asked about."""
    return manifest("v1", "ServiceAccount", "other", namespace)


def _edits_until_seen(live: Live, declared: Manifest) -> bool:
    """A new webhook is asked some moments after it was configured."""
    _edit(live, declared)
    found = live.get(declared)
    return bool(found and found["data"]["colour"] == "green")


def test_e05_a_webhook_that_times_out_delays_only_what_it_is_asked_about(
    new_daemon: NewDaemon, live: Live, namespace: str, tmp_path: Path
) -> None:
    """While the writes of one kind hang in a webhook, another kind is healed; afterwards the first is, too."""
    maps = [config_map(f"map-{number}", namespace) for number in range(3)]
    account = manifest("v1", "ServiceAccount", "account", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *maps, account]})
    daemon.start()
    hung, asked = threading.Event(), threading.Event()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "driftwatch" in json.dumps(request.get("options", {})) and hung.is_set():
            asked.set()
            threading.Event().wait(2.0)
        return {"allowed": True}

    with webhook(live, tmp_path, namespace, answer, timeout=1):
        hung.set()
        for one in maps:
            until(lambda one=one: _edits_until_seen(live, one), "it is edited")
        until(asked.is_set, "the webhook is asked")
        live.request("DELETE", live.path(account))
        daemon.wait_in_sync(account)
        daemon.wait(lambda: daemon.events("not applied", kind="ConfigMap"), "the timeout is told")
        hung.clear()
        for one in maps:
            daemon.wait(lambda one=one: _is_back(live, one), "it is healed")


def test_e05_a_webhook_that_mutates_every_write_makes_no_loop(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str, tmp_path: Path
) -> None:
    """What a webhook makes of our own write is accepted as it is: one write, and silence."""
    settings, witness = config_map("settings", namespace), config_map("witness", namespace)
    patch = [
        {"op": "add", "path": "/data/stamped", "value": "by-webhook"},
        {"op": "replace", "path": "/data/colour", "value": "webhook"},
    ]

    def answer(_request: dict[str, Any]) -> dict[str, Any]:
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}

    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace)]})
    daemon.start()
    with webhook(live, tmp_path, namespace, answer, mutating=True):

        def is_mutated() -> bool:
            probe = config_map("probe", namespace)
            live.request("DELETE", live.path(probe))
            live.patch(probe, probe, manager="tests", kind="apply")
            found = live.get(probe)
            return bool(found and "stamped" in found["data"])

        until(is_mutated, "the webhook is in force")
        daemon.commit({"all.yaml": [namespace_of(namespace), settings, witness]})
        for one in (settings, witness):
            until(lambda one=one: (live.get(one) or {}).get("data", {}).get("stamped"), "it is applied and mutated")
        live.patch(settings, {"metadata": {"labels": {"x-added": "a"}}}, manager="kubectl-label")
        daemon.wait_drift(name="settings", type="added")
        writes = len(_writes(audit, namespace, "settings"))
        assert 3 <= writes <= 4, "one to create, two to revert the label; and perhaps one more for what came with it"
        for _ in range(2):  # a watch keeps the order: what the last write may have led to has begun before, and ended
            uid = live.uid(witness)
            live.request("DELETE", live.path(witness))
            until(lambda uid=uid: live.uid(witness) not in ("", uid), "the witness is back")
        assert len(_writes(audit, namespace, "settings")) == writes


def test_e06_a_quota_that_is_exceeded_fails_one_object(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """What a quota has no room for is refused in its words; the rest is healed; with room for it, it comes."""
    quota = manifest("v1", "ResourceQuota", "narrow", namespace, spec={"hard": {"count/secrets": "1"}})
    first, second = (
        manifest("v1", "Secret", name, namespace, data={"key": "dmFsdWU="}) for name in ("first", "second")
    )
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), quota, settings]})
    daemon.start()
    until(lambda: (live.get(quota) or {}).get("status", {}).get("hard"), "the quota is in force")

    daemon.commit({"secrets.yaml": [first, second]})
    refused = daemon.wait(lambda: daemon.events("not applied", kind="Secret"), "the quota refuses one")
    assert "exceeded quota: narrow" in refused[0]["error"]
    _edit(live, settings)
    daemon.wait_in_sync(settings)

    wider = {**quota, "spec": {"hard": {"count/secrets": "5"}}}
    daemon.commit({"all.yaml": [namespace_of(namespace), wider, settings]})
    daemon.wait_in_sync(first, second)


def _restricted(kubectl: Kubectl, cluster: LocalCluster, folder: Path, allowed: str, denied: str) -> Path:
    """A kubeconfig of a service account that may see everything, and write in one namespace but not in the other."""
    account = {"kind": "ServiceAccount", "name": "restricted", "namespace": allowed}
    reader = manifest(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        f"reader-{allowed}",
        rules=[
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "patch"]},
        ],
    )
    writer = manifest(
        "rbac.authorization.k8s.io/v1",
        "Role",
        "writer",
        allowed,
        rules=[{"apiGroups": ["*"], "resources": ["*"], "verbs": ["create", "patch"]}],
    )
    group = "rbac.authorization.k8s.io"
    bindings = [
        manifest(
            f"{group}/v1",
            "ClusterRoleBinding",
            f"reader-{allowed}",
            roleRef={"apiGroup": group, "kind": "ClusterRole", "name": f"reader-{allowed}"},
            subjects=[account],
        ),
        manifest(
            f"{group}/v1",
            "RoleBinding",
            "writer",
            allowed,
            roleRef={"apiGroup": group, "kind": "Role", "name": "writer"},
            subjects=[account],
        ),
    ]
    objects = [
        namespace_of(allowed),
        namespace_of(denied),
        manifest("v1", "ServiceAccount", "restricted", allowed),
        reader,
        writer,
        *bindings,
    ]
    kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(objects))
    token = kubectl("-n", allowed, "create", "token", "restricted").stdout.strip()
    administrator = yaml.safe_load(cluster.kubeconfig.read_text())
    administrator["users"] = [{"name": each["name"], "user": {"token": token}} for each in administrator["users"]]
    file = folder / "restricted.kubeconfig"
    file.write_text(yaml.safe_dump(administrator))
    return file


def test_e06_rbac_that_forbids_one_namespace_fails_that_part_alone(
    new_daemon: NewDaemon, kubectl: Kubectl, cluster: LocalCluster, live: Live, namespace: str, tmp_path: Path
) -> None:
    """Where we may not write the log has the API server's words; where we may, drift is healed.

    When the right is granted, what was denied is applied, though nothing tells of it.
    """
    denied = f"{namespace}-denied"
    ours, theirs = config_map("settings", namespace), config_map("settings", denied)
    daemon: Daemon = new_daemon()
    daemon.configuration["cluster"]["kubeconfig"] = str(_restricted(kubectl, cluster, tmp_path, namespace, denied))
    daemon.commit({"all.yaml": [ours, theirs]})
    daemon.start()

    refused = daemon.wait(lambda: daemon.events("not applied", namespace=denied), "one namespace is forbidden")
    assert "forbidden" in refused[0]["error"]
    assert "configmaps" in refused[0]["error"]
    for _ in range(3):
        _edit(live, ours)
        daemon.wait(lambda: _is_back(live, ours), "the other is healed")
    assert not live.get(theirs)
    assert len(daemon.events("not applied")) == 1, "told once"
    kubectl("create", "rolebinding", "all", "-n", denied, "--clusterrole=cluster-admin",
            f"--serviceaccount={namespace}:restricted")  # fmt: skip
    daemon.wait(lambda: live.get(theirs), "what was denied is applied", timeout=60)
    live.request("DELETE", live.path(namespace_of(denied)))


def test_e06_what_left_git_and_may_not_be_read_is_looked_at_again(
    new_daemon: NewDaemon, kubectl: Kubectl, cluster: LocalCluster, namespace: str, tmp_path: Path
) -> None:
    """An API server that has just started denies everybody: given up then, an orphan would be nobody's for ever."""
    daemon: Daemon = new_daemon()
    daemon.configuration["cluster"]["kubeconfig"] = str(_restricted(kubectl, cluster, tmp_path, namespace, namespace))
    daemon.commit({"stays.yaml": [config_map("stays", namespace)], "left.yaml": [config_map("left", namespace)]})
    daemon.start()
    _allow(kubectl, namespace, ["list", "watch"])

    daemon.commit({"left.yaml": None})
    denied = daemon.wait(lambda: daemon.events("object that left Git cannot be read", name="left"), "it is denied")
    assert denied[0]["next"].startswith("tried again in ")
    assert 'cannot get resource "configmaps"' in denied[0]["error"]

    _allow(kubectl, namespace, ["get", "list", "watch"])
    daemon.wait(lambda: daemon.drifts(name="left", type="orphaned"), "it is read, and reported")


def _allow(kubectl: Kubectl, namespace: str, verbs: list[str]) -> None:
    """Let the restricted account do this everywhere, and nothing else that only reads."""
    patch = [{"op": "replace", "path": "/rules/0/verbs", "value": verbs}]
    kubectl("patch", "clusterrole", f"reader-{namespace}", "--type=json", f"--patch={json.dumps(patch)}")


def test_e09_a_deleted_object_does_not_wait_for_a_large_sync(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """While a commit brings 400 objects, one that is deleted comes back before they are all there."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()

    daemon.commit({"many.yaml": [config_map(f"many-{number}", namespace) for number in range(400)]})
    daemon.wait(lambda: daemon.events("synced", name="many-10"), "the sync has begun")
    live.request("DELETE", live.path(settings))
    daemon.wait_drift(name="settings", type="deleted")

    lines = [line for line in daemon.log() if line["event"] in ("synced", "drift healed")]
    healed = next(position for position, line in enumerate(lines) if line["event"] == "drift healed")
    daemon.wait(lambda: len(daemon.events("synced")) >= 402, "the sync ends", timeout=120.0)
    assert healed < 300, "it came back long before the last of them"
