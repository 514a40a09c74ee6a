"""Git changes a field that cannot be changed: reported; the object is created anew only where that is allowed."""

from typing import Any

import pytest
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest, namespace_of, pod_spec
from tests.support.scene import NewDaemon
from tests.support.waiting import until

RBAC = "rbac.authorization.k8s.io"


def _job(namespace: str, image: str) -> Manifest:
    spec = {**pod_spec(), "restartPolicy": "Never"}
    spec["containers"][0]["image"] = image
    return manifest("batch/v1", "Job", "job", namespace, spec={"template": {"spec": spec}})


def _binding(namespace: str, role: str) -> Manifest:
    subject = {"kind": "ServiceAccount", "name": "app", "namespace": namespace}
    reference = {"apiGroup": RBAC, "kind": "Role", "name": role}
    return manifest(f"{RBAC}/v1", "RoleBinding", "binding", namespace, roleRef=reference, subjects=[subject])


def _stateful(namespace: str, size: str) -> Manifest:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }
    labels = {"app": "stateful"}
    spec = {
        "serviceName": "stateful",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod_spec()},
        "volumeClaimTemplates": [claim],
    }
    return manifest("apps/v1", "StatefulSet", "stateful", namespace, spec=spec)


def _deployment(namespace: str, app: str) -> Manifest:
    spec = {"selector": {"matchLabels": {"app": app}}}
    template = {"metadata": {"labels": {"app": app}}, "spec": pod_spec()}
    return deployment("web", namespace, template=template, **spec)


def _service(namespace: str, **spec: Any) -> Manifest:
    return manifest("v1", "Service", "service", namespace, spec={"ports": [{"port": 80}], **spec})


def _class(namespace: str, kind: str) -> Manifest:
    name = f"class-{namespace}"
    return manifest(
        "storage.k8s.io/v1", "StorageClass", name, provisioner="example.com/disk", parameters={"type": kind}
    )


def _frozen(namespace: str, colour: str) -> Manifest:
    return manifest("v1", "ConfigMap", "frozen", namespace, data={"colour": colour}, immutable=True)


def _frozen_secret(namespace: str, value: str) -> Manifest:
    return manifest("v1", "Secret", "frozen", namespace, data={"key": value}, immutable=True)


def _both(namespace: str) -> list[tuple[Manifest, Manifest]]:
    """Objects as they are, and as Git wants them to be."""
    return [
        (_deployment(namespace, "web"), _deployment(namespace, "other")),
        (_job(namespace, "registry.example.com/a"), _job(namespace, "registry.example.com/b")),
        (_binding(namespace, "reader"), _binding(namespace, "writer")),
        (_stateful(namespace, "1Gi"), _stateful(namespace, "2Gi")),
        (_service(namespace), _service(namespace, clusterIP="None")),
        (_class(namespace, "slow"), _class(namespace, "fast")),
        (_frozen(namespace, "red"), _frozen(namespace, "blue")),
        (_frozen_secret(namespace, "YWFhYWFhYWE="), _frozen_secret(namespace, "YmJiYmJiYmI=")),
    ]


KINDS = {"Deployment", "Job", "RoleBinding", "StatefulSet", "Service", "StorageClass", "ConfigMap", "Secret"}


def _uid(live: Live, declared: Manifest) -> str:
    uid = live.uid(declared)
    assert uid, f"{declared['kind']} {declared['metadata']['name']} is not there"
    return uid


def _refusal(live: Live, declared: Manifest) -> str:
    """What the API server says to whoever applies the manifest; nothing is written."""
    path = f"{live.path(declared)}?fieldManager=driftwatch&force=true&dryRun=All"
    code, answer = live.request("PATCH", path, declared, media_type="application/apply-patch+yaml")
    assert code == 422, answer
    return str(answer["message"])


def _start(new_daemon: NewDaemon, objects: list[Manifest], namespace: str, **options: Any) -> Daemon:
    daemon = new_daemon(options=options)
    daemon.commit({"all.yaml": [namespace_of(namespace), *objects]})
    daemon.start()
    daemon.wait_in_sync(*objects)
    return daemon


def _clean(live: Live, namespace: str) -> None:
    live.request("DELETE", live.path(_class(namespace, "slow")))


def _deleted(audit: AuditTrail) -> list[str]:
    """Resources of which the daemon has deleted an object, each as often as it has."""
    return sorted(event["objectRef"]["resource"] for event in audit.events(agent=AGENT, verb="delete", code=200))


def test_e01_what_cannot_be_changed_is_reported_and_left_alone(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Without consent each is said to be immutable, with what would allow it; all else is healed."""
    pairs = _both(namespace)
    assert {before["kind"] for before, _ in pairs} == KINDS
    settings = config_map("settings", namespace)
    daemon = _start(new_daemon, [*(before for before, _ in pairs), settings], namespace)
    found = [live.get(before) for before, _ in pairs]

    daemon.commit({"all.yaml": [namespace_of(namespace), *(after for _, after in pairs), settings]})
    for before, after in pairs:
        named = {"kind": before["kind"], "name": before["metadata"]["name"]}
        [line] = daemon.wait(lambda named=named: daemon.events("not applied", **named), f"{named} is refused")
        assert line["outcome"] == "immutable", line
        assert "driftwatch.io/recreate: immutable" in line["next"]
        if before["kind"] != "Secret":  # of which no value is quoted
            assert _refusal(live, after) in line["error"]
    live.request("DELETE", live.path(settings))
    daemon.wait_in_sync(settings)
    assert [live.get(before) for before, _ in pairs] == found
    assert _deleted(audit) == []
    assert "YmJiYmJiYmI=" not in daemon.text()
    _clean(live, namespace)


def test_e01_where_it_is_allowed_the_object_is_created_anew(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """With `recreate: immutable` every kind is deleted and comes back as Git wants it, each once."""
    pairs = _both(namespace)
    daemon = _start(new_daemon, [before for before, _ in pairs], namespace, recreate="immutable")
    uids = {before["kind"]: _uid(live, before) for before, _ in pairs}
    for _, after in pairs:
        _refusal(live, after)

    daemon.commit({"all.yaml": [namespace_of(namespace), *(after for _, after in pairs)]})
    daemon.wait_in_sync(*(after for _, after in pairs))

    assert sorted(line["kind"] for line in daemon.events("deleted to be created anew")) == sorted(KINDS)
    assert {before["kind"] for before, _ in pairs if _uid(live, before) != uids[before["kind"]]} == KINDS
    assert _deleted(audit) == sorted(f"{kind.lower()}{'es' if kind == 'StorageClass' else 's'}" for kind in KINDS)
    assert not daemon.drifts(), "what Git changes is no drift"
    assert not daemon.events("not applied")
    assert "YmJiYmJiYmI=" not in daemon.text()
    _clean(live, namespace)


def test_e01_what_the_api_server_keeps_as_it_is_is_no_change(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A Service whose `clusterIP: None` leaves Git keeps it, by the API server's own rule: nothing is replaced."""
    service, settings = _service(namespace, clusterIP="None"), config_map("settings", namespace)
    daemon = _start(new_daemon, [service, settings], namespace, recreate="immutable")
    before = _uid(live, service)

    daemon.commit({"all.yaml": [namespace_of(namespace), _service(namespace), settings]})
    daemon.wait(lambda: daemon.events("synced", name="service")[1:], "the new commit is applied")
    live.request("DELETE", live.path(settings))
    daemon.wait_in_sync(_service(namespace), settings)
    assert _uid(live, service) == before
    assert live.get(service)["spec"]["clusterIP"] == "None"
    assert not daemon.events("not applied")
    assert not daemon.events("deleted to be created anew")


def test_e01_an_object_may_say_so_itself(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """The annotation in Git allows it for one object, and forbids it where the source allows it."""
    consent = {"metadata": {"annotations": {"driftwatch.io/recreate": "immutable"}}}
    allowed, other = _frozen(namespace, "red"), config_map("other", namespace, colour="red") | {"immutable": True}
    allowed["metadata"] |= consent["metadata"]
    daemon = _start(new_daemon, [allowed, other], namespace)
    before = _uid(live, other)

    changed = [{**one, "data": {"colour": "blue"}} for one in (allowed, other)]
    daemon.commit({"all.yaml": [namespace_of(namespace), *changed]})
    daemon.wait_in_sync(changed[0])
    daemon.wait(lambda: daemon.events("not applied", name="other", outcome="immutable"), "the other is left alone")
    assert _uid(live, other) == before


def test_e01_a_claim_needs_its_own_consent(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A PersistentVolumeClaim is not deleted because its source allows it for all: data would go with it."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = manifest("v1", "PersistentVolumeClaim", "data", namespace, spec=spec)
    daemon = _start(new_daemon, [claim], namespace, recreate="immutable")
    before = _uid(live, claim)

    daemon.commit({"all.yaml": [namespace_of(namespace), {**claim, "spec": {**spec, "accessModes": ["ReadOnlyMany"]}}]})
    daemon.wait(lambda: daemon.events("not applied", name="data", outcome="immutable"), "it is left alone")
    assert _uid(live, claim) == before


@pytest.mark.parametrize("mistake", ["image", "selector"])
def test_e01_a_manifest_that_is_invalid_otherwise_deletes_nothing(
    new_daemon: NewDaemon, live: Live, namespace: str, mistake: str
) -> None:
    """A new selector beside a container without image, or one that fits no label: failed, nothing is deleted."""
    web = _deployment(namespace, "web")
    daemon = _start(new_daemon, [web], namespace, recreate="immutable")
    before = _uid(live, web)

    broken = _deployment(namespace, "other")
    if mistake == "image":
        del broken["spec"]["template"]["spec"]["containers"][0]["image"]
    else:
        broken["spec"]["template"]["metadata"]["labels"] = {"app": "third"}
    daemon.commit({"all.yaml": [namespace_of(namespace), broken]})
    daemon.wait(lambda: daemon.events("not applied", name="web", outcome="failed"), "it is refused")
    assert _uid(live, web) == before
    assert not daemon.events("deleted to be created anew")


def test_e01_somebody_recreates_an_object_with_another_immutable_field(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """Deleted and created behind Git's back with another selector: put back, as drift, where that is allowed."""
    web = _deployment(namespace, "web")
    daemon = _start(new_daemon, [web], namespace, recreate="immutable")

    with daemon.suspended():
        live.request("DELETE", live.path(web))
        other = _deployment(namespace, "other")
        other["metadata"]["labels"] = {**other["metadata"]["labels"], "driftwatch.io/source": daemon.source}
        until(lambda: live.get(web) is None, "it is gone")
        live.patch(other, other, manager="kubectl-create", kind="apply")

    daemon.wait_in_sync(web)
    drift = daemon.wait_drift(name="web")
    assert drift["type"] in ("modified", "deleted")
    assert len(daemon.events("drift healed", name="web")) == 1


def _reachable(namespace: str, name: str, load_balancer: str, **spec: Any) -> Manifest:
    """A Service of a load balancer, whose class cannot be changed."""
    fields = {"type": "LoadBalancer", "loadBalancerClass": load_balancer, "ports": [{"port": 80}], **spec}
    return manifest("v1", "Service", name, namespace, spec=fields)


def test_e01_a_service_is_created_anew_with_the_ports_that_it_has(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """A node port in Git is taken by the very Service that is to be replaced; one that another has deletes nothing."""
    old, new = "example.com/old", "example.com/new"
    local = {"externalTrafficPolicy": "Local"}
    before = [_reachable(namespace, name, old, **local) for name in ("first", "second")]
    daemon = _start(new_daemon, before, namespace, recreate="immutable")
    uids = [_uid(live, each) for each in before]

    spec = live.get(before[0])["spec"]
    ports = {
        "ports": [{"port": 80, "nodePort": spec["ports"][0]["nodePort"]}],
        "healthCheckNodePort": spec["healthCheckNodePort"],
    }
    after = [_reachable(namespace, name, new, **local, **ports) for name in ("first", "second")]
    daemon.commit({"all.yaml": [namespace_of(namespace), *after]})
    daemon.wait_in_sync(after[0])
    daemon.wait(lambda: daemon.events("not applied", name="second", outcome="failed"), "the other's ports are taken")
    assert [line["name"] for line in daemon.events("deleted to be created anew")] == ["first"]
    assert _uid(live, after[0]) != uids[0]
    assert _uid(live, after[1]) == uids[1]


def test_e01_a_service_is_not_deleted_for_an_address_that_another_has(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """The API server's dry run lets an address pass that is taken: deleted for it, the Service would be gone."""
    service = _service(namespace)
    other = manifest("v1", "Service", "other", namespace, spec={"ports": [{"port": 80}]})
    daemon = _start(new_daemon, [service], namespace, recreate="immutable")
    daemon.declare(other, file="other.yaml")
    before, address = _uid(live, service), live.get(other)["spec"]["clusterIP"]

    wanted = _service(namespace, clusterIP=address)
    daemon.commit({"all.yaml": [namespace_of(namespace), wanted]})
    refused = daemon.wait(lambda: daemon.events("not applied", name="service", outcome="failed"), "it is refused")
    assert f"{address} is the address of Service {namespace}/other" in refused[0]["error"]
    assert _uid(live, service) == before
    assert not daemon.events("deleted to be created anew")

    daemon.declare({**other, "spec": {"type": "ExternalName", "externalName": "example.com"}}, file="other.yaml")
    wanted["metadata"]["labels"] = {"tier": "web"}
    daemon.declare(namespace_of(namespace), wanted, file="all.yaml")
    assert _uid(live, service) != before
