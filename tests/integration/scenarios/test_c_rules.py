"""Fields under an ignore rule keep what the cluster has, and everything beside them is healed."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, Scene, daemons

CONTAINERS = "$.spec.template.spec.containers"
RULES: list[dict[str, Any]] = [
    {"kind": "Deployment", "name": "tuned*", "paths": [f'{CONTAINERS}[?name=="app"].env[?name=="LEVEL"]']},
    {"kind": "Deployment", "name": "tuned*", "pointers": ["/spec/template/spec/containers/1/image"]},
    {"kind": "Deployment", "name": "tuned*", "managers": ["image-updater*"]},
    {"kind": "Deployment", "name": "tuned*", "pointers": ["/spec/paused", "/metadata/annotations/example.com~1none"]},
    {"pointers": ["/data/first"]},
    {"pointers": ["/data/second"]},
    {
        "group": "",
        "kind": "ConfigMap",
        "namespace": "test-c01-*",
        "name": "picked-*",
        "labels": {"tier": "c*"},
        "pointers": ["/data/picked"],
    },
    {"kind": "Secret", "pointers": ["/data/token"]},
    {"name": "phoenix", "mode": "ignore", "recreate": True},
]


@pytest.fixture(scope="module")
def shared_daemon(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with these rules."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new()
        daemon.configuration["ignore"] = RULES
        daemon.commit({"README.md": "Nothing is declared yet."})
        yield daemon.start()


def _containers(live: Live, declared: Manifest) -> dict[str, dict[str, Any]]:
    found = live.get(declared)
    assert found is not None
    return {one["name"]: one for one in found["spec"]["template"]["spec"]["containers"]}


def _variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def _patch_containers(live: Live, declared: Manifest, manager: str, *containers: dict[str, Any]) -> None:
    patch = {"spec": {"template": {"spec": {"containers": list(containers)}}}}
    live.patch(declared, patch, manager=manager, kind="strategic-merge")


def test_c01_fields_are_ignored_by_path_pointer_and_manager(scene: Scene, live: Live) -> None:
    """What a JSONPath with filters, a JSON pointer or a field manager names keeps its live value, all else does not."""
    web = deployment("tuned", scene.namespace)
    scene.declare(web)

    _patch_containers(live, web, "kubectl-edit", {"name": "app", "env": [{"name": "LEVEL", "value": "debug"}]})
    _patch_containers(live, web, "kubectl-edit", {"name": "sidecar", "image": "registry.example.com/sidecar:9"})
    _patch_containers(live, web, "image-updater-1", {"name": "app", "image": "registry.example.com/app:9"})
    scene.settle()
    assert [line["fields"] for line in scene.drifts()] == [], (scene.requests(), scene.drifts())

    _patch_containers(live, web, "kubectl-edit", {"name": "app", "env": [{"name": "REGION", "value": "us"}]})
    healed = scene.wait_drift("tuned", manager="kubectl-edit")
    scene.settle()

    containers = _containers(live, web)
    assert _variables(containers["app"]) == {"LEVEL": "debug", "REGION": "eu"}
    assert containers["sidecar"]["image"] == "registry.example.com/sidecar:9"
    assert containers["app"]["image"] == "registry.example.com/app:9"
    assert [one["path"] for one in healed["changes"]] == [
        'spec.template.spec.containers[name="app"].env[name="REGION"].value'
    ]
    assert len(scene.drifts()) == 1, scene.drifts()


def test_c01_field_of_a_manager_is_healed_from_others(scene: Scene, live: Live) -> None:
    """What one manager may change is drift when somebody else changes it."""
    web = deployment("tuned", scene.namespace)
    scene.declare(web)
    _patch_containers(live, web, "image-updater-1", {"name": "app", "image": "registry.example.com/app:9"})
    scene.settle()

    _patch_containers(live, web, "kubectl-edit", {"name": "app", "image": "registry.example.com/app:evil"})

    scene.wait_drift("tuned", manager="kubectl-edit")
    scene.daemon.wait_in_sync(web)
    assert _containers(live, web)["app"]["image"] == "registry.example.com/app:1.0"


def test_c01_manager_that_applies_a_part_owns_no_more_than_that(scene: Scene, live: Live) -> None:
    """A controller that applies the image of a container owns the image, not all that Git declares of the container."""
    web = deployment("tuned", scene.namespace)
    scene.declare(web)
    image = {"name": "app", "image": "registry.example.com/app:9"}
    part = {
        **{field: web[field] for field in ("apiVersion", "kind")},
        "metadata": {"name": "tuned"},
        "spec": {"template": {"spec": {"containers": [image]}}},
    }
    live.patch(web, part, manager="image-updater-1", kind="apply")
    scene.settle()

    _patch_containers(live, web, "kubectl-edit", {"name": "app", "env": [{"name": "REGION", "value": "us"}]})
    scene.wait_drift("tuned", manager="kubectl-edit")
    scene.settle()

    container = _containers(live, web)["app"]
    assert _variables(container) == {"LEVEL": "info", "REGION": "eu"}
    assert container["image"] == "registry.example.com/app:9"


def test_c01_rules_select_by_group_kind_namespace_name_and_labels(scene: Scene, live: Live) -> None:
    """Only what fits in every respect is under the rule."""

    def made(name: str, kind: str = "ConfigMap", **labels: str) -> Manifest:
        one = config_map(name, scene.namespace, picked="red")
        return {**one, "kind": kind, "metadata": {**one["metadata"], "labels": labels}}

    picked = made("picked-one", tier="cache")
    others = [made("other", tier="cache"), made("picked-two", tier="web"), made("picked-three")]
    scene.declare(picked, *others)

    for one in (picked, *others):
        live.patch(one, {"data": {"picked": "blue"}}, manager="kubectl-edit")

    for one in others:
        scene.wait_drift(one["metadata"]["name"])
    scene.settle()
    assert {line["name"] for line in scene.drifts()} == {one["metadata"]["name"] for one in others}
    assert (live.get(picked) or {})["data"] == {"picked": "blue"}


def test_c01_two_rules_without_a_target_both_apply(scene: Scene, live: Live) -> None:
    """Rules that select nothing are for every object, however many there are."""
    settings = config_map("settings", scene.namespace, first="1", second="2", third="3")
    scene.declare(settings)

    live.patch(settings, {"data": {"first": "x", "second": "y", "third": "z"}}, manager="kubectl-edit")

    scene.wait_drift("settings")
    scene.settle()
    assert (live.get(settings) or {})["data"] == {"first": "x", "second": "y", "third": "3"}
    [line] = scene.drifts()
    assert [one["path"] for one in line["changes"]] == ["data.third"]


@pytest.mark.parametrize("operation", ["Update", "Apply"])
def test_c03_live_value_survives_heals_and_commits(scene: Scene, live: Live, kubectl: Kubectl, operation: str) -> None:
    """Through a heal, a reverted addition, a lost label and a commit that changes it in Git, the live value stays."""
    settings = config_map("settings", scene.namespace, first="git", second="git", colour="red")
    scene.declare(settings)
    assert (live.get(settings) or {})["data"]["first"] == "git"
    if operation == "Update":
        live.patch(settings, {"data": {"first": "live"}}, manager="kubectl-edit")
    else:
        body = {**config_map("settings", scene.namespace, first="live")}
        live.patch(settings, body, manager="some-controller", kind="apply")
    scene.settle()

    def data() -> dict[str, str]:
        return (live.get(settings) or {"data": {}})["data"]

    at = ("-n", scene.namespace)
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    scene.wait_drift("settings", type="modified", manager="kubectl-edit")
    assert data() == {"first": "live", "second": "git", "colour": "red"}
    live.patch(settings, {"data": {"extra": "1"}}, manager="kubectl-patch")
    scene.wait_drift("settings", type="added")
    assert data() == {"first": "live", "second": "git", "colour": "red"}
    kubectl("label", "configmap/settings", "driftwatch.io/source-", *at)
    scene.daemon.wait(
        lambda: "driftwatch.io/source" in (live.get(settings) or {})["metadata"].get("labels", {}), "it is ours again"
    )
    assert data() == {"first": "live", "second": "git", "colour": "red"}

    changed = config_map("settings", scene.namespace, first="newer", second="newer", colour="green")
    scene.daemon.commit({f"{scene.namespace}.yaml": [namespace_of(scene.namespace), changed]})
    scene.daemon.wait(lambda: data()["colour"] == "green", "the commit is applied")
    assert data() == {"first": "live", "second": "git", "colour": "green"}
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    scene.daemon.wait(lambda: data()["colour"] == "green", "the commit is kept")
    assert data() == {"first": "live", "second": "git", "colour": "green"}

    uid = live.uid(settings)
    kubectl("delete", "configmap", "settings", *at)
    scene.daemon.wait(lambda: live.uid(settings) not in ("", uid), "it is created anew")
    assert data() == {"first": "newer", "second": "newer", "colour": "green"}


def test_c03_live_value_of_a_secret_survives(scene: Scene, live: Live) -> None:
    """A key of a Secret under a rule stays through a heal, a reverted addition and a commit, whoever owns it."""
    secret = manifest("v1", "Secret", "login", scene.namespace, data={"token": "Z2l0", "user": "c2hvcA=="})
    ours = copy.deepcopy(secret)
    ours["metadata"]["name"] = "ours"
    scene.declare(secret, ours)
    live.patch(secret, {"data": {"token": "bGl2ZQ=="}}, manager="token-controller")

    for one, token in ((secret, "bGl2ZQ=="), (ours, "Z2l0")):
        name = one["metadata"]["name"]
        live.patch(one, {"data": {"extra": "eA=="}}, manager="kubectl-edit")
        scene.wait_drift(name, type="added")
        assert (live.get(one) or {})["data"] == {"token": token, "user": "c2hvcA=="}
        live.patch(one, {"data": {"user": "eA=="}}, manager="kubectl-edit")
        scene.wait_drift(name, type="modified")
        assert (live.get(one) or {})["data"] == {"token": token, "user": "c2hvcA=="}

    changed = copy.deepcopy(ours)
    changed["data"] = {"token": "bmV3ZXI=", "user": "bmV3"}
    scene.daemon.commit({f"{scene.namespace}.yaml": [namespace_of(scene.namespace), secret, changed]})
    scene.daemon.wait(lambda: (live.get(ours) or {})["data"]["user"] == "bmV3", "the commit is applied")
    assert (live.get(ours) or {})["data"]["token"] == "Z2l0"
    assert "bGl2ZQ" not in scene.daemon.text()


def test_c03_live_value_survives_a_restart(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """What a rule leaves to others is in sync for a daemon that has just started, and is no drift."""
    settings = config_map("settings", namespace, first="git", colour="red")
    daemon = new_daemon()
    daemon.configuration["ignore"] = RULES
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    live.patch(settings, {"data": {"first": "live"}}, manager="kubectl-edit")
    daemon.wait(lambda: (live.get(settings) or {})["data"]["first"] == "live", "it is changed")
    daemon.stop()
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")

    daemon.start()

    daemon.wait(lambda: (live.get(settings) or {})["data"]["colour"] == "red", "the other field is healed")
    daemon.stop()
    version = (live.get(settings) or {})["metadata"]["resourceVersion"]
    daemon.start()
    found = live.get(settings)
    assert found is not None
    assert found["data"] == {"first": "live", "colour": "red"}
    assert found["metadata"]["resourceVersion"] == version
    assert daemon.drifts() == []


def test_c04_siblings_are_healed_and_a_pointer_to_nothing_is_no_error(scene: Scene, live: Live) -> None:
    """A rule on one variable spares the variable beside it, and one on fields that are not there harms nothing."""
    web = deployment("tuned", scene.namespace)
    scene.declare(web)
    variables = [{"name": "LEVEL", "value": "debug"}, {"name": "REGION", "value": "us"}]

    _patch_containers(live, web, "kubectl-edit", {"name": "app", "env": variables})

    scene.wait_drift("tuned")
    scene.settle()
    assert _variables(_containers(live, web)["app"]) == {"LEVEL": "debug", "REGION": "eu"}
    assert not [line for line in scene.daemon.log() if line.get("level") == "error"]


OWN_RULES: list[dict[str, Any]] = [
    {"name": "by-labels", "pointers": ["/metadata/labels"]},
    {"name": "by-metadata", "pointers": ["/metadata"]},
    {"name": "by-path", "paths": ["$.metadata.labels.*"]},
    {"name": "by-wildcard", "paths": ["$.*"]},
    {"name": "by-manager", "managers": ["kubectl-label"]},
]


def test_a06_no_rule_takes_the_tracking_label(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """Removed or forged under a rule that covers it, after a restart: the label is put back, a deletion is healed."""
    declared = [config_map(rule["name"], namespace) for rule in OWN_RULES]
    for one in declared:
        one["metadata"] |= {"labels": {"tier": "web"}, "annotations": {"example.com/owner": "shop"}}
    daemon = new_daemon()
    daemon.configuration["ignore"] = OWN_RULES
    daemon.commit({"all.yaml": [namespace_of(namespace), *declared]})
    daemon.start()
    daemon.wait_in_sync(*declared)
    names, at = [one["metadata"]["name"] for one in declared], ("-n", namespace)
    kubectl("label", "cm", *names, "--overwrite", "tier=live", *at)
    daemon.stop()
    daemon.start()

    def labels(one: Manifest) -> dict[str, str]:
        return (live.get(one) or {"metadata": {}})["metadata"].get("labels", {})

    for change in ("driftwatch.io/source-", "driftwatch.io/source=other"):
        kubectl("label", "cm", *names, "--overwrite", change, *at)
        for one in declared:
            daemon.wait(
                lambda one=one: labels(one) == {"tier": "live", "driftwatch.io/source": daemon.source},
                f"{one['metadata']['name']} is ours again, and its other label as it was",
            )
    uids = [live.uid(one) for one in declared]
    kubectl("delete", "cm", *names, *at)
    for one, uid in zip(declared, uids, strict=True):
        daemon.wait(lambda one=one, uid=uid: live.uid(one) not in ("", uid), f"{one['metadata']['name']} is back")
    daemon.wait_in_sync(*declared)


def test_c04_rule_on_all_annotations_spares_our_own(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """The hash is that of the last commit, so that a restart writes nothing; what the rule is about stays as it is."""
    rules = {"by-annotations": "/metadata/annotations", "by-metadata": "/metadata"}
    declared = [
        manifest("v1", "ConfigMap", name, namespace, data={"colour": "red"}, metadata={"annotations": {"note": "git"}})
        for name in rules
    ]
    daemon = new_daemon()
    daemon.configuration["ignore"] = [{"name": name, "pointers": [pointer]} for name, pointer in rules.items()]
    daemon.commit({"all.yaml": [namespace_of(namespace), *declared]})
    daemon.start()
    daemon.wait_in_sync(*declared)
    for one in declared:
        live.patch(one, {"metadata": {"annotations": {"note": "live"}}}, manager="kubectl-edit")
    kubectl("annotate", "cm", *rules, "driftwatch.io/id-", "-n", namespace)
    for one in declared:
        one["data"] = {"colour": "green"}
    daemon.commit({"all.yaml": [namespace_of(namespace), *declared]})

    def found(one: Manifest) -> dict[str, Any]:
        return live.get(one) or {"data": {}}

    for one in declared:
        daemon.wait(lambda one=one: found(one)["data"] == {"colour": "green"}, "the commit is applied")
    daemon.stop()
    audit.mark()
    daemon.start()

    requests = audit.events(agent=AGENT, namespace=namespace, resource="configmaps")
    assert [event["objectRef"]["name"] for event in requests if event["verb"] not in ("list", "watch")] == []
    for one in declared:
        annotations = found(one)["metadata"]["annotations"]
        assert annotations["note"] == "live"
        assert annotations["driftwatch.io/id"] == f"/ConfigMap/{namespace}/{one['metadata']['name']}"
    assert daemon.drifts() == []


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"pointers": ["spec/replicas"]}, "no JSON pointer"),
        ({"pointers": ["/spec/a~b"]}, "no JSON pointer"),
        ({"paths": ["$.spec[?"]}, "no JSONPath"),
        ({"paths": ["$"]}, "is the whole object"),
        ({"pointers": ["/metadata/name"]}, "is left to nobody"),
        ({"kind": "Deployment"}, "says nothing"),
    ],
)
def test_c04_malformed_rule_is_refused_at_start(new_daemon: NewDaemon, rule: dict[str, Any], words: str) -> None:
    """The file, the line and the mistake are named, and the exit status is 2."""
    daemon = new_daemon()
    daemon.configuration["ignore"] = [{"pointers": ["/spec/replicas"]}, rule]
    daemon.start(ready=False)

    assert daemon.wait_exit() == 2
    file = daemon.folder / "driftwatch.yaml"
    lines = file.read_text().splitlines()
    [told] = daemon.events("configuration cannot be used")
    [said] = [line for line in told["error"].splitlines() if words in line]
    number = int(said.removeprefix(f"{file}:").partition(":")[0])
    assert next(iter(rule)) in "\n".join(lines[number - 2 : number]), said


def test_c06_ignored_object_is_created_anew_where_a_rule_says_so(scene: Scene, live: Live, kubectl: Kubectl) -> None:
    """An ignored object may be edited; deleted, it comes back if the rule says so, and stays away if none does."""
    phoenix, mortal = config_map("phoenix", scene.namespace), config_map("mortal", scene.namespace)
    scene.declare(phoenix, mortal, config_map("guard", scene.namespace))
    for one in (phoenix, mortal):
        one["metadata"]["annotations"] = {"driftwatch.io/mode": "ignore"}
    guard = config_map("guard", scene.namespace, colour="green")
    everything = [namespace_of(scene.namespace), scene._witness, phoenix, mortal, guard]
    scene.daemon.commit({f"{scene.namespace}.yaml": everything})
    scene.daemon.wait_in_sync(guard)

    for one in (phoenix, mortal):
        live.patch(one, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    scene.settle()
    assert scene.drifts() == []
    assert [(live.get(one) or {})["data"] for one in (phoenix, mortal)] == [{"colour": "blue"}] * 2

    uid = live.uid(phoenix)
    kubectl("delete", "configmap", "phoenix", "mortal", "-n", scene.namespace)
    scene.daemon.wait(lambda: live.uid(phoenix) not in ("", uid), "it rises from the ashes")
    scene.settle()
    assert (live.get(phoenix) or {})["data"] == {"colour": "red"}
    assert live.get(mortal) is None
    assert scene.drift_total(type="modified") == 0
