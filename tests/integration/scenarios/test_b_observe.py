"""Mode observe: everything is seen, nothing is written."""

from datetime import datetime

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, parsed
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, namespace_of
from tests.support.scene import NewDaemon, Scene


def _lasting_writes(audit: AuditTrail) -> list[str]:
    """Writes of the daemon that were no dry runs."""
    return [
        event["requestURI"]
        for event in audit.events(agent=AGENT)
        if event["verb"] in WRITES and "dryRun=All" not in event["requestURI"]
    ]


def _colour(live: Live, declared: Manifest, colour: str) -> None:
    live.patch(declared, {"data": {"colour": colour}}, manager="kubectl-edit")


def test_b06_observe_reports_drift_and_writes_nothing(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """Missing, deleted and edited objects are reported until somebody mends them; the audit log has no write."""
    web, settings, absent = deployment("web", namespace), config_map("settings", namespace), config_map("x", namespace)
    for one in (namespace_of(namespace), web, settings):
        kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", input=Scene.json(one))
    daemon = new_daemon(options={"mode": "observe"})
    daemon.commit({"all.yaml": [namespace_of(namespace), web, settings, absent]})
    daemon.start()

    def drifted(kind: str) -> float:
        return daemon.metric("driftwatch_drifted_objects", namespace=namespace, kind=kind)

    daemon.wait(lambda: drifted("ConfigMap") == 1, "the missing ConfigMap is drift")
    assert drifted("Deployment") == 0
    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    daemon.wait(lambda: drifted("Deployment") == 1, "the scaled Deployment is drift")
    [drift] = daemon.drifts(namespace=namespace, name="web")
    assert (drift["event"], drift["type"], drift["manager"]) == ("drift", "modified", "kubectl")
    assert "spec.replicas: 2 → 5" in drift["fields"]
    kubectl("delete", "configmap", "settings", "-n", namespace)
    daemon.wait(lambda: drifted("ConfigMap") == 2, "the deleted ConfigMap is drift")

    kubectl("scale", "deploy/web", "--replicas=2", "-n", namespace)
    daemon.wait(lambda: drifted("Deployment") == 0, "the Deployment is as Git declares it again")
    kubectl("create", "-f", "-", input=Scene.json(settings))
    daemon.wait(lambda: drifted("ConfigMap") == 1, "the ConfigMap is there again")

    assert _lasting_writes(audit) == []
    found = live.get(web)
    assert found is not None
    assert "labels" in found["metadata"]
    assert "driftwatch.io/source" not in found["metadata"]["labels"]
    assert daemon.metric("driftwatch_heals_total") == 0


def test_b06_observed_drift_is_reported_within_a_second(
    new_daemon: NewDaemon, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """From the API server's time of an edit to the log's time of the drift.

    The fastest of five counts: a busy machine delays one or another, a daemon that only looks now and then is late with
    each.
    """
    settings = [config_map(f"settings-{n}", namespace, colour="blue") for n in range(5)]
    for one in (namespace_of(namespace), *settings):
        kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", input=Scene.json(one))
    daemon = new_daemon(options={"mode": "observe"})
    daemon.commit({"all.yaml": [namespace_of(namespace), *settings]})
    daemon.start()
    audit.mark()

    seconds = []
    for one in settings:
        name = one["metadata"]["name"]
        kubectl("patch", "configmap", name, "--type=merge", '-p={"data":{"colour":"red"}}', "-n", namespace)
        [drift] = daemon.wait(
            lambda name=name: daemon.events("drift", namespace=namespace, name=name), "it is reported"
        )
        [edit] = audit.wait(verb="patch", resource="configmaps", agent="kubectl", namespace=namespace, name=name)
        edited, reported = map(datetime.fromisoformat, (edit["stageTimestamp"], drift["timestamp"]))
        seconds.append((reported - edited).total_seconds())

    assert min(seconds) < 1.0, seconds


def test_b06_observe_finds_no_drift_in_what_kubectl_created(
    new_daemon: NewDaemon, kubectl: Kubectl, namespace: str
) -> None:
    """An object that kubectl created from the very manifest that Git has is no drift."""
    web, settings = deployment("web", namespace), config_map("settings", namespace)
    for one in (namespace_of(namespace), web, settings):
        kubectl("create", "-f", "-", input=Scene.json(one))
    daemon = new_daemon(options={"mode": "observe"})
    daemon.commit({"all.yaml": [namespace_of(namespace), web, settings]})

    daemon.start()

    assert daemon.drifts() == []


def test_b06_an_option_that_git_gives_is_no_drift_of_what_kubectl_created(
    new_daemon: NewDaemon, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """What Git says of how an object is treated is for us: whoever created the object need not have written it down."""
    names = ("with", "without", "other", "bare")
    with_, without, other, bare = (config_map(name, namespace) for name in names)
    options = {"driftwatch.io/additions": "report", "driftwatch.io/recreate": "immutable"}
    for one in (with_, other):
        one["metadata"]["annotations"] = dict(options)
    for one in (namespace_of(namespace), with_, without, other, bare):
        kubectl("create", "-f", "-", input=Scene.json(one))
    without["metadata"]["annotations"] = dict(options)
    other["metadata"]["annotations"] = {"driftwatch.io/additions": "ignore"}
    bare["metadata"]["annotations"] = {"example.com/team": "shop"}
    daemon = new_daemon(options={"mode": "observe"})
    daemon.commit({"all.yaml": [namespace_of(namespace), with_, without, other, bare]})

    daemon.start()

    [drift] = daemon.drifts()
    assert drift["name"] == "bare"  # an annotation that is not about us counts
    assert _lasting_writes(audit) == []


def test_b06_an_object_that_git_begins_to_observe_is_no_drift_by_that(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """The commit that says so changes our own annotations only, which nobody applies any more; edits are reported."""
    watched, healed = config_map("watched", namespace), config_map("healed", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), watched, healed]})
    daemon.start()
    daemon.wait_in_sync(watched, healed)
    audit.mark()
    watched["metadata"]["annotations"] = {"driftwatch.io/mode": "observe", "driftwatch.io/additions": "report"}
    healed["data"] = {"colour": "red", "size": "1"}
    daemon.commit({"all.yaml": [namespace_of(namespace), watched, healed]})
    daemon.wait_in_sync(healed)

    def drifted() -> float:
        return daemon.metric("driftwatch_drifted_objects", namespace=namespace)

    _colour(live, watched, "blue")
    daemon.wait(lambda: drifted() == 1, "the edit is drift")
    _colour(live, watched, "red")
    daemon.wait(lambda: drifted() == 0, "it is as Git declares it again")
    daemon.stop()
    daemon.start()

    assert daemon.drifts(namespace=namespace) == []
    assert drifted() == 0
    said = [line for line in map(parsed, daemon.text().splitlines()) if line["event"] == "drift"]
    assert [(line["name"], line["type"], line["fields"]) for line in said] == [
        ("watched", "modified", 'data.colour: "red" → "blue"')
    ]
    assert [uri for uri in _lasting_writes(audit) if "/watched" in uri] == []


def test_b06_objects_that_a_rule_observes_are_reported_and_not_written(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """A rule's mode is that of the objects it selects alone; what Git says of one object is nearer than the rule."""
    watched, nearer, healed = (config_map(name, namespace) for name in ("watched-1", "watched-2", "healed"))
    nearer["metadata"]["annotations"] = {"driftwatch.io/mode": "heal"}
    for one in (namespace_of(namespace), watched):
        kubectl("create", "-f", "-", input=Scene.json(one))
    daemon = new_daemon()
    daemon.configuration["ignore"] = [
        {"rule": "watch", "namespace": namespace, "kind": "ConfigMap", "name": "watched-*", "mode": "observe"}
    ]
    daemon.commit({"all.yaml": [namespace_of(namespace), watched, nearer, healed]})
    daemon.start()
    daemon.wait_in_sync(nearer, healed)

    for one in (watched, nearer, healed):
        _colour(live, one, "blue")
    daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="watched-1"), "the drift is reported")
    daemon.wait_drift(namespace=namespace, name="watched-2")
    daemon.wait_drift(namespace=namespace, name="healed")
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1
    _colour(live, watched, "red")
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0, "nothing differs")
    kubectl("delete", "configmap", "watched-1", "-n", namespace)
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1, "it is missing")

    assert [uri for uri in _lasting_writes(audit) if "/watched-1" in uri] == []
    assert live.get(watched) is None


def test_b06_adoption_of_what_kubectl_created_is_no_drift(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """What the first sync changes of an object that somebody else made is no drift, and starts no rollout."""
    web = deployment("web", namespace)
    for one in (namespace_of(namespace), web):
        kubectl("create", "-f", "-", input=Scene.json(one))
    before = live.get(web)
    assert before is not None
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), web]})

    daemon.start()

    daemon.wait_in_sync(web)
    found = live.get(web)
    assert found is not None
    assert found["spec"] == before["spec"]
    assert found["metadata"]["uid"] == before["metadata"]["uid"]
    assert daemon.drifts() == []
    assert daemon.drift_total() == 0
