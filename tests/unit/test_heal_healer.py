"""A mistake of our own in healing one object is told as any failure of it, and is over when the object is healed."""

import time

import orjson
from driftwatch.cluster.api import Applied
from driftwatch.cluster.discovery import Resource
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import Metadata, ObjectHead
from driftwatch.metrics.registry import Metrics
from driftwatch.model import Manifest, ObjectKey
from driftwatch.reconcile.concurrency import Concurrency
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.queue import KeyedQueue
from driftwatch.reconcile.schedule import Schedule
from driftwatch.report.drift_report import Report
from driftwatch.report.object_lookup import ObjectLookup
from driftwatch.report.source_status import SourceStatusStore
from driftwatch.status.board import StatusBoard

KEY = ObjectKey("", "Secret", "shop", "login")
MANIFEST = Manifest("", "v1", "Secret", "shop", "login", orjson.dumps({"metadata": {}}), "abc", "a.yaml", 3)


class Kinds:
    """Makes our own mistake, while there is one to be made."""

    mistake = True

    def resource(self, _manifest):
        if self.mistake:
            raise KeyError("hunter2")
        return Resource("", "v1", "Secret", "secrets", namespaced=True, prefix="/api/v1")


class ApiClient:
    async def apply(self, *_place):
        return Applied(ObjectHead(Metadata(resourceVersion="1")), created=True)


class Watches:
    kinds = frozenset()

    def unsynced(self):
        return []


async def test_e02_an_unexpected_failure_is_a_failed_heal_in_metrics_and_status():
    """With file and line and when it is tried again, without what the mistake quotes; healed, nothing is left of it."""
    declared = Declared(["apps"], lambda _kind: True)
    declared.replace("apps", [MANIFEST])
    detector = Detector(declared.states, time.monotonic, Managers())
    metrics, kinds, modes = Metrics(), Kinds(), Schedule()
    told = []
    report = Report(metrics, tell=told.append)
    queue = KeyedQueue(declared.states, Concurrency(time.monotonic), time.monotonic)
    controller = Controller(declared, detector, ApiClient(), kinds, report, modes, queue, time.monotonic)
    board = StatusBoard(report, SourceStatusStore(), ObjectLookup(declared, detector), [], modes, Watches(), list, [])

    def heals(result):
        labels = {"source": "apps", "kind": "Secret", "namespace": "shop", "result": result}
        return metrics.registry.get_sample_value("driftwatch_heals_total", labels)

    await controller.reconcile_all({KEY})

    assert heals("failed") == 1
    [shown] = board.status().objects
    assert (shown.state, shown.name, shown.file, shown.source) == ("failed", "login", "a.yaml:3", "apps")
    assert shown.error == "healing failed unexpectedly: KeyError; the log has the traceback"
    assert shown.retryAt
    assert [occurrence.what for occurrence in told] == ["failed"]
    kinds.mistake = False
    await controller.reconcile_all({KEY})
    assert board.status().objects == []
    assert detector.states.of(KEY).last_applied == "abc"
    await controller.stop(1.0)
