"""What is deleted comes back, whatever its kind."""

from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.daemon import Daemon
from tests.support.every_kind import every_kind
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import namespace_of
from tests.support.scene import daemons

NAMESPACE = "a02-kinds"
GROUP = "a02.example.com"
OBJECTS = every_kind(NAMESPACE, "a02", GROUP)
WIDGET, WIDGETS = OBJECTS[-2:]


@pytest.fixture(scope="module")
def keeper(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that keeps one object of each kind, and never looks at Git again."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new(options={"interval": "1h"})
        daemon.commit({"all.yaml": [namespace_of(NAMESPACE), *OBJECTS]})
        daemon.start()
        daemon.wait_in_sync(*OBJECTS)
        yield daemon


@pytest.mark.parametrize("declared", OBJECTS, ids=lambda declared: declared["kind"])
def test_a02_deleted_object_of_any_kind_is_restored(
    keeper: Daemon, live: Live, kubectl: Kubectl, declared: Manifest
) -> None:
    """A deleted object comes back with a new uid, in sync, and counts as one deletion."""
    kind, name = declared["kind"], declared["metadata"]["name"]
    namespace = declared["metadata"].get("namespace", "")
    uid = live.uid(declared)
    group = declared["apiVersion"].rpartition("/")[0]

    kubectl(
        "delete", f"{kind}.{group}" if group else kind, name, *(["-n", namespace] if namespace else []), "--wait=false"
    )

    keeper.wait(lambda: live.uid(declared) not in ("", uid), f"the {kind} is back")
    keeper.wait_in_sync(declared)
    shown = f"{kind}.{GROUP}" if group == GROUP else kind
    healed = keeper.wait_drift(kind=shown, namespace=namespace, name=name)
    assert healed["type"] == "deleted"
    assert keeper.drift_total(kind=shown, namespace=namespace, type="modified") == 0


def test_a02_custom_resources_come_back_with_their_crd(keeper: Daemon, live: Live, kubectl: Kubectl) -> None:
    """With a deleted CRD its custom resources end, too; both come back, and the kind is watched as before."""
    uid = keeper.wait(lambda: _uid_or_none(live), "the custom resource is there")

    kubectl("delete", "crd", WIDGETS["metadata"]["name"], "--wait=false")
    keeper.wait(lambda: _uid_or_none(live) not in ("", uid), "the custom resource is back")
    keeper.wait_in_sync(WIDGETS, WIDGET)

    live.patch(WIDGET, {"spec": {"size": 7}}, manager="kubectl-edit")
    keeper.wait_in_sync(WIDGET)
    live.request("DELETE", live.path(WIDGET))
    keeper.wait_in_sync(WIDGET)


def _uid_or_none(live: Live) -> str:
    """The custom resource's uid; the path answers 404 in other words while its kind is not served."""
    code, found = live.request("GET", live.path(WIDGET))
    return found["metadata"]["uid"] if code == 200 else ""
