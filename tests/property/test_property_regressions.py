"""What random edits have brought to light, each as its smallest case."""

from typing import Any

import orjson
from driftwatch.cluster.api import Applied
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.drift.detector import Detector
from driftwatch.drift.explain import Subject, explain_modified
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import ObjectHead, decode_head, known
from driftwatch.drift.object_state import Declaration, Verdict
from driftwatch.model import Manifest, ObjectKey
from driftwatch.reconcile.reconciler import Reconciler, Target

from tests.support.states import states_of


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


OURS = {"f:metadata": {"f:annotations": {"f:note": {}}}}
IN_ORDER = _entry("driftwatch", "Apply", OURS)
ADDED = _entry("k9s", "Update", {"f:metadata": {"f:annotations": {"f:x-added": {}}}})
ROBBED = _entry("driftwatch", "Apply", {"f:data": {"f:colour": {}}})


def _head(version: int, *entries: dict[str, Any]) -> ObjectHead:
    metadata = {"name": "web", "namespace": "shop", "resourceVersion": str(version), "managedFields": entries}
    return decode_head(orjson.dumps({"metadata": metadata}))


class _Robbed:
    """An API server where all annotations are taken away just when an added one is about to be reverted."""

    def __init__(self) -> None:
        self.applies = 0

    async def set_managed_fields(self, *_: object) -> None:
        raise ApiError(422, Status(code=422, message="the test on resourceVersion failed"))

    async def read_head(self, *_: object) -> ObjectHead:
        return _head(3, ROBBED)

    async def apply(self, *_: object) -> Applied:
        self.applies += 1
        return Applied(_head(4, IN_ORDER), created=False)


class _Silent:
    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


async def test_what_is_taken_away_while_an_addition_is_reverted_comes_back():
    """Somebody adds an annotation, and somebody else removes all of them while it is reverted: Git's comes back."""
    key = ObjectKey("", "ConfigMap", "shop", "web")
    manifest = Manifest("", "v1", "ConfigMap", "shop", "web", b'{"metadata":{"annotations":{"note":"a"}}}', "1", "f", 1)
    detector = Detector(states_of({key: manifest}), lambda: 0.0, Managers())
    detector.accept(key, _head(1, IN_ORDER), "1")
    raw = b'{"metadata":{"annotations":{"note":"a","x-added":"1"}}}'
    assert detector.on_event(key, "MODIFIED", _head(2, IN_ORDER, ADDED), known(raw)) is Verdict.ADDED
    server = _Robbed()
    reconciler = Reconciler(detector, server, _Silent(), lambda: 0.0)
    resource = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")

    await reconciler.heal(
        Target(
            key, Declaration("shop", manifest), resource, detector.states.of(key), detector.states.of(key).observation
        )
    )

    assert server.applies == 1
