"""Orphans of a kind that is not served: they exist, although nothing shows them."""

import copy
import time

import pytest
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene
from tests.support.waiting import until
from tests.support.waits import UNSERVED_KIND, WATCH_BACKOFF

pytestmark = [pytest.mark.waits(WATCH_BACKOFF), pytest.mark.waits(UNSERVED_KIND)]

PRUNED = {"prune": True, "pruneDelay": "50ms", "pruneLimit": 100}


def test_h12_objects_of_a_kind_that_was_not_served_for_a_while_are_pruned(
    new_daemon: NewDaemon, kubectl: Kubectl, live: Live, namespace: str
) -> None:
    """Git drops an object while its CRD serves no version; once it does again, the object is found and pruned."""
    group = f"h12-{time.monotonic_ns() % 10**9}.example.com"
    served = crd("widgets", group, "Widget")
    unserved = copy.deepcopy(served)
    unserved["spec"]["versions"][0]["served"] = False

    def apply(definition: Manifest, code: int) -> None:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=Scene.json(definition))
        until(lambda: live.request("GET", f"/apis/{group}/v1/widgets")[0] == code, f"its path answers {code}")

    apply(served, 200)
    widget = manifest(f"{group}/v1", "Widget", "one", namespace, spec={"size": 1})
    daemon = new_daemon(options=PRUNED)
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("stays", namespace)], "a.yaml": widget})
    daemon.start()
    daemon.wait_in_sync(widget)

    apply(unserved, 404)
    commit = daemon.commit({"a.yaml": None})
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")
    daemon.wait(lambda: f'kind="Widget.{group}"' not in _watches(daemon), "the kind is not watched", timeout=40)
    apply(served, 200)
    assert live.get(widget), "the object has outlived the time"

    daemon.wait(lambda: live.get(widget) is None, "the object is pruned", timeout=40)
    daemon.wait(lambda: daemon.events("pruned", name="one"), "it is told")
    live.request("DELETE", live.path(served))


def _watches(daemon) -> str:
    return "".join(line for line in daemon.get("/metrics")[1].splitlines() if line.startswith("driftwatch_watch_up"))
