"""What random edits have brought to light, each as its smallest case."""

from typing import Any

import orjson
from driftwatch.drift.explain import Subject, explain_modified
from driftwatch.drift.metadata import decode_head
from driftwatch.model import ObjectKey


def _entry(manager: str, operation: str, fields: dict[str, Any], minute: int = 0) -> dict[str, Any]:
    time = f"2026-01-01T00:{minute:02}:00Z"
    return {"manager": manager, "operation": operation, "time": time, "fieldsV1": fields}


def _object(entries: list[dict[str, Any]], **content: Any) -> bytes:
    return orjson.dumps({"metadata": {"name": "web", "managedFields": entries}, **content})


def test_a_key_added_to_a_selector_is_named():
    """A Service's selector is owned as a whole: one key more in it is a change of a declared field, and is said so."""
    selector = {"f:spec": {"f:selector": {}}}
    ours = _entry("driftwatch", "Apply", {"f:spec": {"f:type": {}}})
    live = _object([ours, _entry("k9s", "Update", selector)], spec={"selector": {"app": "web", "tier": "a"}})
    healed = _entry("driftwatch", "Apply", {"f:spec": {"f:type": {}, "f:selector": {}}})
    body = orjson.dumps({"spec": {"type": "ClusterIP", "selector": {"app": "web"}}})

    drift = explain_modified(
        Subject(ObjectKey("", "Service", "shop", "web"), "shop"),
        body,
        live,
        decode_head(live).metadata,
        decode_head(_object([healed])).metadata,
    )

    assert [(field.path, field.manager) for field in drift.fields] == [("spec.selector", "k9s")]


def _removal(writer: dict[str, Any], *, others_wrote: bool) -> str:
    """Who is said to have removed a key from a ConfigMap, to which somebody had written before."""
    ours = _entry("driftwatch", "Apply", {"f:data": {"f:size": {}}}, minute=1)
    live = _object([ours, writer], data={"size": "4"})
    healed = decode_head(_object([_entry("driftwatch", "Apply", {"f:data": {"f:size": {}, "f:colour": {}}})])).metadata
    drift = explain_modified(
        Subject(ObjectKey("", "ConfigMap", "shop", "web"), "shop"),
        orjson.dumps({"data": {"size": "4", "colour": "red"}}),
        live,
        decode_head(live).metadata,
        healed,
        others_wrote=others_wrote,
    )
    assert [field.path for field in drift.fields] == ["data.colour"]
    return drift.manager


def test_nobody_is_blamed_for_a_removal_who_wrote_before_it():
    """Who removes a field leaves no trace: a controller that wrote an hour ago is not named for it."""
    note = {"f:metadata": {"f:annotations": {"f:note": {}}}}
    assert _removal(_entry("controller", "Update", note, minute=2), others_wrote=False) == ""
    assert _removal(_entry("controller", "Update", note, minute=0), others_wrote=True) == ""
    assert _removal(_entry("before-first-apply", "Update", note, minute=1), others_wrote=True) == ""
    assert _removal(_entry("kubectl-edit", "Update", note, minute=2), others_wrote=True) == "kubectl-edit"
