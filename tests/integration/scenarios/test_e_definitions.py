"""Kinds that come and go, and come in other versions, under the objects that Git declares of them."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene
from tests.support.waiting import until
from tests.support.waits import WATCH_BACKOFF
from tests.support.webhook import conversion

pytestmark = pytest.mark.waits(WATCH_BACKOFF)

NAMES = ("one", "two", "three")


class Definition:
    """A CustomResourceDefinition that Git does not declare, with its objects."""

    def __init__(self, kubectl: Kubectl, live: Live, stem: str) -> None:
        self._kubectl = kubectl
        self._live = live
        self.group = f"{stem}.example.com"
        self.manifest = crd("widgets", self.group, "Widget")

    @property
    def spec(self) -> dict[str, Any]:
        """Its spec."""
        return self.manifest["spec"]

    def widget(self, name: str, namespace: str, version: str = "v1", **spec: Any) -> Manifest:
        """An object of the kind."""
        return manifest(f"{self.group}/{version}", "Widget", name, namespace, spec=spec or {"size": 1})

    def serve(self) -> None:
        """Apply it as it is now, and wait until the API server has taken note."""
        self._kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=Scene.json(self.manifest))
        self._kubectl("wait", "--for=condition=Established", f"crd/{self.manifest['metadata']['name']}")

    def add_version(self, name: str, **properties: Any) -> None:
        """Serve another version, too."""
        version = copy.deepcopy(self.spec["versions"][0])
        version |= {"name": name, "storage": False}
        if properties:
            version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = properties
        self.spec["versions"].append(version)

    def drop(self) -> None:
        """Delete it; what it defines is deleted with it."""
        self._live.request("DELETE", self._live.path(self.manifest))

    def is_served(self, version: str = "v1") -> bool:
        """Whether the API server has the kind at the version."""
        return self._live.request("GET", f"/apis/{self.group}/{version}/widgets")[0] == 200


@pytest.fixture
def definition(kubectl: Kubectl, live: Live) -> Iterator[Definition]:
    """A definition that is served."""
    found = Definition(kubectl, live, f"e04-{time.monotonic_ns() % 10**9}")
    found.serve()
    yield found
    found.drop()
    until(lambda: not found.is_served(), "the kind is gone")


def _parked(daemon: Daemon) -> float:
    return daemon.metric("driftwatch_parked_objects", waits_for="kind")


def _requests_of_seconds(daemon: Daemon, seconds: float) -> float:
    before = daemon.metric("driftwatch_api_requests_total")
    time.sleep(seconds)
    return daemon.metric("driftwatch_api_requests_total") - before


def _edit(live: Live, declared: Manifest, patch: dict[str, Any]) -> None:
    live.patch(declared, {"spec": patch}, manager="kubectl-edit")


def _writes(audit: AuditTrail, group: str) -> list[dict[str, Any]]:
    return [
        event
        for event in audit.events(agent=AGENT)
        if event["verb"] in WRITES and event["objectRef"].get("apiGroup") == group
    ]


def _lists(audit: AuditTrail, group: str, version: str) -> int:
    events = audit.events(agent=AGENT)
    path = f"/apis/{group}/{version}/"
    return sum(event["verb"] == "list" and event["requestURI"].startswith(path) for event in events)


def test_e04_what_a_deleted_definition_takes_along_waits_for_it_and_for_nothing_else(
    new_daemon: NewDaemon, definition: Definition, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """The objects are parked, all else is healed, and nothing is sent in vain; with the kind they are back, twice."""
    widgets = [definition.widget(name, namespace) for name in NAMES]
    settings = config_map("settings", namespace)
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, *widgets]})
    daemon.start()
    daemon.wait_in_sync(*widgets)

    for _ in range(2):
        definition.drop()
        until(lambda: not definition.is_served(), "the kind is gone")
        daemon.wait(lambda: _parked(daemon) == len(widgets), "they are parked")
        audit.mark()
        for _ in range(2):
            live.patch(settings, {"data": {"colour": "green"}}, manager="kubectl-edit")
            daemon.wait_in_sync(settings)
        assert _writes(audit, definition.group) == []
        assert daemon.metric("driftwatch_refused_objects", outcome="kind_missing") == len(widgets)

        definition.serve()
        daemon.wait_in_sync(*widgets)
        daemon.wait(lambda: not _parked(daemon), "none is parked any more")
        assert daemon.metric("driftwatch_refused_objects") == 0
        _edit(live, widgets[0], {"size": 7})
        daemon.wait(lambda: daemon.drifts(name="one", type="modified"), "the edit is healed")
        daemon.wait_in_sync(*widgets)


def test_e04_objects_that_their_finalizers_hold_come_back_when_the_definition_has_ended(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, kubectl: Kubectl, namespace: str
) -> None:
    """While a definition of Git's is being deleted nothing is tried in a loop; then it and all of its kind return."""
    definition = Definition(kubectl, live, f"{namespace[:20]}-held")
    widgets = [definition.widget(name, namespace) for name in NAMES]
    held = widgets[0]
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit({"all.yaml": [namespace_of(namespace), definition.manifest, *widgets]})
    daemon.start()
    daemon.wait_in_sync(*widgets)
    live.patch(held, {"metadata": {"finalizers": ["example.com/held"]}}, manager="a-controller")

    definition.drop()
    until(lambda: not live.get(widgets[1]), "the others have ended")
    daemon.wait(lambda: _parked(daemon), "they wait")
    audit.mark()
    daemon.wait(lambda: _requests_of_seconds(daemon, 2.0) < 16, "it looks once a second, and makes no loop")
    assert _writes(audit, definition.group) == []

    uid = live.uid(held)
    live.patch(held, {"metadata": {"finalizers": None}}, manager="a-controller")
    daemon.wait(lambda: definition.is_served() and live.uid(held) not in ("", uid), "what was held is back")
    daemon.wait_in_sync(definition.manifest, *widgets)
    daemon.wait(lambda: not _parked(daemon), "none is parked any more")


def test_e04_a_version_that_is_served_later_and_one_that_is_served_no_more(
    new_daemon: NewDaemon, definition: Definition, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Objects of a version to come are reported and wait for it; when the old one ends, the new one is watched."""
    old = [definition.widget(name, namespace) for name in NAMES]
    new = [definition.widget(name, namespace, "v2", size=2) for name in NAMES]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *old]})
    daemon.start()
    daemon.wait_in_sync(*old)

    daemon.commit({"all.yaml": [namespace_of(namespace), *new]})
    [refused, *_] = daemon.wait(lambda: daemon.events("not applied", name="one"), "the version is missing")
    assert f"does not serve Widget at {definition.group}/v2; it serves v1" in refused["error"]
    assert (live.get(old[0]) or {})["spec"] == {"size": 1}
    definition.add_version("v2")
    definition.serve()
    daemon.wait_in_sync(*new)

    definition.spec["versions"][0]["served"] = False
    definition.spec["versions"][0]["storage"] = False
    definition.spec["versions"][1]["storage"] = True
    definition.serve()
    until(lambda: not definition.is_served("v1"), "the old version is gone")
    daemon.wait(lambda: _lists(audit, definition.group, "v2"), "the new version is watched", timeout=90.0)
    for one in new:
        _edit(live, one, {"size": 7})
    daemon.wait_in_sync(*new)
    live.request("DELETE", live.path(new[0]))
    daemon.wait_drift(namespace=namespace, name="one", type="deleted")
    daemon.wait_in_sync(*new)
    assert daemon.is_ready()


def test_e04_objects_that_a_webhook_converts_are_healed_whichever_version_is_edited(
    new_daemon: NewDaemon, definition: Definition, live: Live, audit: AuditTrail, namespace: str, tmp_path: Path
) -> None:
    """Git's version is not the stored one; edits of either are reverted, and a conversion that fails harms no other."""
    broken: list[str] = []

    def convert(found: dict[str, Any], version: str) -> dict[str, Any]:
        if broken:
            raise ValueError(broken[0])
        if version != found["apiVersion"]:
            size = found["spec"].pop("size" if version.endswith("v2") else "width", None)
            if size is not None:
                found["spec"]["width" if version.endswith("v2") else "size"] = size
        return {**found, "apiVersion": version}

    with conversion(tmp_path, convert) as asked:
        definition.add_version("v2", width={"type": "integer"})
        definition.spec["conversion"] = asked
        definition.serve()
        widgets = [definition.widget(name, namespace, "v2", width=1) for name in NAMES]
        stored = [definition.widget(name, namespace) for name in NAMES]
        settings = config_map("settings", namespace)
        daemon = new_daemon()
        daemon.commit({"all.yaml": [namespace_of(namespace), settings, *widgets]})
        daemon.start()
        daemon.wait_in_sync(*widgets)
        assert (live.get(stored[0]) or {})["spec"] == {"size": 1}

        _edit(live, widgets[0], {"width": 7})
        _edit(live, stored[1], {"size": 7})
        live.request("DELETE", live.path(stored[2]))
        for name in NAMES:
            daemon.wait_drift(namespace=namespace, name=name)
        daemon.wait_in_sync(*widgets)
        audit.mark()
        live.patch(settings, {"data": {"colour": "green"}}, manager="kubectl-edit")
        daemon.wait_drift(namespace=namespace, name="settings")
        assert _writes(audit, definition.group) == [], "what is converted makes no loop"

        broken.append("out of order")
        code, _ = live.request("DELETE", live.path(stored[0]))
        live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        daemon.wait(lambda: (live.get(settings) or {})["data"] == {"colour": "red"}, "others are healed")
        broken.clear()
        if code != 200:
            live.request("DELETE", live.path(stored[0]))
        daemon.wait(lambda: len(daemon.drifts(name="one", type="deleted")), "the deletion is healed")
        daemon.wait_in_sync(*widgets)
        _edit(live, stored[1], {"size": 8})
        daemon.wait_in_sync(*widgets)
        for one in stored:  # while the webhook is still there: without it their definition could not end
            live.request("DELETE", live.path(one))
        daemon.stop()
        definition.drop()
        until(lambda: not definition.is_served("v2"), "the kind is gone")
