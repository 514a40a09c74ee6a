"""Block G: many at once, in the middle of noise; begun again and again, and no larger for it.

How long it all takes is measured by `make bench`. Here it is what is done: everything once, and nothing else.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest, namespace_of, pod_spec, pod_template
from tests.support.meanwhile import meanwhile
from tests.support.scene import NewDaemon
from tests.support.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.command]
MANAGED = 2000
BURST = 300
STARTED = 200
ROUNDS = 10
CHURNED = 40
GROWTH = 6_000_000  # bytes from the middle on: some forty kilobytes a heal; `make bench` looks closer
BURST_GROWTH = 40_000_000  # bytes while a burst is healed, a hundred kilobytes an object that is in flight
PATIENCE = 60.0  # seconds
BURST_PATIENCE = 180.0
HANDS = 2  # threads that make noise
COLLECTIONS = ("configmaps", "secrets", "serviceaccounts")
SPEC = {"ports": [{"port": 80}], "selector": {"app": "web"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
BACKEND = {"service": {"name": "noisy", "port": {"number": 80}}}
WORKLOAD = {"selector": {"matchLabels": {"app": "noisy"}}, "template": pod_template("noisy")}
RUN = {"template": {"spec": pod_spec(restartPolicy="Never")}}
SCALED = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "noisy"}


def _many(namespace: str) -> list[Manifest]:
    """Objects of three kinds; the first ones are to be deleted, and carry a label that says so."""
    makers = (
        lambda name: config_map(name, namespace),
        lambda name: manifest("v1", "Secret", name, namespace, data={"key": "dmFsdWU="}),
        lambda name: manifest("v1", "ServiceAccount", name, namespace),
    )
    objects = [makers[number % len(makers)](f"many-{number}") for number in range(MANAGED)]
    for each in objects[:BURST]:
        each["metadata"]["labels"] = {"burst": "yes"}
    return objects


def _noisy(namespace: str) -> list[Manifest]:
    """Objects of many kinds whose status anybody may write, and that no controller of the tests' cluster touches."""

    def noisy(api_version: str, kind: str, spec: dict[str, Any]) -> Manifest:
        return manifest(api_version, kind, "noisy", namespace, spec=spec)

    return [
        namespace_of(namespace),
        noisy("v1", "Service", {**SPEC, "type": "LoadBalancer"}),
        noisy("v1", "PersistentVolumeClaim", CLAIM),
        noisy("v1", "ReplicationController", {"selector": {"app": "noisy"}, "template": WORKLOAD["template"]}),
        noisy("v1", "ResourceQuota", {"hard": {"count/pods": "100"}}),
        noisy("apps/v1", "Deployment", WORKLOAD),
        noisy("apps/v1", "StatefulSet", {**WORKLOAD, "serviceName": "noisy"}),
        noisy("apps/v1", "DaemonSet", WORKLOAD),
        noisy("apps/v1", "ReplicaSet", WORKLOAD),
        noisy("batch/v1", "Job", RUN),
        noisy("batch/v1", "CronJob", {"schedule": "0 4 * * *", "jobTemplate": {"spec": RUN}}),
        noisy("autoscaling/v2", "HorizontalPodAutoscaler", {"scaleTargetRef": SCALED, "maxReplicas": 3}),
        noisy("networking.k8s.io/v1", "Ingress", {"defaultBackend": BACKEND}),
        noisy("policy/v1", "PodDisruptionBudget", {"minAvailable": 1}),
    ]


def _status(kind: str, number: int) -> dict[str, Any]:
    """A status that is another one each time."""
    if kind == "Ingress":
        return {"loadBalancer": {"ingress": [{"ip": f"10.0.0.{number % 250 + 1}"}]}}
    if kind == "ResourceQuota":
        return {"used": {"count/pods": f"{number}"}}
    if kind == "CronJob":
        return {"lastScheduleTime": f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"}
    condition = {
        "type": "Noise", "status": "True", "reason": f"N{number}", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return {"conditions": [condition]}


@contextmanager
def _status_noise(live: Live, objects: list[Manifest]) -> Iterator[Counter[str]]:
    """For as long as the block, threads write their statuses in turn; yields how often those of each kind."""
    written = Counter[str]()

    def writer(part: list[Manifest]) -> None:
        for each in part:
            path = f"{live.path(each)}/status?fieldManager=noise"
            status = {"status": _status(each["kind"], written[each["kind"]])}
            code, answer = live.request("PATCH", path, status, media_type="application/merge-patch+json")
            assert code == 200, answer
            written[each["kind"]] += 1

    with ExitStack() as stack:
        for hand in range(HANDS):
            stack.enter_context(meanwhile(lambda part=objects[hand::HANDS]: writer(part)))
        yield written


def _found(live: Live, namespace: str) -> dict[tuple[str, str], dict[str, str]]:
    """Metadata of all that lives in the namespace, of the kinds that there are many of, by resource and name."""
    found = {}
    for resource in COLLECTIONS:
        code, answer = live.request("GET", f"/api/v1/namespaces/{namespace}/{resource}")
        assert code == 200, answer
        found |= {(resource, each["metadata"]["name"]): each["metadata"] for each in answer["items"]}
    return found


def _names(objects: list[Manifest]) -> list[tuple[str, str]]:
    """Resource and name of each."""
    return sorted((f"{each['kind'].lower()}s", each["metadata"]["name"]) for each in objects)


def _wait_all_back(daemon: Daemon, live: Live, objects: list[Manifest]) -> None:
    for each in objects:
        daemon.wait(lambda each=each: live.uid(each), f"{each['metadata']['name']} is back", timeout=PATIENCE)


def test_g01_a_burst_of_deletions_in_noise_is_healed_once_each(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Everything deleted at once is back, by one write each; nothing else is written to, listed or watched anew.

    All the while the statuses of objects of many kinds move, which costs no request at all.
    """
    daemon: Daemon = new_daemon()
    many, noisy = _many(namespace), _noisy(namespace)
    lost, kept = many[:BURST], many[BURST:]
    daemon.commit({"all.yaml": [*noisy, *many]})
    daemon.start(ready=False)
    daemon.wait(daemon.is_ready, "the first pass over all of them is done", timeout=BURST_PATIENCE)
    daemon.wait_in_sync(*noisy, many[0], many[-1])
    kinds = {each["kind"] for each in (*many, *noisy)}
    until(lambda: all(daemon.metric("driftwatch_watch_up", kind=kind) for kind in kinds), "every watch is up")
    assert daemon.metric("driftwatch_managed_objects", source=daemon.source) == MANAGED + len(noisy)
    before = _found(live, namespace)
    restarts, told = daemon.metric("driftwatch_watch_restarts_total"), len(daemon.log())
    quiet = {kind: daemon.metric("driftwatch_watch_events_total", kind=kind, type="in_sync") for kind in kinds}
    resident = daemon.metric("process_resident_memory_bytes")
    audit.mark()

    with _status_noise(live, noisy) as written:
        for resource in COLLECTIONS:
            path = f"/api/v1/namespaces/{namespace}/{resource}?labelSelector=burst%3Dyes"
            assert live.request("DELETE", path)[0] == 200
        daemon.wait(lambda: len(daemon.drifts()) >= BURST, "every deletion is told", timeout=BURST_PATIENCE)
        until(lambda: min(written[each["kind"]] for each in noisy) >= 10, "there was noise of every kind")

    def seen(kind: str) -> float:
        return daemon.metric("driftwatch_watch_events_total", kind=kind, type="in_sync") - quiet[kind]

    for kind, count in written.items():
        daemon.wait(lambda kind=kind, count=count: seen(kind) >= count, f"all noise of {kind} is seen")

    assert {(line["event"], line["type"]) for line in daemon.drifts()} == {("drift healed", "deleted")}
    assert sorted((f"{line['kind'].lower()}s", line["name"]) for line in daemon.drifts()) == _names(lost)
    assert {line["event"] for line in daemon.log()[told:]} == {"drift healed"}, "nothing else has happened"
    requests = audit.events(agent=AGENT, namespace=namespace)
    assert {event["verb"] for event in requests} == {"patch"}, "an object that is gone is not read"
    assert sorted((each["objectRef"]["resource"], each["objectRef"]["name"]) for each in requests) == _names(lost)
    assert audit.events(agent=AGENT, verb="list") == []
    assert daemon.metric("driftwatch_watch_restarts_total") == restarts
    assert daemon.metric("driftwatch_drifted_objects") == 0
    after = _found(live, namespace)
    assert {name: after[name] for name in _names(kept)} == {name: before[name] for name in _names(kept)}
    assert [name for name in _names(lost) if after[name]["uid"] == before[name]["uid"]] == []
    daemon.wait_in_sync(*lost[:3], *kept[:3])
    assert daemon.metric("process_resident_memory_bytes") - resident < BURST_GROWTH


def test_g02_begun_again_it_reads_lists_and_writes_nothing(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """A start over objects that are in sync asks for none of them by name, with its memory of them or without."""
    daemon: Daemon = new_daemon()
    many = [config_map(f"many-{number}", namespace) for number in range(STARTED)]
    daemon.commit({"all.yaml": [namespace_of(namespace), *many]})
    daemon.start()
    daemon.wait_in_sync(many[-1])
    for forgets in (False, True):
        daemon.stop()
        if forgets:
            [memory] = daemon.folder.rglob("in-force.msgpack")
            memory.unlink()
        audit.mark()

        daemon.start()

        assert daemon.metric("driftwatch_managed_objects", kind="ConfigMap") == STARTED
        asked = audit.events(agent=AGENT, namespace=namespace)
        assert [event["verb"] for event in asked if event["objectRef"].get("name")] == []
        assert live.difference(many[0], daemon.source) == ""


def test_g02_memory_does_not_grow_with_what_has_happened(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """The same objects are deleted and changed in Git again and again: what a round needs, the next one needs again."""
    daemon: Daemon = new_daemon()
    resident: list[float] = []
    daemon.commit({"space.yaml": namespace_of(namespace)})
    daemon.start()
    for number in range(ROUNDS):
        many = [config_map(f"many-{each}", namespace, colour=f"{number}") for each in range(CHURNED)]
        daemon.declare(*many, file="many.yaml")
        daemon.wait_in_sync(*many)
        live.request("DELETE", live.path(many[0]).rpartition("/")[0])
        _wait_all_back(daemon, live, many)
        resident.append(daemon.metric("process_resident_memory_bytes"))

    assert resident[-1] - resident[ROUNDS // 2] < GROWTH, resident
