"""A mistake of our own in judging one object costs nobody else the watch."""

import time

import orjson
import pytest
from driftwatch.cluster.discovery import Resource
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, ObjectHead
from driftwatch.drift.object_state import ObjectStates, Verdict
from driftwatch.model import GroupKind, Manifest, ObjectKey
from driftwatch.reconcile.event_handler import WatchEventHandler
from msgspec import structs

RESOURCE = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")
BAD, GOOD = (ObjectKey("", "ConfigMap", "shop", name) for name in ("bad", "good"))


class Controller:
    def __init__(self):
        self.found = {}

    def on_finding(self, key, verdict):
        self.found[key] = verdict

    def on_seen(self, _key, _metadata):
        pass


class Orphans:
    def on_listed(self, _resource, _seen, _version):
        pass

    def on_unwatched(self, _kind):
        pass


class DryRunDiff(Detector):
    """Makes our own mistake with one object."""

    def on_event(self, key, change, head, content):
        if key == BAD:
            raise RecursionError("hunter2")
        return super().on_event(key, change, head, content)

    def on_listed(self, key, head, content):
        if key == BAD:
            raise RecursionError("hunter2")
        return super().on_listed(key, head, content)


def head(key):
    return ObjectHead(Metadata(name=key.name, namespace=key.namespace, resourceVersion="5"))


@pytest.fixture
def controller():
    return Controller()


@pytest.fixture
def detector():
    made = DryRunDiff(ObjectStates(), time.monotonic, Managers())
    for key in (BAD, GOOD):
        made.states.of(key)
    return made


@pytest.fixture
def event_handler(controller, detector):
    declared = Declared(["apps"], lambda _kind: True)
    declared.replace("apps", [
        Manifest("", "v1", "ConfigMap", key.namespace, key.name, orjson.dumps({}), "abc", "a.yaml", 1)
        for key in (BAD, GOOD)
    ])  # fmt: skip
    made = WatchEventHandler(declared, detector, controller, Orphans(), None, None)
    made.take_first_list({GroupKind("", "ConfigMap")})
    return made


def test_an_object_that_an_event_does_not_let_be_judged_is_looked_at(event_handler, controller, detector):
    event_handler.on_event(RESOURCE, "MODIFIED", head(BAD), b"{}")
    event_handler.on_event(RESOURCE, "DELETED", head(GOOD), b"{}")

    assert controller.found == {BAD: Verdict.SUSPECT, GOOD: Verdict.DELETED}
    assert detector.states.of(BAD).accepted is None
    assert event_handler.verdicts[GroupKind("", "ConfigMap")] == {Verdict.SUSPECT: 1, Verdict.DELETED: 1}


def test_a_list_with_such_an_object_is_taken_in(event_handler, controller):
    event_handler.on_page(RESOURCE, [(head(key), dict) for key in (BAD, GOOD)], first=True)
    event_handler.on_listed(RESOURCE, 5)

    assert controller.found.keys() == {BAD, GOOD}
    assert controller.found[BAD] is Verdict.SUSPECT


def test_h12_nothing_is_kept_of_a_list_that_did_not_end(event_handler, detector):
    """A kind that is not watched any more leaves nothing of a LIST that its watch had begun."""
    detector.states.of(GOOD).version = 9  # the LIST shows an older one
    event_handler.on_page(RESOURCE, [(head(key), dict) for key in (BAD, GOOD)], first=True)
    assert event_handler._others[RESOURCE.group_kind, ""].keys() == {GOOD}

    event_handler.forget(RESOURCE.group_kind)

    assert not event_handler._others
    assert not event_handler._seen


def test_h12_nothing_is_kept_of_a_list_whose_namespace_is_left(event_handler, detector):
    """A namespace that is not watched any more leaves nothing of its LIST; another one of the kind is not affected."""
    detector.states.of(GOOD).version = 9
    left, other = (structs.replace(RESOURCE, confined=namespace) for namespace in ("shop", "lab"))
    for resource in (left, other):
        event_handler.on_page(resource, [(head(key), dict) for key in (BAD, GOOD)], first=True)

    event_handler.on_unwatched(left)

    assert [place[1] for place in event_handler._seen] == ["lab"]
    assert [place[1] for place in event_handler._others] == ["lab"]
