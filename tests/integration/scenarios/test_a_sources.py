"""Objects that two sources declare."""

from pathlib import Path

from tests.support.kubectl import Kubectl
from tests.support.manifests import config_map, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon


def test_a14_object_of_two_sources_belongs_to_the_first(
    new_daemon: NewDaemon, kubectl: Kubectl, tmp_path: Path, namespace: str
) -> None:
    """The later source is refused, both are named, the first heals; when it drops it, the second has it."""
    first, second = Repository(tmp_path / "first"), Repository(tmp_path / "second")
    red, blue = config_map("contested", namespace, colour="red"), config_map("contested", namespace, colour="blue")
    beside = config_map("beside", namespace)
    first.commit({"namespace.yaml": namespace_of(namespace), "red.yaml": red})
    second.commit({"blue.yaml": [beside, blue]})
    sources = [
        {"name": name, "repository": str(repository.folder)}
        for name, repository in (("first", first), ("second", second))
    ]
    daemon = new_daemon(sources=sources).start()
    daemon.wait_in_sync(red, source="first")
    daemon.wait_in_sync(beside, source="second")
    [refusal] = daemon.events("declared twice")
    assert refusal["object"] == f"ConfigMap {namespace}/contested"
    assert (refusal["owner"], refusal["refused"]) == ("first", "second")
    assert (refusal["owner_file"], refusal["refused_file"]) == ("red.yaml", "blue.yaml")

    kubectl("delete", "configmap", "contested", "-n", namespace)
    daemon.wait_in_sync(red, source="first")
    assert daemon.wait_drift(namespace=namespace, name="contested")["source"] == "first"
    assert daemon.drift_total(namespace=namespace) == 1

    first.commit({"red.yaml": None})
    daemon.wait_in_sync(blue, source="second")
    daemon.wait_in_sync(beside, source="second")
    assert daemon.drift_total(namespace=namespace, source="second") == 0, "what changes hands is no drift"
    kubectl("delete", "configmap", "contested", "-n", namespace)
    daemon.wait_drift(namespace=namespace, name="contested", source="second")
    daemon.wait_in_sync(blue, source="second")
