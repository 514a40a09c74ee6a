"""Tampering with what shows whose an object is, and writing under the daemon's own name."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment
from tests.support.scene import Scene
from tests.support.waiting import until

Tamper = Callable[[Kubectl, Live, Manifest], None]


def _found(live: Live, declared: Manifest) -> dict[str, Any]:
    found = live.get(declared)
    assert found is not None
    return found


def _kubectl(*arguments: str) -> Tamper:
    def tamper(kubectl: Kubectl, _live: Live, declared: Manifest) -> None:
        kubectl(*arguments, "-n", declared["metadata"]["namespace"])

    return tamper


def _patch_managed_fields(live: Live, declared: Manifest, entries: list[dict[str, Any]]) -> None:
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": entries}]
    live.patch(declared, patch, kind="json", manager="kubectl-patch")


def _rename_our_entry(_kubectl: Kubectl, live: Live, declared: Manifest) -> None:
    entries = _found(live, declared)["metadata"]["managedFields"]
    for entry in entries:
        if entry["manager"] == "driftwatch":
            entry["manager"] = "somebody"
    _patch_managed_fields(live, declared, entries)


def _shorten_our_entry(_kubectl: Kubectl, live: Live, declared: Manifest) -> None:
    entries = _found(live, declared)["metadata"]["managedFields"]
    for entry in entries:
        if entry["manager"] == "driftwatch":
            del entry["fieldsV1"]["f:spec"]
    _patch_managed_fields(live, declared, entries)


def _edit_and_restore_entries(_kubectl: Kubectl, live: Live, declared: Manifest) -> None:
    entries = _found(live, declared)["metadata"]["managedFields"]
    live.patch(declared, {"spec": {"replicas": 9}}, manager="kubectl-edit")
    _patch_managed_fields(live, declared, entries)


TAMPERINGS: dict[str, Tamper] = {
    "label removed": _kubectl("label", "deploy/web", "driftwatch.io/source-"),
    "label forged": _kubectl("label", "deploy/web", "--overwrite", "driftwatch.io/source=other"),
    "annotations removed": _kubectl("annotate", "deploy/web", "driftwatch.io/id-", "driftwatch.io/desired-hash-"),
    "hash forged": _kubectl("annotate", "deploy/web", "--overwrite", "driftwatch.io/desired-hash=0000000000000000"),
    "id forged": _kubectl("annotate", "deploy/web", "--overwrite", "driftwatch.io/id=apps/Deployment/other/web"),
    "managedFields removed": _kubectl(
        "patch", "deploy/web", "--type=json", '-p=[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]'
    ),
    "our entry renamed": _rename_our_entry,
    "our entry shortened": _shorten_our_entry,
    "edited and entries restored": _edit_and_restore_entries,
}


@pytest.mark.parametrize("tamper", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_a06_tracking_and_ownership_are_repaired(scene: Scene, live: Live, kubectl: Kubectl, tamper: Tamper) -> None:
    """Label, annotations and managedFields that are removed or forged are repaired in place, and healing goes on."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    before = _found(live, web)
    if tamper is _edit_and_restore_entries:
        _let_our_write_grow_old()

    with scene.daemon.suspended():  # so that it sees what one request has done only after the next
        tamper(kubectl, live, web)

    scene.daemon.wait(lambda: _owns_all(live, web, before), "our entry is as it was")
    scene.daemon.wait_in_sync(web)
    assert live.uid(web) == before["metadata"]["uid"]
    scene.settle()
    assert [line for line in scene.drifts() if line["type"] != "modified"] == []
    live.patch(web, {"spec": {"replicas": 7}}, manager="kubectl-edit")
    scene.wait_drift("web", manager="kubectl-edit")
    scene.daemon.wait_in_sync(web)


def _owns_all(live: Live, declared: Manifest, before: dict[str, Any]) -> bool:
    """Whether the daemon's entry covers what it covered before, and the object is as then."""
    found = _found(live, declared)
    return _ours(found) == _ours(before) and found["spec"] == before["spec"]


def _ours(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in found["metadata"].get("managedFields", [])
        if entry["manager"] == "driftwatch"
    ]


def test_a07_burst_of_edits_costs_few_applies(scene: Scene, live: Live) -> None:
    """Ten edits that come at once are healed by one or two applies, and the last state is Git's."""
    web = deployment("web", scene.namespace)
    scene.declare(web)

    with scene.daemon.suspended():
        for replicas in range(10, 20):
            live.patch(web, {"spec": {"replicas": replicas}}, manager="kubectl-edit")

    scene.wait_drift("web")
    scene.daemon.wait_in_sync(web)
    scene.settle()
    assert 1 <= len(scene.requests()) <= 2, scene.requests()
    assert live.difference(web, scene.daemon.source) == ""


def _declared(kind: str, namespace: str) -> tuple[Manifest, dict[str, Any]]:
    """An object, and another value for one of its fields."""
    if kind == "ConfigMap":
        return config_map("forged", namespace, colour="red"), {"data": {"colour": "blue"}}
    return deployment("forged", namespace), {"spec": {"replicas": 9}}


def _let_our_write_grow_old() -> None:
    """Times in managedFields have whole seconds: for two of them, a write can look like the daemon's own."""
    written = time.monotonic()
    until(lambda: time.monotonic() > written + 2.1, "the last write of the daemon is old")


def _write_under_our_name(live: Live, declared: Manifest, change: dict[str, Any], operation: str) -> None:
    if operation == "Update":
        live.patch(declared, change, manager="driftwatch")
        return
    body = copy.deepcopy(declared)
    found = _found(live, declared)["metadata"]
    body["metadata"] |= {"labels": found["labels"], "annotations": found["annotations"]}
    for field, value in change.items():
        body[field] |= value
    live.patch(declared, body, manager="driftwatch", kind="apply")


@pytest.mark.parametrize("kind", ["ConfigMap", "Deployment"])
@pytest.mark.parametrize("operation", ["Update", "Apply"])
@pytest.mark.parametrize("age", ["old", "just written by us"])
def test_a11_write_under_our_own_name_is_reverted(
    scene: Scene, live: Live, kind: str, operation: str, age: str
) -> None:
    """Another value written as `driftwatch` is found and reverted, also in the second of the daemon's own write."""
    declared, change = _declared(kind, scene.namespace)
    scene.declare(declared)
    if age == "old":
        _let_our_write_grow_old()
    else:
        live.patch(declared, change, manager="kubectl-edit")
        scene.wait_drift("forged", manager="kubectl-edit")
    seen = len(scene.drifts())

    _write_under_our_name(live, declared, change, operation)

    scene.daemon.wait(lambda: len(scene.drifts()) > seen, "the forged write is found")
    scene.daemon.wait_in_sync(declared)
    assert scene.drifts()[-1]["type"] == "modified"
    assert json.dumps(change) not in scene.daemon.text()


@pytest.mark.parametrize("age", ["old", "just written by us"])
def test_a12_same_value_in_other_words_is_no_drift(scene: Scene, live: Live, kubectl: Kubectl, age: str) -> None:
    """The same value again, another spelling of a quantity, another order of a keyed list: no drift, no write."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    if age == "old":
        _let_our_write_grow_old()
    container = "/spec/template/spec/containers/0"
    at = ("-n", scene.namespace)

    def patch(path: str, value: object) -> None:
        operation = json.dumps([{"op": "replace", "path": f"{container}/{path}", "value": value}])
        kubectl("patch", "deploy/web", "--type=json", f"-p={operation}", *at)

    kubectl("scale", "deploy/web", "--replicas=2", *at)
    kubectl("label", "deploy/web", "--overwrite", "tier=web", *at)
    patch("image", "registry.example.com/app:1.0")
    patch("resources/requests/cpu", "1000m")
    patch("resources/requests/memory", "0.5Gi")
    patch("env", list(reversed(web["spec"]["template"]["spec"]["containers"][0]["env"])))
    order = _found(live, web)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [variable["name"] for variable in order] == ["REGION", "LEVEL"]
    scene.settle()

    assert scene.requests() == []
    assert scene.drifts() == []
    assert scene.drift_total(type="modified") + scene.drift_total(type="added") == 0
