"""What each refusal means, by the API server's own answers."""

import msgspec
import orjson
import pytest
from driftwatch.cluster.errors import Unreachable, api_error
from driftwatch.drift.object_state import ObjectStates
from driftwatch.model import GroupKind, ObjectKey
from driftwatch.reconcile.apply_errors import Blocked
from driftwatch.reconcile.apply_order import Rank, rank
from driftwatch.reconcile.outcome import Outcome, classify


def refusal(code, message="", reason="", **details):
    body = {"kind": "Status", "code": code, "message": message, "reason": reason, "details": details}
    return api_error(code, orjson.dumps(body), {})


TERMINATING = [{"reason": "NamespaceTerminating", "message": "namespace shop is being terminated", "field": "x"}]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refusal(403, "forbidden: being terminated", "Forbidden", causes=TERMINATING), Outcome.NAMESPACE_TERMINATING),
        (refusal(403, "User cannot patch", "Forbidden"), Outcome.FAILED),
        (refusal(403, 'secrets "b" is forbidden: exceeded quota: narrow', "Forbidden"), Outcome.RETRY),
        (refusal(404, 'namespaces "shop" not found', "NotFound", kind="namespaces"), Outcome.NAMESPACE_MISSING),
        (refusal(404, "the server could not find the requested resource", "NotFound"), Outcome.KIND_MISSING),
        (refusal(404, 'configmaps "a" not found', "NotFound", kind="configmaps", name="a"), Outcome.GONE),
        (refusal(405, "create not allowed while custom resource definition is terminating"), Outcome.KIND_MISSING),
        (refusal(403, "create not allowed while custom resource definition is terminating"), Outcome.KIND_MISSING),
        (refusal(409, "the object has been modified", "Conflict"), Outcome.RETRY),
        (refusal(422, "field is immutable", "Invalid"), Outcome.FAILED),
        (refusal(429, "too many requests", "TooManyRequests"), Outcome.RETRY),
        (refusal(500, "failed to create typed patch object (shop/x): .spec.y: not declared"), Outcome.FAILED),
        (refusal(500, "etcdserver: request timed out"), Outcome.RETRY),
        (refusal(503, "unavailable"), Outcome.RETRY),
        (Unreachable("connection refused"), Outcome.RETRY),
    ],
)
def test_a_refusal_is_told_from_its_code_and_causes(error, outcome):
    """Bad manifests are never retried in a loop, broken servers are."""
    assert classify(error) is outcome


def test_how_long_the_server_asks_us_to_wait_is_read_from_both_places():
    """Retry-After comes as a header, or in the Status."""
    assert api_error(429, b"{}", {"Retry-After": "7"}).retry_after == 7
    assert refusal(429, retryAfterSeconds=3).retry_after == 3


def test_an_answer_that_is_no_status_is_quoted():
    """A proxy's page is shortened and kept, since it is all that the operator gets to see."""
    error = api_error(502, b"<html>Bad gateway", {})
    assert "Bad gateway" in str(error)
    assert error.code == 502


def test_ranks_put_first_what_others_need():
    """Namespaces and CRDs, then policies, inputs, workloads, custom resources, webhooks."""
    order = [
        GroupKind("", "Namespace"),
        GroupKind("", "ServiceAccount"),
        GroupKind("", "ConfigMap"),
        GroupKind("apps", "Deployment"),
        GroupKind("example.com", "Widget"),
        GroupKind("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ]
    assert [rank(kind) for kind in order] == sorted(Rank)


def test_parked_keys_are_released_once():
    """What waits for a namespace or a kind comes back with it, and only what is still declared."""
    blocked = Blocked(ObjectStates())
    one, two, three = (ObjectKey("", "ConfigMap", "shop", name) for name in ("one", "two", "three"))
    for key in (one, two):
        blocked.at_namespace(key)
    blocked.at_kind(three)
    blocked.forget(two)
    assert set(blocked.namespaces) == {"shop"}
    assert blocked.counts == {"namespace": 1, "kind": 1}
    assert blocked.namespace_ready("shop") == {one}
    assert blocked.namespace_ready("shop") == set()
    assert blocked.kind_ready(three.group_kind) == {three}
    assert not blocked.kinds


def test_the_status_decoder_survives_strange_bodies():
    """An answer of another shape is an error with its code, never a crash."""
    for body in (b"", b"[]", b'"text"', b'{"code": "no number"}', bytes(range(256))):
        assert api_error(500, body, {}).code == 500
    assert msgspec.json.decode(b"{}") == {}
