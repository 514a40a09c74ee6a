"""The daemon is killed in the middle of a heal, and started again."""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, namespace_of
from tests.support.scene import NewDaemon
from tests.support.store import Store
from tests.support.waiting import until
from tests.support.webhook import LONGEST, webhook

pytestmark = pytest.mark.command
ROUNDS = 12
LONGEST_HEAL = 0.025  # seconds, on a machine that has other work, too


@pytest.fixture
def store(cluster: LocalCluster) -> Store:
    """What the API server has written."""
    return Store(cluster)


def edit(live: Live, manifest: Manifest, patch: object) -> None:
    """Change an object as people do."""
    live.patch(manifest, patch, manager="kubectl-edit", kind="merge")


def test_f03_killed_at_any_point_of_a_heal(new_daemon: NewDaemon, live: Live, store: Store, namespace: str) -> None:
    """Killed some milliseconds after a deletion, an edit and an addition: all is in sync, and written once for each.

    An addition takes two writes, and between them the field is the daemon's own.
    """
    gone, edited, added = config_map("gone", namespace), deployment("edited", namespace), config_map("added", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), gone, edited, added]})
    daemon.start()
    daemon.wait_in_sync(gone, edited, added)
    chance = random.Random(3)
    for _ in range(ROUNDS):
        before = store.writes(added)
        generation = live.get(edited)["metadata"]["generation"]
        edit(live, added, {"data": {"x-added": "x"}})
        edit(live, edited, {"spec": {"replicas": 5}})
        live.request("DELETE", live.path(gone))
        time.sleep(chance.uniform(0.0, LONGEST_HEAL))
        daemon.kill()
        daemon.start()
        daemon.wait_in_sync(gone, edited, added)
        assert store.writes(gone) == 1
        assert store.writes(added) == before + 3  # the edit, and the two that revert it
        # A controller writes the status, which counts in no generation.
        assert live.get(edited)["metadata"]["generation"] == generation + 2


class Held:
    """An admission webhook's answer that makes the daemon wait, for the writes of objects that `which` picks."""

    def __init__(self, which: Callable[[Manifest], bool]) -> None:
        self.reached = threading.Event()
        self.is_over = threading.Event()
        self.allowed = True
        self._which = which

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let everybody else pass."""
        is_ours = request["options"].get("fieldManager") == "driftwatch" and not request["dryRun"]
        if not is_ours or not self._which(request["object"]):
            return {"allowed": True}
        self.reached.set()
        self.is_over.wait(LONGEST)
        return {"allowed": self.allowed}


@pytest.mark.parametrize("drift_type", ["deleted", "modified"])
def test_f03_killed_after_the_patch_was_sent(
    new_daemon: NewDaemon, live: Live, store: Store, tmp_path: Path, namespace: str, drift_type: str
) -> None:
    """The API server has the heal in its hands when the daemon dies: it is done once, by the one or by the next."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    held = Held(lambda _: True)
    before = [0]

    def is_held() -> bool:
        if drift_type == "deleted":
            live.request("DELETE", live.path(settings))
        else:
            edit(live, settings, {"data": {"colour": str(time.monotonic_ns())}})
        before[0] = store.writes(settings)
        return held.reached.wait(0.5)

    with webhook(live, tmp_path, namespace, held.answer):
        # The API server takes a moment until it calls a new webhook: until then what is wrong is mended at once.
        until(is_held, "a heal waits at the webhook", evidence=daemon.last_lines)
        daemon.kill()
        held.is_over.set()
    daemon.start()
    daemon.wait_in_sync(settings)
    assert store.writes(settings) == before[0] + 1


def test_f03_killed_between_the_two_writes_that_revert_an_addition(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str
) -> None:
    """The daemon owns what somebody added and Git does not declare, and dies: the next one takes it away.

    What it left on disk in the meantime does not say that the object was in order.
    """
    settings, other = config_map("settings", namespace), config_map("other", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, other]})
    daemon.start()
    daemon.wait_in_sync(settings, other)
    [state] = daemon.wait(lambda: list(daemon.folder.glob("state/*/in-force.msgpack")), "the state is on disk")
    held = Held(lambda found: found["metadata"]["name"] == "settings" and "x-added" not in found["data"])
    held.allowed = False

    def is_held() -> bool:
        edit(live, settings, {"data": {"x-added": "x"}})
        return held.reached.wait(0.5)

    with webhook(live, tmp_path, namespace, held.answer):
        until(is_held, "a heal waits at the webhook", evidence=daemon.last_lines)
        saved = state.stat().st_mtime_ns
        live.request("DELETE", live.path(other))  # something to be remembered
        daemon.wait(lambda: state.stat().st_mtime_ns > saved, "the state is on disk")
        daemon.kill()
        held.is_over.set()
        entries = live.get(settings)["metadata"]["managedFields"]
        assert {entry["manager"] for entry in entries} == {"driftwatch"}
    daemon.start()
    daemon.wait_in_sync(settings, other)
    assert "x-added" not in live.get(settings)["data"]
