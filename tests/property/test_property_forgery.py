"""What random edits brought to light about forged and stripped ownership."""

import time

import orjson
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import decode_head
from driftwatch.drift.object_state import Verdict
from driftwatch.model import Manifest, ObjectKey

from tests.property.edits import SPOOF, Edit, Verb
from tests.property.kinds import GROUP, KINDS
from tests.property.world import World
from tests.support.manifests import config_map, manifest
from tests.support.states import states_of
from tests.support.strategies import GONE, Change

CONFIG_MAP = next(kind for kind in KINDS if kind.kind == "ConfigMap")
WIDGET = next(kind for kind in KINDS if kind.kind == "Widget")


def test_an_apply_under_our_name_while_we_are_down_is_found(world: World) -> None:
    """Somebody applies all that we would, with one value changed, while the daemon is down: found at its start."""
    world.declare([CONFIG_MAP], [config_map("web", world.begin(), colour="red", size="4")])
    world.pause(by_force=False)

    assert world.do(Edit(0, Verb.APPLY, SPOOF, (Change(("data", "colour"), "blue"),))).code == 200
    world.resume()

    world.wait_quiet(within=3.0)


def test_what_git_drops_goes_although_ownership_was_stripped_once(world: World) -> None:
    """Somebody strips managedFields, which is mended; a key that Git drops later leaves the cluster all the same."""
    namespace = world.begin()
    world.declare([CONFIG_MAP], [config_map("web", namespace, colour="red", size="4")])
    assert world.do(Edit(0, Verb.STRIP, "kubectl-edit", ())).code == 200
    world.wait_quiet()

    world.redeclare(0, config_map("web", namespace, colour="red"))
    world.commit()

    found = world.live.get(world.manifests[0])
    assert found is not None
    assert found["data"] == {"colour": "red"}


def test_a_list_that_git_drops_goes_although_the_list_itself_is_noted_down_as_nobodys(world: World) -> None:
    """Ownership was stripped, and its repair was lost: the API server makes null of the list, which is invalid."""
    parts = [{"id": "a", "size": 1}, {"id": "b", "size": 2}]
    widget = manifest(f"{GROUP}/v1", "Widget", "web", world.begin(), spec={"replicas": 1, "parts": parts})
    world.declare([WIDGET], [widget])
    world.pause(by_force=False)
    nobodys = {"manager": "before-first-apply", "operation": "Update", "apiVersion": widget["apiVersion"]}
    fields = {"fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:parts": {}}}}
    entries = [*world.live.get(widget)["metadata"]["managedFields"], {**nobodys, **fields}]
    world.live.patch(widget, {"metadata": {"managedFields": entries}}, manager="kubectl-edit")
    world.resume()

    world.redeclare(0, {**widget, "spec": {"replicas": 1}})
    world.commit()

    assert world.live.get(widget)["spec"] == {"replicas": 1}


def test_a_field_added_under_our_name_is_reverted(world: World) -> None:
    """Who adds a field as `driftwatch` is not driftwatch: it is reverted as any person's would be."""
    world.declare([CONFIG_MAP], [config_map("web", world.begin(), colour="red")])

    assert world.do(Edit(0, Verb.MERGE, SPOOF, (Change(("data", "x-added"), "1"),))).code == 200
    assert world.do(Edit(0, Verb.MERGE, "k9s", (Change(("data", "colour"), GONE),))).code == 200

    world.wait_quiet()
    found = world.live.get(world.manifests[0])
    assert found is not None
    assert found["data"] == {"colour": "red"}


def test_a_label_forged_in_the_second_of_our_own_write_is_suspect() -> None:
    """An apply under our name that changes a label alone, in the second of our own apply, looks like it: suspect."""
    key = ObjectKey("apps", "Deployment", "shop", "web")
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"tier": "a"}}}
    manifest = Manifest("apps", "v1", "Deployment", "shop", "web", orjson.dumps(body), "1", "web.yaml", 1)
    detector = Detector(states_of({key: manifest}), time.monotonic, Managers())
    entry = {"manager": "driftwatch", "operation": "Apply", "time": "2026-01-01T00:00:00Z"}
    entry["fieldsV1"] = {"f:metadata": {"f:labels": {"f:tier": {}}}}

    def live(version: int, tier: str) -> bytes:
        metadata = {"name": "web", "namespace": "shop", "resourceVersion": str(version), "generation": 1}
        return orjson.dumps({"metadata": {**metadata, "labels": {"tier": tier}, "managedFields": [entry]}})

    detector.states.of(key)
    detector.accept(key, decode_head(live(1, "a")), "1")

    forged = live(2, "b")
    assert detector.on_event(key, "MODIFIED", decode_head(forged), lambda: forged) is Verdict.SUSPECT
