"""Every drift says who, how and when, field by field; and no value of a Secret is ever shown."""

import base64
import json
import re

from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
WORDS = ("sesame", "caraway", "1234567", "open-up")


def test_b05_each_field_has_its_own_author(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """Two people and a subresource behind one drift: each field names its own manager, operation and time."""
    web = deployment("web", scene.namespace)
    scene.declare(web)
    image = {"name": "app", "image": "registry.example.com/app:2.0"}
    applied = {
        **{field: web[field] for field in ("apiVersion", "kind")},
        "metadata": {"name": "web", "annotations": {"example.com/owner": "night"}},
    }

    with scene.daemon.suspended():
        live.patch(
            web,
            {"spec": {"template": {"spec": {"containers": [image]}}}},
            manager="k9s",
            kind="strategic-merge",
        )
        live.patch(web, applied, manager="some-controller", kind="apply")
        kubectl("scale", "deploy/web", "--replicas=7", "-n", scene.namespace)

    healed = scene.wait_drift("web", type="modified")
    changes = {one["path"]: one for one in healed["changes"]}
    assert {
        path: tuple(one[of] for of in ("manager", "operation", "subresource", "declared", "live"))
        for path, one in changes.items()
    } == {
        "spec.replicas": ("kubectl", "Update", "scale", "2", "7"),
        'spec.template.spec.containers[name="app"].image': (
            "k9s",
            "Update",
            "",
            '"registry.example.com/app:1.0"',
            '"registry.example.com/app:2.0"',
        ),
        'metadata.annotations["example.com/owner"]': ("some-controller", "Apply", "", '"shop"', '"night"'),
    }
    # The API server gives the entry of the subresource `scale` no time.
    del changes["spec.replicas"]
    assert [one["time"] for one in changes.values() if not RFC_3339.fullmatch(one["time"])] == []
    assert "spec.replicas: 2 → 7" in healed["fields"]


TUNED = {"annotations": {"example.com/tuned": "yes"}}  # what a controller adds is kept


def test_b05_removed_field_names_the_last_writer(scene: Scene, live: Live) -> None:
    """Nobody owns what is gone, so that the field has no author; the drift as a whole names who wrote last."""
    settings = config_map("settings", scene.namespace, colour="red", size="4")
    scene.declare(settings)

    live.patch(settings, {"metadata": TUNED, "data": {"size": None}}, manager="some-controller")

    healed = scene.wait_drift("settings")
    assert (healed["type"], healed["manager"]) == ("modified", "some-controller")
    [change] = healed["changes"]
    assert (change["path"], change["declared"], change["live"]) == ("data.size", '"4"', "<none>")
    assert (change["manager"], change["operation"], change["time"]) == ("", "", "")


def test_b05_removal_that_leaves_no_trace_is_blamed_on_nobody(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """Who only removes a field is in no `managedFields`; whoever wrote before that has not done it."""
    settings = config_map("settings", scene.namespace, colour="red", size="4")
    scene.declare(settings)
    live.patch(settings, {"metadata": TUNED}, manager="some-controller")
    scene.settle()

    kubectl("patch", "configmap", "settings", "--type=merge", '-p={"data":{"size":null}}', "-n", scene.namespace)

    healed = scene.wait_drift("settings")
    assert (healed["type"], healed["manager"]) == ("modified", "unknown")
    [change] = healed["changes"]
    assert (change["path"], change["live"], change["manager"]) == ("data.size", "<none>", "")


def test_b05_secret_shows_the_names_of_its_keys_only(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """Whatever happens to a Secret, in whatever mode, no log line and no metric has a value of it."""
    secret = manifest("v1", "Secret", "login", namespace, stringData={"word": "sesame", "user": "shop"})
    broken = manifest("v1", "Secret", "broken", namespace, data={"pin": 1234567})
    daemon = new_daemon(log_level="debug")
    daemon.commit({"all.yaml": [namespace_of(namespace), secret], "broken.yaml": broken})
    daemon.start()
    daemon.wait(lambda: live.get(secret), "the Secret is there")
    at = ("-n", namespace)

    live.patch(secret, {"data": {"word": base64.b64encode(b"caraway").decode()}}, manager="kubectl-edit")
    changed = daemon.wait_drift(namespace=namespace, name="login", type="modified")
    live.patch(secret, {"stringData": {"extra": "open-up"}}, manager="kubectl-edit")
    added = daemon.wait_drift(namespace=namespace, name="login", type="added")
    # What kubectl apply notes of it is a copy of all of it.
    other = {**secret, "stringData": {"word": "caraway", "user": "shop"}}
    kubectl("apply", "-f", "-", *at, input=json.dumps(other))
    count = len(daemon.drifts(name="login"))
    kubectl("patch", "secret/login", "--type=merge", '-p={"data":{"word":null}}', *at)
    daemon.wait(lambda: len(daemon.drifts(name="login")) > count, "the removal is healed")
    kubectl("delete", "secret", "login", *at)
    daemon.wait_drift(namespace=namespace, name="login", type="deleted")

    assert [(one["path"], one["declared"], one["live"]) for one in changed["changes"]] == [
        ("data.word", "<hidden>", "<hidden>")
    ]
    assert [one["path"] for one in added["changes"]] == ["data.extra"]
    said = daemon.text() + daemon.get("/metrics")[1]
    for word in WORDS:
        for form in (word, base64.b64encode(word.encode()).decode()):
            assert form not in said, f"{form} is shown"


def test_b05_observed_secret_shows_the_names_of_its_keys_only(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """To observe a Secret it has to be read and compared; its values stay inside all the same."""
    secret = manifest("v1", "Secret", "login", namespace, data={"word": base64.b64encode(b"sesame").decode()})
    beside = config_map("beside", namespace)
    for one in (namespace_of(namespace), secret, beside):
        kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", input=json.dumps(one))
    daemon = new_daemon(options={"mode": "observe"}, log_level="debug")
    daemon.commit({"all.yaml": [namespace_of(namespace), secret, beside]})
    daemon.start()

    live.patch(secret, {"data": {"word": base64.b64encode(b"caraway").decode()}}, manager="kubectl-edit")

    [drift] = daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="login"), "the drift is reported")
    [change] = drift["changes"]
    assert (change["path"], change["declared"], change["live"]) == ("data.word", "<hidden>", "<hidden>")
    assert (change["manager"], change["operation"]) == ("kubectl-edit", "Update")
    said = daemon.text() + daemon.get("/metrics")[1]
    for word in WORDS:
        for form in (word, base64.b64encode(word.encode()).decode()):
            assert form not in said, f"{form} is shown"
