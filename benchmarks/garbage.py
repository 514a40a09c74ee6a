"""Measures how long a full garbage collection stops a daemon with many objects.

It runs in this process, over the daemon's data of each object: the manifest, its declaration and its state. The daemon
freezes its Python objects after the first pass, and after every change of many Kubernetes objects. A full collection
examines only the Python objects that came later.
"""

import gc
import statistics
import time

import msgspec
import orjson
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.metadata import decode_head
from driftwatch.model import Manifest

from benchmarks import objects
from benchmarks.figures import Check, Results

SIZES = (10_000, 100_000)
ROUNDS = 5
NAMESPACE = "many"
DIGEST = "0" * 64


def garbage(results: Results) -> None:
    """Time full collections, first with the data not frozen, then with it frozen."""
    for size in SIZES:
        kept = _kept(size)
        seen = _pause()
        gc.freeze()
        frozen = _pause()
        gc.unfreeze()
        assert len(kept[1].records) == size
        del kept
        gc.collect()
        results.checks.append(
            Check(
                f"A full collection of garbage with {size:,} objects: all of them looked at; frozen, as after the "
                "first pass",
                f"{seen * 1e3:.1f} ms; {frozen * 1e3:.1f} ms",
            )
        )


def _kept(size: int) -> tuple[Declared, Detector]:
    """The daemon's data of `size` ConfigMaps, decoded like a message of the desired-state process."""
    declared = Declared(["bench"], lambda _kind: True)
    bodies = [objects.configmap(NAMESPACE, f"item-{number:06}") for number in range(size)]
    encoded = msgspec.msgpack.encode([_manifest(body) for body in bodies])
    manifests = msgspec.msgpack.decode(encoded, type=list[Manifest])
    keys = declared.change("bench", manifests, [])
    detector = Detector(declared.states, time.monotonic, Managers())
    for key in keys:
        detector.accept(key, decode_head(_answer(key.name)), DIGEST)
    return declared, detector


def _manifest(body: objects.Body) -> Manifest:
    name = str(body["metadata"]["name"])
    file = f"part-000/configmap-{name}.yaml"
    return Manifest("", "v1", "ConfigMap", NAMESPACE, name, orjson.dumps(body), f"{hash(name):064x}", file, 1)


def _answer(name: str) -> bytes:
    entry = {
        "manager": "driftwatch",
        "operation": "Apply",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:data": {"f:setting": {}, "f:log.level": {}, "f:database.url": {}}},
    }
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"{hash(name) & (2**128 - 1):032x}",
        "resourceVersion": str(hash(name) & 0xFFFFFF),
        "managedFields": [entry],
    }
    return orjson.dumps({"metadata": metadata})


def _pause() -> float:
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        gc.collect()
        taken.append(time.process_time() - began)
    return statistics.median(taken)
