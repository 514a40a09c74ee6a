"""What random edits have brought to light, each as its smallest case."""

from typing import Any

import orjson
from driftwatch.drift.explain import explain_modified
from driftwatch.drift.metadata import decode_head
from driftwatch.model import ObjectKey


def _entry(manager: str, operation: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}


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
        ObjectKey("", "Service", "shop", "web"),
        "shop",
        body,
        live,
        decode_head(live).metadata,
        decode_head(_object([healed])).metadata,
    )

    assert [(field.path, field.manager) for field in drift.fields] == [("spec.selector", "k9s")]
