"""What of an object is in the way of Git's manifest, told from who owns what."""

from typing import Any

import orjson
from driftwatch.drift.blocking_fields import emptied_maps, of_dropped_items, of_last_controller, of_nobody, undeclared
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, decode_head

ITEM = 'k:{"name":"sidecar"}'
AREA = "spec.template.spec.containers[1].image"


def _entry(manager: str, fields: dict[str, Any], *, minute: int = 0, **more: str) -> dict[str, Any]:
    operation = "Apply" if manager == "driftwatch" else "Update"
    time = f"2026-01-01T00:{minute:02}:00Z"
    return {"manager": manager, "operation": operation, "time": time, "fieldsV1": fields, **more}


def _metadata(*entries: dict[str, Any]) -> Metadata:
    return decode_head(orjson.dumps({"metadata": {"name": "web", "managedFields": entries}})).metadata


def _containers(below: dict[str, Any]) -> dict[str, Any]:
    return {"f:spec": {"f:template": {"f:spec": {"f:containers": below}}}}


def _pod(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers)}}}}


def test_what_is_left_of_an_item_that_git_dropped_is_in_the_way():
    """The item is ours still and no more declared: what a controller holds of it is named, its own items are not."""
    ours = _entry("driftwatch", _containers({ITEM: {".": {}, "f:image": {}}}))
    own = 'k:{"name":"proxy"}'
    theirs = _entry("injector", _containers({ITEM: {"f:args": {}}, own: {".": {}, "f:image": {}}}))

    [found] = of_dropped_items(_metadata(ours, theirs), _pod({"name": "app"}))

    assert found.entry.manager == "injector"
    assert found.paths == [("f:spec", "f:template", "f:spec", "f:containers", ITEM, "f:args")]
    assert of_dropped_items(_metadata(ours, theirs), _pod({"name": "sidecar"})) == []


def test_of_controllers_the_one_that_wrote_last_gives_way():
    """Only undeclared fields at what was refused; status, scale and metadata are in nobody's way."""
    early = _entry("early", _containers({ITEM: {"f:args": {}}}), minute=1)
    late = _entry("late", {**_containers({ITEM: {"f:command": {}}}), "f:metadata": {"f:labels": {"f:a": {}}}}, minute=2)
    scale = _entry("kube-controller-manager", {"f:spec": {"f:replicas": {}}}, minute=3, subresource="scale")
    live = {**_pod({"name": "sidecar", "args": [], "command": []}), "metadata": {"labels": {"a": "b"}}}
    metadata = _metadata(early, late, scale)

    [found] = of_last_controller(metadata, {}, live, [AREA], Managers())

    assert (found.entry.manager, [path[-1] for path in found.paths]) == ("late", ["f:command"])
    assert of_last_controller(metadata, {}, live, ["metadata.labels"], Managers()) == []
    assert of_last_controller(metadata, live, live, [AREA], Managers()) == []


def test_what_nobody_owns_is_told_from_what_is_there():
    """Undeclared and without owner, parents first; lists are entered by the keys of other items, declared ones too."""
    live = _pod({"name": "app", "args": ["-v"]}, {"name": "sidecar", "image": "a", "tty": True})
    theirs = _entry("injector", _containers({'k:{"name":"app"}': {".": {}, "f:args": {}}, ITEM: {"f:tty": {}}}))
    area, body = ["spec.template.spec"], _pod({"name": "app"})
    image = ("f:spec", "f:template", "f:spec", "f:containers", ITEM, "f:image")

    [found] = of_nobody(_metadata(theirs), body, live, area, Managers())

    assert found.entry.manager == "before-first-apply"
    assert found.paths == [(*image[:-1], "f:name"), image]
    [found] = of_nobody(_metadata(_entry("before-first-apply", _containers({ITEM: {}}))), body, live, area, Managers())
    assert found.paths[1:3] == [image[:-1], (*image[:-1], "f:name")]
    assert of_nobody(_metadata(theirs), live, live, area, Managers()) == []
    assert of_nobody(_metadata(theirs), body, live, ["spec.replicas"], Managers()) == []


def test_an_emptied_map_is_pointed_at_where_it_is():
    """A map of an item is found by the item's place in the object; one that is not refused, or not empty, is not."""
    item = 'k:{"id":"b~/"}'
    ours = _entry("driftwatch", {"f:spec": {"f:parts": {item: {"f:limits": {"f:cpu": {}}}}, "f:kept": {"f:a": {}}}})
    live = {"spec": {"parts": [{"id": "a"}, {"id": "b~/", "limits": {"cpu": 1}}], "kept": {"a": "b"}}}
    body = {"spec": {"parts": [{"id": "b~/", "limits": {}}], "kept": {"a": "b"}}}

    assert emptied_maps(_metadata(ours), body, live, ["spec.parts[0].limits"]) == ["/spec/parts/1/limits"]
    assert emptied_maps(_metadata(ours), body, live, ["spec.kept"]) == []
    assert emptied_maps(_metadata(ours), body, live, []) == []


def test_what_git_declares_of_a_taken_field_does_not_go():
    """Of what is taken over, declared fields stay; only the others are told as removed."""
    theirs = _entry("injector", _containers({ITEM: {"f:args": {}, "f:image": {}}}))
    body = _pod({"name": "sidecar", "image": "a"})
    taken = of_dropped_items(_metadata(_entry("driftwatch", _containers({ITEM: {".": {}}})), theirs), {})

    [found] = undeclared(taken, body)

    assert [path[-1] for path in found.paths] == ["f:args"]
