"""`driftwatch diff`: how the cluster differs from Git, without a daemon and without a write."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT
from tests.support.fork_server import run
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import anything, config_map, crd, deep, deployment, manifest, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon

IN_SYNC, DIFFERS, ERROR = 0, 1, 2
PASSWORD = "correct-horse-battery"
SIDECAR_ENV = 'spec.template.spec.containers[name="sidecar"].env'
OTHER_PASSWORD = "hunter2-hunter2"


class Shop:
    """A source with a namespace of its own, and `driftwatch diff` of it."""

    def __init__(self, folder: Path, live: Live, kubeconfig: Path, namespace: str) -> None:
        self.live = live
        self.namespace = namespace
        self.repository = Repository(folder / "git")
        self.file = folder / "driftwatch.yaml"
        self.settings: dict[str, Any] = {
            "cluster": {"kubeconfig": str(kubeconfig)},
            "sources": [{"name": "shop", "repository": "git"}],
        }

    def declare(self, *manifests: Manifest) -> None:
        """Commit them, and nothing else, with the namespace before them."""
        self.repository.commit({"shop.yaml": [namespace_of(self.namespace), *manifests]})

    def create(self, *manifests: Manifest) -> None:
        """Create them as Git would have them, without our tracking."""
        for each in (namespace_of(self.namespace), *manifests):
            self.live.patch(each, each, manager="installer", kind="apply")

    def diff(self, *arguments: str, status: int) -> subprocess.CompletedProcess[str]:
        """Run `driftwatch diff`, which ends with this status."""
        self.file.write_text(yaml.safe_dump(self.settings))
        done = run("diff", f"--config={self.file}", *arguments, warnings_are="error", timeout=60)
        assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def found(self, *arguments: str, status: int) -> dict[str, Any]:
        """What it finds, as JSON."""
        return json.loads(self.diff("--output=json", *arguments, status=status).stdout)

    def objects(self, *arguments: str, status: int = DIFFERS) -> dict[str, dict[str, Any]]:
        """The objects that differ, by name."""
        return {each["name"]: each for each in self.found(*arguments, status=status)["objects"]}


@pytest.fixture
def shop(tmp_path: Path, cluster: LocalCluster, live: Live, namespace: str) -> Shop:
    """A source without a daemon."""
    return Shop(tmp_path, live, cluster.kubeconfig, namespace)


def config(shop: Shop, name: str = "settings", **data: str) -> Manifest:
    return config_map(name, shop.namespace, **data)


def test_b09_what_lacks_only_our_tracking_is_in_sync(shop: Shop) -> None:
    declared = [config(shop), deployment("web", shop.namespace), manifest("v1", "ServiceAccount", "me", shop.namespace)]
    shop.declare(*declared)
    shop.create(*declared)
    done = shop.diff(status=IN_SYNC)
    assert done.stdout == ""
    assert "0 differ, 4 in sync" in done.stderr
    assert shop.found(status=IN_SYNC) == {"objects": [], "errors": [], "inSync": 4, "leftOut": 0}


def test_b09_every_difference_names_field_values_and_author(shop: Shop, kubectl: Kubectl) -> None:
    web = deployment("web", shop.namespace)
    shop.declare(web, config(shop, "gone"))
    shop.create(web)
    at = ("deploy/web", "-n", shop.namespace)
    kubectl("set", "image", *at, "app=registry.example.com/app:9")
    kubectl("set", "env", *at, "-c", "sidecar", "DEBUG=1")
    kubectl("label", *at, "tier-")
    objects = shop.objects()
    assert {name: found["type"] for name, found in objects.items()} == {"gone": "deleted", "web": "modified"}
    found = objects["web"]
    assert (found["source"], found["file"], found["group"], found["kind"]) == (
        "shop",
        "shop.yaml",
        "apps",
        "Deployment",
    )
    assert Path(shop.repository.folder, "shop.yaml").read_text().splitlines()[found["line"]].startswith("kind: Depl")
    fields = {field["path"]: field for field in found["fields"]}
    image = fields['spec.template.spec.containers[name="app"].image']
    assert (image["declared"], image["live"]) == ("registry.example.com/app:1.0", "registry.example.com/app:9")
    assert (image["manager"], image["operation"], image["subresource"]) == ("kubectl-set", "Update", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image["time"])
    added = fields[SIDECAR_ENV]
    assert (added["declared"], added["live"]) == (None, [{"name": "DEBUG", "value": "1"}])
    removed = fields["metadata.labels.tier"]
    assert (removed["declared"], removed["live"], removed["manager"]) == ("web", None, None)
    assert found["lastWriter"]["manager"] == "kubectl-set"


def test_b09_the_text_is_a_unified_diff_from_live_to_what_healing_would_make_of_it(
    shop: Shop, kubectl: Kubectl
) -> None:
    settings = config(shop, colour="red", page="one\ntwo\nthree\n")
    shop.declare(settings)
    shop.create(settings)
    patch = json.dumps({"data": {"colour": "green", "extra": "mine", "page": "one\n2\nthree\n"}})
    kubectl("patch", "cm/settings", "-n", shop.namespace, f"-p={patch}")
    text = shop.diff("--color=never", status=DIFFERS).stdout
    assert text.splitlines()[:2] == [
        f"ConfigMap {shop.namespace}/settings: modified",
        "  source shop, shop.yaml:6",
    ]
    assert '  data.colour: declared "red", live "green", by kubectl-patch (Update) at 20' in text
    assert '  data.extra: declared <none>, live "mine", by kubectl-patch (Update) at 20' in text
    body = text[text.index("--- ") :].splitlines()
    assert body[:2] == [f"--- live/ConfigMap/{shop.namespace}/settings", "+++ git/shop.yaml"]
    changed = [line for line in body[2:] if line[0] in "+-"]
    assert changed == ["-  colour: green", "-  extra: mine", "+  colour: red", "-    2", "+    two"]
    coloured = shop.diff("--color=always", status=DIFFERS).stdout
    assert "\x1b[31m-  colour: green\x1b[0m" in coloured
    assert "\x1b[32m+  colour: red\x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == text


def _written(found: Manifest | None) -> object:
    """What every write but that of a status changes."""
    assert found is not None
    metadata = found["metadata"]
    return metadata.get("labels"), metadata.get("annotations"), metadata.get("generation"), found.get("data")


def test_b09_nothing_is_written(shop: Shop, kubectl: Kubectl, audit: AuditTrail) -> None:
    declared = [config(shop), deployment("web", shop.namespace), config(shop, "gone")]
    shop.declare(*declared)
    shop.create(*declared[:2])
    kubectl("scale", "deploy/web", "--replicas=5", "-n", shop.namespace)
    before = [_written(shop.live.get(each)) for each in declared[:2]]
    audit.mark()
    shop.diff(status=DIFFERS)
    audit.wait(4, agent=AGENT, verb="patch")
    events = audit.events(agent=AGENT)
    assert {event["verb"] for event in events} == {"get", "list", "patch"}
    patches = [event["requestURI"] for event in events if event["verb"] == "patch"]
    assert len(patches) == 4
    assert all("dryRun=All" in uri for uri in patches)
    assert [_written(shop.live.get(each)) for each in declared[:2]] == before
    assert shop.live.get(declared[2]) is None


def test_b05_no_value_of_a_secret_is_shown(shop: Shop, kubectl: Kubectl) -> None:
    secret = manifest("v1", "Secret", "login", shop.namespace, stringData={"password": PASSWORD, "user": "shop-user"})
    gone = manifest("v1", "Secret", "gone", shop.namespace, stringData={"password": PASSWORD})
    refused = manifest(
        "v1", "Secret", "bad", shop.namespace, type="kubernetes.io/tls", stringData={"tls.crt": PASSWORD}
    )
    shop.declare(secret, gone)
    shop.create(secret)
    kubectl("apply", "-f", "-", input=json.dumps({**secret, "stringData": {"password": OTHER_PASSWORD}}))
    text = shop.diff(status=DIFFERS).stdout
    # Of our own annotations the digest is as good as a short password; the others say nothing of it.
    assert f"+    driftwatch.io/desired-hash: <hidden>\n+    driftwatch.io/id: /Secret/{shop.namespace}/gone\n" in text
    assert "-  password: '<hidden: live>'\n+  password: '<hidden: declared>'\n   user: <hidden>\n" in text
    assert "data.password: declared <hidden: declared>, live <hidden: live>, by kubectl-client-side-apply" in text
    shop.declare(secret, gone, refused)
    outputs = [text]
    for arguments in ((), ("--output=json",)):
        done = shop.diff(*arguments, status=ERROR)
        outputs += [done.stdout, done.stderr]
    encoded = [json.loads(kubectl("create", "secret", "generic", "x", f"--from-literal=v={value}", "--dry-run=client",
                                  "-o=json").stdout)["data"]["v"] for value in (PASSWORD, OTHER_PASSWORD)]  # fmt: skip
    for value in (PASSWORD, OTHER_PASSWORD, "shop-user", *encoded):
        assert not any(value in output for output in outputs), value


def test_b05_values_of_sensitive_fields_are_not_shown(shop: Shop) -> None:
    web = deployment("web", shop.namespace)
    shop.settings["ignore"] = [{"paths": ['$..env[?name=="LEVEL"].value', "$.data.token"], "sensitive": True}]
    settings = config(shop, token="declared-token", colour="red")
    shop.declare(web, settings)
    shop.create(web, settings)
    shop.live.patch(settings, {"data": {"token": "live-token", "colour": "green"}}, manager="somebody")
    env = [{"name": "LEVEL", "value": "live-level"}, {"name": "REGION", "value": "us"}]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}}
    shop.live.patch(web, patch, manager="somebody", kind="strategic-merge")
    done = shop.diff(status=DIFFERS)
    assert 'data.colour: declared "red", live "green"' in done.stdout
    assert 'env[name="REGION"].value: declared "eu", live "us"' in done.stdout
    assert done.stdout.count("declared <hidden: declared>, live <hidden: live>") == 2
    assert "-        - name: LEVEL\n" not in done.stdout
    for value in ("declared-token", "live-token", "live-level", "value: info"):
        assert value not in done.stdout + shop.diff("--output=json", status=DIFFERS).stdout


def test_b09_filters_choose_by_source_kind_namespace_and_name(shop: Shop, new_namespace: Callable[[], str]) -> None:
    other = new_namespace()
    shop.declare(config(shop, "one"), config(shop, "two"), deployment("web", shop.namespace), namespace_of(other))
    shop.create()
    assert set(shop.objects("--kind=deploy*")) == {"web"}
    assert set(shop.objects("--kind=ConfigMap", "--name=t*")) == {"two"}
    assert set(shop.objects("--name=one", "--name=web", "-n", shop.namespace)) == {"one", "web"}
    assert set(shop.objects("--kind=namespace", "--source=s?op")) == {other}
    nothing = shop.diff("--name=one", "--kind=Deployment", status=ERROR)
    assert "nothing that Git declares matches the filters" in nothing.stderr


def test_b09_filter_that_matches_nothing_is_an_error_also_beside_one_that_does(shop: Shop) -> None:
    """A typing mistake would look as if all were in sync; what there is, is named."""
    settings = config(shop)
    shop.declare(settings)
    shop.create(settings)
    for arguments in (("--source=nope",), ("--source=shop", "--source=nope"), ("--source=nope", "--output=json")):
        refused = shop.diff(*arguments, status=ERROR)
        assert refused.stderr == "driftwatch: --source nope: the configuration has no such source; it has shop\n"
        assert refused.stdout == ""
    mistaken = ("--kind=ConfigMap", "--kind=ConfigMaps", "-n*", "-nshpo", "--name=*", "--name=setings")
    found = shop.found(*mistaken, status=ERROR)
    assert [each["message"] for each in found["errors"]] == [
        "--kind ConfigMaps: Git declares nothing of that kind; it declares ConfigMap, Namespace",
        "--name setings: Git declares nothing of that name",
        f"--namespace shpo: Git declares nothing there; it declares objects in {shop.namespace}",
    ]
    assert found["inSync"] == 1
    shop.diff("--kind=ConfigMap", "--kind=namespace", "--name=settings", "--name=*", status=IN_SYNC)


def test_b09_what_cannot_be_compared_is_an_error(shop: Shop) -> None:
    elsewhere = config_map("lost", f"{shop.namespace}-elsewhere")
    bad = manifest("v1", "Service", "bad", shop.namespace, spec={"ports": [{"port": 99999}]})
    unserved = manifest("b09.example.com/v1", "Gadget", "gadget", shop.namespace)
    shop.declare(config(shop), elsewhere, bad, unserved)
    shop.repository.commit({"broken.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n"})
    shop.create(config(shop))
    found = shop.found(status=ERROR)
    errors = {each["name"]: each for each in found["errors"]}
    assert set(errors) == {None, "lost", "bad", "gadget"}
    assert "invalid manifest: " in errors[None]["message"]
    assert (errors[None]["file"], errors[None]["line"]) == ("broken.yaml", 1)
    assert "not found" in errors["lost"]["message"]
    assert "99999" in errors["bad"]["message"]
    assert "does not serve Gadget at b09.example.com/v1" in errors["gadget"]["message"]
    assert all(each["source"] == "shop" for each in errors.values())
    text = shop.diff(status=ERROR).stderr
    assert re.search(rf"^error: Service {shop.namespace}/bad \(shop, shop.yaml:\d+\): ", text, re.MULTILINE)


def test_b09_a_mistake_of_our_own_is_an_error_of_its_object(shop: Shop) -> None:
    """One line with the object and its place in Git, no traceback, exit status 2; all other objects are compared."""
    definition = anything(crd("wells", "b09.example.net", "Well"))
    well = manifest("b09.example.net/v1", "Well", "deep", shop.namespace, spec=deep(120))
    shop.create(definition, config(shop))
    shop.create(well)
    shop.declare(definition, well, config(shop, colour="blue"))
    shop.settings["ignore"] = [{"kind": "Well", "paths": ["$..level"]}]
    found = shop.found("-n", shop.namespace, status=ERROR)
    [error] = found["errors"]
    assert (error["kind"], error["name"], error["file"]) == ("Well", "deep", "shop.yaml")
    assert error["message"].startswith("unexpected JSONPathRecursionError at ")
    assert [each["name"] for each in found["objects"]] == ["settings"]
    said = shop.diff("-n", shop.namespace, status=ERROR).stderr
    [line] = [line for line in said.splitlines() if "unexpected" in line]
    assert re.match(rf"error: Well\S* {shop.namespace}/deep \(shop, shop.yaml:\d+\): ", line)
    assert "Traceback" not in said


def test_b09_git_or_a_cluster_that_cannot_be_reached_are_errors(shop: Shop) -> None:
    shop.settings["sources"].append({"name": "none", "repository": "nowhere"})
    shop.declare(config(shop))
    found = shop.found(status=ERROR)
    assert [each["source"] for each in found["errors"]] == ["none"]
    assert {each["name"] for each in found["objects"]} == {shop.namespace, "settings"}
    assert not shop.found("--source=shop", status=DIFFERS)["errors"]
    shop.settings["cluster"] = {"kubeconfig": "none.yaml"}
    assert "the cluster cannot be used: no kubeconfig at" in shop.diff(status=ERROR).stderr
    shop.settings["sources"][0]["mode"] = "heel"
    assert f"{shop.file}:" in shop.diff(status=ERROR).stderr


def test_b09_ignored_fields_modes_and_additions_are_as_the_configuration_says(shop: Shop, kubectl: Kubectl) -> None:
    annotated = {"driftwatch.io/mode": "paused"}
    web, resting = deployment("web", shop.namespace), config(shop, "resting")
    resting["metadata"]["annotations"] = annotated
    shop.declare(web, resting)
    shop.create(web)
    kubectl("scale", "deploy/web", "--replicas=7", "-n", shop.namespace)
    kubectl("set", "env", "deploy/web", "-c", "sidecar", "DEBUG=1", "-n", shop.namespace)
    assert [field["path"] for field in shop.objects()["web"]["fields"]] == ["spec.replicas", SIDECAR_ENV]
    shop.settings["ignore"] = [{"kind": "Deployment", "pointers": ["/spec/replicas"]}]
    found = shop.found(status=DIFFERS)
    assert found["leftOut"] == 1
    [one] = found["objects"]
    assert (one["name"], one["type"]) == ("web", "added")
    assert [field["path"] for field in one["fields"]] == [SIDECAR_ENV]
    shop.settings["drift"] = {"additions": "ignore"}
    shop.diff(status=IN_SYNC)
    everything = shop.objects("--all")
    assert {name: each["mode"] for name, each in everything.items()} == {"resting": "paused"}


def test_b09_beside_a_daemon_what_it_healed_is_in_sync_and_a_lost_label_is_not(
    new_daemon: NewDaemon, shop: Shop, kubectl: Kubectl
) -> None:
    daemon = new_daemon().start(ready=False)
    settings, web = config(shop), deployment("web", shop.namespace)
    daemon.declare(namespace_of(shop.namespace), settings, web, file="shop.yaml")
    shop.settings["sources"][0] |= {"name": daemon.source, "repository": str(daemon.repository.folder)}
    shop.diff(status=IN_SYNC)
    daemon.stop()
    kubectl("label", "cm/settings", "driftwatch.io/source-", "-n", shop.namespace)
    kubectl("set", "env", "deploy/web", "-c", "sidecar", "DEBUG=1", "-n", shop.namespace)
    objects = shop.objects()
    [lost] = objects["settings"]["fields"]
    label = 'metadata.labels["driftwatch.io/source"]'
    assert (lost["path"], lost["declared"], lost["live"]) == (label, daemon.source, None)
    assert objects["web"]["type"] == "added"
    until = "2099-01-01T00:00:00Z"
    kubectl("annotate", "deploy/web", f"driftwatch.io/snooze-until={until}", "-n", shop.namespace)
    assert objects["web"]["note"] is None
    assert shop.objects()["web"]["note"].startswith("snoozed until 20")


def test_b09_of_what_is_only_observed_our_own_annotations_are_no_difference(new_daemon: NewDaemon, shop: Shop) -> None:
    daemon = new_daemon().start(ready=False)
    settings = config(shop)
    daemon.declare(namespace_of(shop.namespace), settings, file="shop.yaml")
    shop.settings["sources"][0] |= {"name": daemon.source, "repository": str(daemon.repository.folder)}
    daemon.stop()
    settings["metadata"]["annotations"] = {"driftwatch.io/mode": "observe"}
    daemon.commit({"shop.yaml": [namespace_of(shop.namespace), settings]})
    shop.diff(status=IN_SYNC)
    shop.live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    [field] = shop.objects()["settings"]["fields"]
    assert field["path"] == "data.colour"
    assert "driftwatch.io" not in shop.diff(status=DIFFERS).stdout
    settings["metadata"]["annotations"] = {"driftwatch.io/mode": "paused"}
    daemon.commit({"shop.yaml": [namespace_of(shop.namespace), settings]})
    [field] = shop.objects("--all")["settings"]["fields"]
    assert field["path"] == "data.colour"


def test_b09_what_nobody_has_adopted_yet_lacks_the_options_that_git_gives_it(shop: Shop) -> None:
    settings = config(shop)
    shop.create(settings)
    settings["metadata"]["annotations"] = {"driftwatch.io/additions": "report"}
    shop.declare(settings)
    shop.diff(status=IN_SYNC)


def test_b09_an_object_that_is_being_deleted_counts_as_deleted(shop: Shop, live: Live, kubectl: Kubectl) -> None:
    settings = config(shop)
    shop.declare(settings)
    shop.create({**settings, "metadata": {**settings["metadata"], "finalizers": ["example.com/hold"]}})
    kubectl("delete", "cm/settings", "--wait=false", "-n", shop.namespace)
    found = shop.objects()["settings"]
    live.patch(settings, {"metadata": {"finalizers": None}})
    assert found["type"] == "deleted"
    assert "it is being deleted since" in found["note"]


def test_b09_custom_resources_are_compared_as_others_are(shop: Shop) -> None:
    definition = crd("dials", "b09.example.org", "Dial")
    shop.create(definition)
    dial = manifest("b09.example.org/v1", "Dial", "one", shop.namespace, spec={"size": 3})
    shop.declare(dial, definition)
    found = shop.found("--kind=Dial.b09.example.org", "--kind=CustomResourceDefinition", status=DIFFERS)
    assert [(each["name"], each["type"]) for each in found["objects"]] == [("one", "deleted")]
    assert found["inSync"] == 1


def test_e07_what_left_git_is_shown_with_what_becomes_of_it(shop: Shop, live: Live) -> None:
    """An orphan differs: it stays where prune is off, and why, or is pruned; a copy of it is no difference."""
    shop.settings["sources"][0]["name"] = source = shop.namespace[-40:].strip("-")
    shop.declare(config(shop, "stays"))
    shop.create(config(shop, "stays"))
    for name, named, more in (("left", "left", {}), ("kept", "kept", {"driftwatch.io/prune": "disabled"}),
                              ("copy", "left", {})):  # fmt: skip
        made = config(shop, name)
        made["metadata"] |= {
            "labels": {"driftwatch.io/source": source},
            "annotations": {"driftwatch.io/id": f"/ConfigMap/{shop.namespace}/{named}", **more},
        }
        live.patch(made, made, manager="installer", kind="apply")
    objects = shop.objects()
    assert {name: found["type"] for name, found in objects.items()} == {"left": "orphaned", "kept": "orphaned"}
    assert {found["note"] for found in objects.values()} == {"it left Git, and stays: prune is off"}
    assert (objects["left"]["file"], objects["left"]["line"]) == (None, None)
    shop.settings["sources"][0]["prune"] = True
    assert {name: found["note"] for name, found in shop.objects().items()} == {
        "left": "it left Git, and is pruned",
        "kept": "it left Git, and stays: the annotation driftwatch.io/prune: disabled",
    }
    shop.settings["sources"][0] |= {"pruneLimit": 0, "pruneLimitPercent": 10}
    text = shop.diff("--name=left", status=DIFFERS).stdout
    assert text == (
        f"ConfigMap {shop.namespace}/left: orphaned\n  source {source}\n"
        "  it left Git, and is not pruned yet: 1 at once are over pruneLimit\n"
    )
