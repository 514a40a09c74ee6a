"""Block G: many at once, in the middle of noise; begun again and again, and no larger for it.

How long it all takes is measured by `make bench`. Here it is what is done: everything once, and nothing else.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest, namespace_of
from tests.support.meanwhile import meanwhile
from tests.support.scene import NewDaemon

BURST = 200
ROUNDS = 10
CHURNED = 40
GROWTH = 6_000_000  # bytes from the middle on: some forty kilobytes a heal; `make bench` looks closer
PATIENCE = 60.0  # seconds
SPEC = {"ports": [{"port": 80}], "selector": {"app": "web"}}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
BACKEND = {"service": {"name": "noisy", "port": {"number": 80}}}


def _noisy(namespace: str) -> list[Manifest]:
    """Objects of several kinds whose status anybody may write."""
    return [
        manifest("v1", "Service", "noisy", namespace, spec={**SPEC, "type": "LoadBalancer"}),
        manifest("v1", "PersistentVolumeClaim", "noisy", namespace, spec=CLAIM),
        manifest("networking.k8s.io/v1", "Ingress", "noisy", namespace, spec={"defaultBackend": BACKEND}),
        manifest("policy/v1", "PodDisruptionBudget", "noisy", namespace, spec={"minAvailable": 1}),
    ]


@contextmanager
def _status_noise(live: Live, objects: list[Manifest]) -> Iterator[list[int]]:
    """For as long as the block, a thread writes their statuses in turn; yields the versions that it has made."""
    written = list[int]()

    def write() -> None:
        for each in objects:
            condition = {
                "type": "Noise", "status": "True", "reason": f"N{len(written)}", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }  # fmt: skip
            status = {"conditions": [condition]}
            if each["kind"] == "Ingress":
                status = {"loadBalancer": {"ingress": [{"ip": f"10.0.0.{len(written) % 250 + 1}"}]}}
            path = f"{live.path(each)}/status?fieldManager=noise"
            code, answer = live.request("PATCH", path, {"status": status}, media_type="application/merge-patch+json")
            assert code == 200, answer
            written.append(int(answer["metadata"]["resourceVersion"]))

    with meanwhile(write):
        yield written


def _wait_all_back(daemon: Daemon, live: Live, objects: list[Manifest]) -> None:
    for each in objects:
        daemon.wait(lambda each=each: live.uid(each), f"{each['metadata']['name']} is back", timeout=PATIENCE)


def test_g01_a_burst_of_deletions_in_noise_is_healed_once_each(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Everything deleted at once is back, by one write each; objects of which only the status moves cost none."""
    daemon: Daemon = new_daemon()
    many = [config_map(f"many-{number}", namespace) for number in range(BURST)]
    noisy = _noisy(namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), *many, *noisy]})
    daemon.start()
    daemon.wait_in_sync(many[-1], *noisy)
    audit.mark()
    collection = live.path(many[0]).rpartition("/")[0]

    with _status_noise(live, noisy) as written:
        code, _ = live.request("DELETE", collection)
        _wait_all_back(daemon, live, many)

    assert code == 200
    assert len(written) > 10
    daemon.wait(lambda: len(daemon.drifts(namespace=namespace)) >= BURST, "every deletion is told")
    assert {(line["kind"], line["event"], line["verdict"]) for line in daemon.drifts(namespace=namespace)} == {
        ("ConfigMap", "drift healed", "deleted")
    }
    writes = [event for event in audit.events(agent=AGENT, namespace=namespace) if event["verb"] in WRITES]
    healed = [event["objectRef"]["name"] for event in writes if event["objectRef"]["resource"] == "configmaps"]
    assert sorted(healed) == sorted(each["metadata"]["name"] for each in many)
    assert [event["objectRef"]["resource"] for event in writes if event["objectRef"]["name"] == "noisy"] == []


def test_g02_begun_again_it_reads_lists_and_writes_nothing(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """A start over objects that are in sync asks for none of them by name, with its memory of them or without."""
    daemon: Daemon = new_daemon()
    many = [config_map(f"many-{number}", namespace) for number in range(BURST)]
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

        assert daemon.metric("driftwatch_managed_objects", kind="ConfigMap") == BURST
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
