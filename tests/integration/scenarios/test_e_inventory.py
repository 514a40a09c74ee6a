"""Kinds whose last object left Git: known after a restart, also when the state folder is lost."""

import shutil
from collections.abc import Callable

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, manifest, namespace_of
from tests.support.scene import NewDaemon
from tests.support.waits import UNUSED_KIND

pytestmark = pytest.mark.waits(UNUSED_KIND)

PRUNED = {"prune": True, "pruneDelay": "50ms", "pruneLimit": 100}


def _budget(namespace: str, name: str = "web") -> Manifest:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    return manifest("policy/v1", "PodDisruptionBudget", name, namespace, spec=spec)


def _inventory(daemon: Daemon, namespace: str) -> Manifest:
    return manifest("v1", "ConfigMap", f"driftwatch-inventory-{daemon.source}", namespace)


def _kinds(live: Live, inventory: Manifest) -> list[str]:
    found = live.get(inventory)
    lines = found["data"]["kinds"].splitlines() if found else []
    return [line.split()[1] for line in lines if not line.startswith("#")]


@pytest.fixture
def inventory_namespace(live: Live, new_namespace: Callable[[], str]) -> str:
    """A namespace for the inventory of one daemon."""
    namespace = new_namespace()
    live.patch(namespace_of(namespace), namespace_of(namespace), manager="admin", kind="apply")
    return namespace


@pytest.mark.parametrize("lost", [False, True], ids=["with-its-state", "with-its-state-lost"])
def test_e08_last_object_of_a_kind_that_left_git_while_down_is_pruned(
    new_daemon: NewDaemon, live: Live, namespace: str, inventory_namespace: str, *, lost: bool
) -> None:
    """The daemon is down when a commit drops the only object of a kind; back again, it finds and prunes it."""
    budget, settings = _budget(namespace), config_map("settings", namespace)
    daemon = new_daemon(options=PRUNED)
    daemon.configuration["inventory"] = {"namespace": inventory_namespace if lost else ""}
    daemon.commit({"base.yaml": [namespace_of(namespace), settings], "budget.yaml": budget})
    daemon.start()
    daemon.wait_in_sync(budget, settings)
    daemon.stop()
    daemon.commit({"budget.yaml": None})
    if lost:
        shutil.rmtree(daemon.folder / "state")

    daemon.start()

    daemon.wait(lambda: live.get(budget) is None, "the object is pruned")
    daemon.wait(lambda: daemon.events("pruned", name="web"), "it is told")
    assert daemon.drifts() == []


def test_e08_orphan_of_a_forgotten_kind_is_reported_after_a_restart(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """Without prune the last object of a kind is reported before and after a restart, until somebody deletes it."""
    budget = _budget(namespace)
    daemon = new_daemon()
    daemon.commit({"base.yaml": namespace_of(namespace), "budget.yaml": budget})
    daemon.start()
    daemon.wait_in_sync(budget)
    daemon.commit({"budget.yaml": None})
    daemon.wait(lambda: daemon.drifts(name="web", type="orphaned"), "it is reported")
    daemon.stop()

    daemon.start()

    daemon.wait(lambda: daemon.drifts(name="web", type="orphaned"), "it is reported again")
    assert daemon.metric("driftwatch_watch_up", kind="PodDisruptionBudget") == 1
    live.request("DELETE", live.path(budget))
    daemon.wait(lambda: not daemon.metric("driftwatch_orphaned_objects", source=daemon.source), "it is none any more")


def test_e08_inventory_follows_what_there_is_and_is_no_drift_itself(
    new_daemon: NewDaemon, live: Live, namespace: str, inventory_namespace: str
) -> None:
    """The ConfigMap names a kind from before its first object until nothing of it is left; then its watch ends, too."""
    daemon = new_daemon(options=PRUNED)
    daemon.configuration["inventory"] = {"namespace": inventory_namespace}
    inventory = _inventory(daemon, inventory_namespace)
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("settings", namespace)]})
    daemon.start()
    assert _kinds(live, inventory) == ["ConfigMap", "Namespace"]
    budget = _budget(namespace)

    daemon.commit({"budget.yaml": budget})

    daemon.wait_in_sync(budget)
    assert _kinds(live, inventory) == ["ConfigMap", "Namespace", "PodDisruptionBudget"]
    daemon.commit({"budget.yaml": None})
    daemon.wait(lambda: live.get(budget) is None, "the object is pruned")
    daemon.wait(lambda: _kinds(live, inventory) == ["ConfigMap", "Namespace"], "the kind is forgotten", timeout=40)
    daemon.wait(lambda: 'kind="PodDisruptionBudget"' not in _watches(daemon), "it is not watched any more")
    assert live.uid(inventory)
    assert daemon.drifts() == []


def _watches(daemon: Daemon) -> str:
    return "".join(line for line in daemon.get("/metrics")[1].splitlines() if line.startswith("driftwatch_watch_up"))


def test_e08_observed_source_writes_no_inventory(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str, inventory_namespace: str
) -> None:
    """A source that is only observed writes nothing to the cluster, not even what kinds it has."""
    daemon = new_daemon(options={"mode": "observe"})
    daemon.configuration["inventory"] = {"namespace": inventory_namespace}
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("settings", namespace)]})
    daemon.start()
    daemon.wait(lambda: daemon.drifts(name="settings"), "its drift is reported")

    assert live.get(_inventory(daemon, inventory_namespace)) is None
    writes = [event for event in audit.events(agent=AGENT) if event["verb"] in WRITES]
    assert [event["requestURI"] for event in writes if "dryRun=All" not in event["requestURI"]] == []


def test_e08_kind_that_is_gone_holds_up_nothing(
    new_daemon: NewDaemon, live: Live, namespace: str, inventory_namespace: str
) -> None:
    """A remembered kind whose CRD was deleted while the daemon was down delays no start, and is forgotten."""
    definition = crd("vanishings", "vanish.example.com", "Vanishing")
    live.patch(definition, definition, manager="admin", kind="apply")
    custom = manifest("vanish.example.com/v1", "Vanishing", "one", namespace, spec={"size": 1})
    daemon = new_daemon(options=PRUNED)
    daemon.configuration["inventory"] = {"namespace": inventory_namespace}
    settings = config_map("settings", namespace)
    daemon.commit({"base.yaml": [namespace_of(namespace), settings], "a.yaml": custom})
    daemon.start()
    daemon.wait_in_sync(custom)
    daemon.stop()
    live.request("DELETE", live.path(definition))
    daemon.wait(lambda: live.get(definition) is None, "the CRD is gone")
    daemon.commit({"a.yaml": None})

    daemon.start()

    daemon.wait_in_sync(settings)
    inventory = _inventory(daemon, inventory_namespace)
    daemon.wait(lambda: "Vanishing" not in _kinds(live, inventory), "the kind is forgotten", timeout=40)


def test_e08_inventory_that_somebody_scribbled_on_does_no_harm(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str, inventory_namespace: str
) -> None:
    """Lines that name no kind are told and passed over; the others hold, and the inventory is written anew."""
    daemon = new_daemon()
    daemon.configuration["inventory"] = {"namespace": inventory_namespace}
    inventory = _inventory(daemon, inventory_namespace)
    good = "/apis/policy/v1 PodDisruptionBudget poddisruptionbudgets Namespaced"
    text = f"/api/v1 Secret ../../../apis/x Namespaced\nnonsense\n{good}\n"
    live.patch(inventory, {**inventory, "data": {"kinds": text}}, manager="someone", kind="apply")
    settings = config_map("settings", namespace)
    daemon.commit({"base.yaml": [namespace_of(namespace), settings]})

    daemon.start()

    daemon.wait_in_sync(settings)
    assert len(daemon.events("line of the inventory cannot be read; it is passed over")) == 2
    daemon.wait(lambda: _kinds(live, inventory) == ["ConfigMap", "Namespace"], "it is right again", timeout=40)
    audit.wait(1, agent=AGENT, resource="poddisruptionbudgets", verb="watch")
