"""Objects that leave Git: reported always, deleted only where the source says so, and then with care."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, deployment, manifest, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon, Scene, daemons
from tests.support.waits import OTHER_SOURCES, PRUNE_HOLD

PRUNED = {"prune": True, "pruneDelay": "50ms"}
FINALIZER = "example.com/hold"
EVERYTHING = {"pruneLimit": 100}


def _deletions(audit: AuditTrail, namespace: str | None = None) -> list[str]:
    """What was deleted by us, in the order in which it was asked for."""
    return [
        event["objectRef"]["resource"]
        for event in sorted(audit.events(agent=AGENT, verb="delete", namespace=namespace), key=_received)
    ]


def _received(event: dict[str, Any]) -> str:
    return str(event["requestReceivedTimestamp"])


def _annotated(made: Manifest, **annotations: str) -> Manifest:
    made["metadata"].setdefault("annotations", {}).update({f"driftwatch.io/{k}": v for k, v in annotations.items()})
    return made


def _reload(daemon: Daemon, **settings: Any) -> None:
    """Change settings of the first source, and wait until they are in force."""
    daemon.configuration["sources"][0].update(settings)
    told = len(daemon.events("configuration reloaded"))
    (daemon.folder / "driftwatch.yaml").write_text(yaml.safe_dump(daemon.configuration))
    daemon.wait(lambda: len(daemon.events("configuration reloaded")) > told, "the configuration is read again")


def _gone(daemon: Daemon, live: Live, *manifests: Manifest) -> None:
    for each in manifests:
        daemon.wait(lambda each=each: live.get(each) is None, f"{each['metadata']['name']} is gone")


@pytest.fixture
def pruning(new_daemon: NewDaemon, namespace: str) -> Daemon:
    """A daemon that prunes; its source declares a namespace and ten ConfigMaps that stay."""
    daemon = new_daemon(options=PRUNED)
    staying = [config_map(f"stays-{number}", namespace) for number in range(10)]
    daemon.commit({"base.yaml": [namespace_of(namespace), *staying]})
    return daemon


def test_e07_off_by_default_an_orphan_is_reported_and_stays(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """What left Git is drift of type orphaned, said once, until somebody deletes it or Git declares it again."""
    daemon = new_daemon()
    one, other = config_map("one", namespace), config_map("other", namespace)
    daemon.commit({"base.yaml": namespace_of(namespace), "a.yaml": [one, other]})
    daemon.start()
    daemon.wait_in_sync(one, other)

    daemon.commit({"a.yaml": None})

    def orphans() -> float:
        return daemon.metric("driftwatch_orphaned_objects", namespace=namespace, source=daemon.source)

    daemon.wait(lambda: orphans() == 2, "both are orphaned")
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace, kind="ConfigMap") == 2
    live.patch(one, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    kubectl("delete", "configmap/other", "-n", namespace)
    daemon.wait(lambda: orphans() == 1, "the deleted one is none any more")
    daemon.commit({"a.yaml": one})
    daemon.wait_in_sync(one)
    daemon.wait(lambda: orphans() == 0, "the declared one is none any more")
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0
    assert live.get(other) is None
    told = daemon.drifts(namespace=namespace, type="orphaned")
    assert sorted(line["name"] for line in told) == ["one", "other"]
    assert {line["event"] for line in told} == {"drift"}
    assert daemon.drift_total(namespace=namespace, type="orphaned") == 2
    assert daemon.metric("driftwatch_prunes_total") == 0


def test_e07_what_a_commit_removes_is_pruned_and_nothing_else(
    pruning: Daemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """With prune on, an object that leaves Git is deleted, once, and that is no drift."""
    daemon = pruning
    web, settings = deployment("web", namespace), config_map("settings", namespace)
    daemon.commit({"web.yaml": [web, settings]})
    daemon.start()
    daemon.wait_in_sync(web, settings)
    stranger = config_map("stranger", namespace)
    live.patch(stranger, stranger, manager="someone", kind="apply")
    audit.mark()

    commit = daemon.commit({"web.yaml": settings})

    _gone(daemon, live, web)
    [told] = daemon.wait(lambda: daemon.events("pruned", namespace=namespace), "it is told")
    assert (told["name"], told["kind"], told["commit"]) == ("web", "Deployment", commit[:12])
    assert _deletions(audit) == ["deployments"]
    assert live.get(settings) is not None
    assert live.get(stranger) is not None
    assert daemon.metric("driftwatch_prunes_total", result="success", namespace=namespace) == 1
    assert daemon.drifts() == []
    assert daemon.drift_total() == 0


def test_e07_objects_are_pruned_in_reverse_order_namespaces_last(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str, new_namespace: Any
) -> None:
    """Webhooks, custom resources, workloads, inputs, policies, definitions, namespaces: each when the last is gone."""
    kept, kind = new_namespace(), "Pruned"
    hook = manifest("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", namespace, webhooks=[])
    definition = crd("pruneds", "prune.example.com", kind)
    leaving = [
        namespace_of(namespace),
        definition,
        manifest("v1", "ServiceAccount", "robot", namespace),
        config_map("settings", namespace),
        deployment("web", namespace),
        manifest("prune.example.com/v1", kind, "one", namespace, spec={"size": 1}),
        hook,
    ]
    kinds = ["Namespace", "CustomResourceDefinition"]
    daemon = new_daemon(options={**PRUNED, **EVERYTHING, "pruneKinds": kinds})
    daemon.commit({"kept.yaml": namespace_of(kept), "all.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(*leaving)
    audit.mark()

    daemon.commit({"all.yaml": None})

    _gone(daemon, live, namespace_of(namespace))
    assert _deletions(audit) == [
        "validatingwebhookconfigurations",
        "pruneds",
        "deployments",
        "configmaps",
        "serviceaccounts",
        "customresourcedefinitions",
        "namespaces",
    ]
    daemon.wait(lambda: len(daemon.events("pruned")) == len(leaving), "all are told")
    assert live.get(namespace_of(kept)) is not None


def test_e07_copies_of_our_label_are_never_pruned(
    pruning: Daemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """A copy under another name carries the id of the original: it is no orphan, and stays."""
    daemon = pruning
    original = config_map("original", namespace)
    daemon.commit({"a.yaml": original})
    daemon.start()
    daemon.wait_in_sync(original)
    found = live.get(original)
    assert found is not None
    copy = {**found, "metadata": {**found["metadata"], "name": "copy"}}
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        copy["metadata"].pop(field)
    kubectl("apply", "-f", "-", input=Scene.json(copy))
    labelled = config_map("labelled", namespace)
    labelled["metadata"]["labels"] = {"driftwatch.io/source": daemon.source}
    kubectl("apply", "-f", "-", input=Scene.json(labelled))

    daemon.commit({"a.yaml": None})

    _gone(daemon, live, original)
    daemon.wait(lambda: daemon.events("label of a source on an object that is not its own"), "the copy is told")
    daemon.stop()
    daemon.start()
    assert live.get(copy) is not None
    assert live.get(labelled) is not None
    assert [line["name"] for line in daemon.events("pruned")] == []
    assert daemon.drifts(namespace=namespace) == []


def test_e07_object_of_another_source_or_of_none_is_never_pruned(pruning: Daemon, live: Live, namespace: str) -> None:
    """A self-naming object whose label names a source that is not configured is nobody's."""
    daemon = pruning
    foreign = config_map("foreign", namespace)
    foreign["metadata"] |= {
        "labels": {"driftwatch.io/source": "elsewhere"},
        "annotations": {"driftwatch.io/id": f"/ConfigMap/{namespace}/foreign"},
    }
    leaving = config_map("leaving", namespace)
    daemon.commit({"a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(leaving)
    live.patch(foreign, foreign, manager="someone", kind="apply")

    daemon.commit({"a.yaml": None})

    _gone(daemon, live, leaving)
    assert live.get(foreign) is not None
    assert daemon.drifts(namespace=namespace) == []


def test_e07_finalizers_are_waited_for_and_hold_what_comes_after(pruning: Daemon, live: Live, namespace: str) -> None:
    """An object whose finalizer nobody removes is told and never forced; what it may need is not deleted before it."""
    daemon = pruning
    web, robot = deployment("web", namespace), manifest("v1", "ServiceAccount", "robot", namespace)
    web["metadata"]["finalizers"] = [FINALIZER]
    daemon.commit({"a.yaml": [web, robot]})
    daemon.start()
    daemon.wait_in_sync(web, robot)

    daemon.commit({"a.yaml": None})

    [told] = daemon.wait(lambda: daemon.events("prune waits for finalizers"), "the finalizer is told")
    assert (told["name"], told["finalizers"]) == ("web", FINALIZER)
    found = live.get(web)
    assert found is not None
    assert found["metadata"]["finalizers"] == [FINALIZER]
    assert live.get(robot) is not None
    assert daemon.events("pruned") == []
    live.patch(web, {"metadata": {"finalizers": None}}, manager="some-controller")
    _gone(daemon, live, web, robot)
    daemon.wait(lambda: len(daemon.events("pruned", namespace=namespace)) == 2, "both are told")
    assert len(daemon.events("prune waits for finalizers")) == 1


def test_e07_dangerous_kinds_need_their_own_consent(
    new_daemon: NewDaemon, live: Live, namespace: str, new_namespace: Any
) -> None:
    """Namespaces, CRDs, volumes and claims stay without consent; pruneKinds or an annotation gives it."""
    claim_spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = manifest("v1", "PersistentVolumeClaim", "data", namespace, spec=claim_spec)
    agreed = _annotated(manifest("v1", "PersistentVolumeClaim", "cache", namespace, spec=claim_spec), prune="confirmed")
    volume = manifest(
        "v1", "PersistentVolume", f"{namespace}-volume",
        spec={"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/nowhere"}},
    )  # fmt: skip
    definition = crd("consents", "consent.example.com", "Consent")
    spare = new_namespace()
    daemon = new_daemon(options={**PRUNED, **EVERYTHING})
    guarded = [namespace_of(spare), claim, volume, definition]
    daemon.commit({"base.yaml": namespace_of(namespace), "a.yaml": [*guarded, agreed]})
    daemon.start()
    daemon.wait_in_sync(*guarded, agreed)

    daemon.commit({"a.yaml": None})

    _gone(daemon, live, agreed)
    daemon.wait(lambda: len(daemon.events("not pruned")) == 4, "the others are told")
    reasons = {line["name"]: line["reason"] for line in daemon.events("not pruned")}
    assert reasons["data"].startswith("a PersistentVolumeClaim needs consent")
    assert len(daemon.drifts(type="orphaned")) == 4
    for each in guarded:
        found = live.get(each)
        assert found is not None
        assert "deletionTimestamp" not in found["metadata"]

    _reload(daemon, pruneKinds=["Namespace", "CustomResourceDefinition", "PersistentVolume"])
    live.patch(claim, {"metadata": {"annotations": {"driftwatch.io/prune": "confirmed"}}}, manager="kubectl-annotate")
    _gone(daemon, live, *guarded)


def test_e07_namespace_that_would_take_others_along_stays(pruning: Daemon, live: Live, new_namespace: Any) -> None:
    """A namespace with consent is kept while anything that stays is in it, and goes when that is gone."""
    spare = new_namespace()
    claim = _annotated(config_map("claimed", spare), prune="disabled")
    daemon = pruning
    daemon.configuration["sources"][0]["pruneKinds"] = ["Namespace"]
    daemon.commit({"a.yaml": [namespace_of(spare), claim]})
    daemon.start()
    daemon.wait_in_sync(claim)

    daemon.commit({"a.yaml": None})

    [told] = daemon.wait(lambda: daemon.events("not pruned", name=spare), "the namespace is told")
    assert told["reason"] == f"ConfigMap {spare}/claimed would go with it"
    assert live.get(claim) is not None
    live.request("DELETE", live.path(claim))
    _gone(daemon, live, namespace_of(spare))


@pytest.mark.parametrize(
    "annotation",
    [
        ("driftwatch.io/prune", "disabled"),
        ("driftwatch.io/mode", "observe"),
        ("kustomize.toolkit.fluxcd.io/prune", "disabled"),
        ("argocd.argoproj.io/sync-options", "Validate=false,Prune=false"),
        ("helm.sh/resource-policy", "keep"),
    ],
    ids=lambda annotation: annotation[0],
)
def test_e07_opted_out_objects_stay(
    shared_pruning: Daemon, live: Live, namespace: str, annotation: tuple[str, str]
) -> None:
    """An annotation in the last manifest keeps its object; those of other tools count as they do there."""
    name, value = annotation
    kept, beside = config_map("kept", namespace), config_map("beside", namespace)
    shared_pruning.declare(namespace_of(namespace), kept, beside, file=f"{namespace}.yaml")
    kept["metadata"]["annotations"] = {name: value}
    if value == "observe":  # nothing is applied any more to what is only observed
        live.patch(kept, {"metadata": {"annotations": {name: value}}}, manager="some-controller")
    else:
        shared_pruning.declare(namespace_of(namespace), kept, beside, file=f"{namespace}.yaml")

    shared_pruning.commit({f"{namespace}.yaml": namespace_of(namespace)})

    _gone(shared_pruning, live, beside)
    shared_pruning.wait(lambda: shared_pruning.drifts(namespace=namespace, name="kept"), "the kept one is reported")
    found = live.get(kept)
    assert found is not None
    assert "deletionTimestamp" not in found["metadata"]
    live.request("DELETE", live.path(kept))


@pytest.mark.parametrize("annotation", [("prune", "false"), ("mode", "pasued")], ids=lambda annotation: annotation[0])
def test_e07_a_wish_on_the_live_object_that_is_not_understood_keeps_it(
    shared_pruning: Daemon, live: Live, kubectl: Kubectl, namespace: str, annotation: tuple[str, str]
) -> None:
    """Mistyped, it is no consent: the object is reported, with what the annotation may be, once."""
    name, value = annotation
    kept, beside = config_map("kept", namespace), config_map("beside", namespace)
    shared_pruning.declare(namespace_of(namespace), kept, beside, file=f"{namespace}.yaml")
    manager = "--field-manager=some-controller"  # an addition by hand is taken away, but for driftwatch.io/prune
    kubectl("annotate", manager, "configmap/kept", f"driftwatch.io/{name}={value}", "-n", namespace)

    shared_pruning.commit({f"{namespace}.yaml": namespace_of(namespace)})

    _gone(shared_pruning, live, beside)
    [said] = shared_pruning.wait(lambda: shared_pruning.events("not pruned", namespace=namespace), "it is said")
    assert (said["name"], value in said["reason"], " must be " in said["reason"]) == ("kept", True, True)
    kubectl("annotate", manager, "--overwrite", "configmap/kept", f"driftwatch.io/{name}-", "-n", namespace)
    _gone(shared_pruning, live, kept)
    assert len(shared_pruning.events("not pruned", namespace=namespace)) == 1


@pytest.fixture(scope="module")
def shared_pruning(cluster: Any, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A daemon that prunes, for the tests of opting out."""
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = new(options={**PRUNED, **EVERYTHING})
        daemon.commit({"base.yaml": namespace_of("e07-shared")})
        yield daemon.start()


def test_e07_commit_that_removes_too_much_is_held_until_it_is_confirmed(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """Over the limit nothing is deleted; the commit in the configuration lets it go, without a restart."""
    daemon = new_daemon(options={**PRUNED, "pruneLimit": 2})
    leaving = [config_map(f"leaving-{number}", namespace) for number in range(4)]
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("stays", namespace)], "a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(*leaving)

    commit = daemon.commit({"a.yaml": None})

    [told] = daemon.wait(lambda: daemon.events("prune is held"), "the brake is told")
    assert (told["hold"], told["objects"], told["commit"]) == ("limit", 4, commit[:12])
    assert f"pruneConfirm: {commit[:12]}" in told["reason"]
    assert daemon.metric("driftwatch_prune_held_objects", source=daemon.source, reason="limit") == 4
    assert daemon.metric("driftwatch_orphaned_objects", source=daemon.source) == 4
    _reload(daemon, pruneConfirm="0" * 12)
    assert all(live.get(each) for each in leaving)
    _reload(daemon, pruneConfirm=commit[:12])
    _gone(daemon, live, *leaving)
    daemon.wait(lambda: len(daemon.events("pruned")) == 4, "all are told")
    assert daemon.metric("driftwatch_prune_held_objects", source=daemon.source) == 0
    assert daemon.metric("driftwatch_orphaned_objects", source=daemon.source) == 0


def test_e07_held_objects_that_come_back_are_no_orphans(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A commit that takes the removal back ends the hold, and not one object was deleted."""
    daemon = new_daemon(options={**PRUNED, "pruneLimit": 1})
    leaving = [config_map(f"leaving-{number}", namespace) for number in range(3)]
    daemon.commit({"base.yaml": [namespace_of(namespace)], "a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(*leaving)
    uids = [live.uid(each) for each in leaving]
    daemon.commit({"a.yaml": None})
    daemon.wait(lambda: daemon.events("prune is held"), "the brake is told")

    daemon.commit({"a.yaml": leaving})

    daemon.wait(lambda: daemon.events("prune is not held any more"), "the hold is over")
    daemon.wait(lambda: not daemon.metric("driftwatch_orphaned_objects", source=daemon.source), "no orphans")
    daemon.wait_in_sync(*leaving)
    assert [live.uid(each) for each in leaving] == uids


def test_e07_empty_snapshot_prunes_nothing_even_if_confirmed(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A commit that empties the source deletes nothing, however few objects there were."""
    settings = config_map("settings", namespace)
    daemon = new_daemon(options=PRUNED)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)

    commit = daemon.commit({"all.yaml": None, "README.md": "Nothing is declared."})

    [told] = daemon.wait(lambda: daemon.events("prune is held"), "it is told")
    assert told["hold"] == "empty"
    _reload(daemon, pruneConfirm=commit)
    daemon.commit({"all.yaml": namespace_of(namespace)})
    _gone(daemon, live, settings)  # which shows that pruning went on, and not before
    [pruned] = daemon.wait(lambda: daemon.events("pruned"), "it is told")
    assert pruned["commit"] != commit[:12]


def test_e07_unreadable_file_prunes_nothing(pruning: Daemon, live: Live, namespace: str) -> None:
    """What an invalid file declared stays declared; and while it is invalid, nothing else of the source is pruned."""
    daemon = pruning
    kept, leaving = config_map("kept", namespace), config_map("leaving", namespace)
    daemon.commit({"kept.yaml": kept, "leaving.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(kept, leaving)

    daemon.commit({"kept.yaml": "kind: [", "leaving.yaml": None})

    [told] = daemon.wait(lambda: daemon.events("prune is held"), "it is told")
    assert told["hold"] == "invalid"
    assert [line["name"] for line in daemon.drifts(type="orphaned")] == ["leaving"]
    assert live.get(leaving) is not None
    daemon.commit({"kept.yaml": kept})
    _gone(daemon, live, leaving)
    daemon.wait_in_sync(kept)
    told = daemon.wait(lambda: daemon.events("pruned"), "it is told")
    assert [line["name"] for line in told] == ["leaving"]


@pytest.mark.parametrize("commits", [1, 2])
def test_e07_object_that_moves_between_sources_is_never_deleted(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, tmp_path: Path, namespace: str, commits: int
) -> None:
    """Dropped by one source and declared by another, in one commit or two: taken over, with the uid that it had."""
    repository = Repository(tmp_path / "git")
    moving = config_map("moving", namespace)
    one, other = f"{namespace}-one", f"{namespace}-other"
    common = {"repository": str(repository.folder), **PRUNED, "pruneDelay": "3s" if commits == 2 else "50ms"}
    sources = [
        {"name": one, "path": "one", **common},
        # The other one is asked so seldom that it hears of the move only because it is asked for its sake.
        {"name": other, "path": "other", **common, "interval": "250ms" if commits == 2 else "1h"},
    ]
    repository.commit(
        {
            "one/base.yaml": [namespace_of(namespace), config_map("stays", namespace)],
            "one/moving.yaml": moving,
            "other/base.yaml": config_map("beside", namespace),
        }
    )
    daemon = new_daemon(sources=sources).start()
    daemon.wait_in_sync(moving, source=one)
    uid = live.uid(moving)
    audit.mark()

    if commits == 2:
        dropped = repository.commit({"one/moving.yaml": None})
        daemon.wait(lambda: daemon.events("snapshot", source=one, commit=dropped[:12]), "the drop is read")
        repository.commit({"other/moving.yaml": moving})
    else:
        repository.commit({"one/moving.yaml": None, "other/moving.yaml": moving})

    daemon.wait_in_sync(moving, source=other)
    assert live.uid(moving) == uid
    assert _deletions(audit) == []
    if commits == 2:  # the new owner prunes it as it would its own
        repository.commit({"other/moving.yaml": None})
        _gone(daemon, live, moving)


@pytest.mark.waits({**PRUNE_HOLD, **OTHER_SOURCES})
def test_e07_source_that_cannot_be_read_may_have_taken_objects_over(
    new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str
) -> None:
    """While Git does not answer for another source, nothing is pruned, and that is said; then it is."""
    daemon = new_daemon(options=PRUNED)
    leaving = config_map("leaving", namespace)
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("stays", namespace)], "a.yaml": leaving})
    other = {"name": f"{namespace}-other", "repository": str(tmp_path / "later"), "interval": "250ms"}
    daemon.configuration["sources"].append(other)
    daemon.start(ready=False)
    daemon.wait_in_sync(leaving)
    daemon.wait(lambda: daemon.events("first pass done"), "the first pass is done")

    daemon.commit({"a.yaml": None})

    [told] = daemon.wait(lambda: daemon.events("prune is held"), "it is told", timeout=40)
    assert told["hold"] == "sources"
    assert live.get(leaving) is not None
    Repository(tmp_path / "later").commit({"README.md": "Nothing is declared."})
    _gone(daemon, live, leaving)


def test_e07_source_dropped_from_the_configuration_prunes_nothing(
    pruning: Daemon, live: Live, tmp_path: Path, namespace: str
) -> None:
    """Objects of a source that is configured no more are nobody's: neither deleted nor reported."""
    daemon = pruning
    repository = Repository(tmp_path / "second")
    left = config_map("left", namespace)
    repository.commit({"all.yaml": left})
    second = {"name": f"{namespace}-second", "repository": str(repository.folder), "interval": "250ms", **PRUNED}
    daemon.configuration["sources"].append(second)
    leaving = config_map("leaving", namespace)
    daemon.commit({"a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(left, source=second["name"])

    daemon.configuration["sources"].pop()
    _reload(daemon)
    daemon.commit({"a.yaml": None})

    _gone(daemon, live, leaving)
    assert live.get(left) is not None
    assert daemon.drifts(namespace=namespace) == []
    told = daemon.wait(lambda: daemon.events("pruned"), "it is told")
    assert [line["name"] for line in told] == ["leaving"]


def test_e07_person_who_edits_an_object_meanwhile_is_judged_by(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """An opt-out that somebody writes before the deletion counts; edits do not keep an object from being pruned."""
    daemon = new_daemon(options={**PRUNED, "pruneDelay": "4s"})
    saved, edited = config_map("saved", namespace), config_map("edited", namespace)
    daemon.commit({"base.yaml": [namespace_of(namespace), config_map("stays", namespace)], "a.yaml": [saved, edited]})
    daemon.start()
    daemon.wait_in_sync(saved, edited)
    commit = daemon.commit({"a.yaml": None})
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")

    kubectl("annotate", "configmap/saved", "driftwatch.io/prune=disabled", "-n", namespace)
    number = 0
    while live.get(edited) is not None:
        number += 1
        assert number < 5000, daemon.last_lines()
        live.request(
            "PATCH", live.path(edited), {"data": {"n": str(number)}}, media_type="application/merge-patch+json"
        )

    assert number > 1
    daemon.wait(lambda: daemon.drifts(name="saved", type="orphaned"), "the saved one is reported")
    assert live.get(saved) is not None
    daemon.wait(lambda: daemon.events("pruned", name="edited"), "the edited one is told")


def test_e07_observe_prunes_nothing_and_heal_does(
    pruning: Daemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """A source that is only observed reports its orphans; healed again, it prunes them."""
    daemon = pruning
    leaving = config_map("leaving", namespace)
    daemon.commit({"a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(leaving)
    _reload(daemon, mode="observe")
    audit.mark()

    daemon.commit({"a.yaml": None})

    daemon.wait(lambda: daemon.drifts(name="leaving", type="orphaned"), "the orphan is reported")
    assert daemon.events("not pruned", name="leaving")[0]["reason"] == "mode observe"
    assert _deletions(audit) == []
    _reload(daemon, mode="heal")
    _gone(daemon, live, leaving)


def test_e07_closed_window_holds_no_prune(pruning: Daemon, live: Live, namespace: str) -> None:
    """A removal follows from a commit, as an apply does: healing windows are about drift."""
    daemon = pruning
    daemon.configuration["sources"][0]["windows"] = [{"schedule": "0 0 29 2 *", "duration": "1m"}]
    leaving = config_map("leaving", namespace)
    daemon.commit({"a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(leaving)

    daemon.commit({"a.yaml": None})

    _gone(daemon, live, leaving)


def test_e07_refused_deletion_is_tried_again_and_told(
    pruning: Daemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """A deletion that admission refuses is told once with the server's words, backed off, and done when it may be."""
    daemon = pruning
    leaving = config_map("leaving", namespace)
    daemon.commit({"a.yaml": leaving})
    daemon.start()
    daemon.wait_in_sync(leaving)
    policy, binding = _no_deletions(namespace)
    for each in (policy, binding):
        live.patch(each, each, manager="admin", kind="apply")
    probe = config_map("probe", namespace)
    live.patch(probe, probe, manager="someone", kind="apply")
    path = f"{live.path(probe)}?dryRun=All"
    daemon.wait(lambda: live.request("DELETE", path)[0] == 422, "the policy is in force")
    audit.mark()
    try:
        daemon.commit({"a.yaml": None})
        audit.wait(2, agent=AGENT, verb="delete", namespace=namespace, timeout=30)
        [told] = daemon.events("not pruned", name="leaving")
        assert "nothing is deleted today" in told["error"]
        assert daemon.metric("driftwatch_prunes_total", result="failed", namespace=namespace) >= 1
        assert live.get(leaving) is not None
    finally:
        for each in (binding, policy):
            live.request("DELETE", live.path(each))
    _gone(daemon, live, leaving)


def _no_deletions(namespace: str) -> tuple[Manifest, Manifest]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}
    policy = manifest(
        "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", namespace,
        spec={
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "message": "nothing is deleted today"}],
        },
    )  # fmt: skip
    here = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding = manifest(
        "admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", namespace,
        spec={
            "policyName": namespace,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": here},
        },
    )  # fmt: skip
    return policy, binding


def test_e07_renamed_default_namespace_prunes_the_old_objects(
    new_daemon: NewDaemon, live: Live, namespace: str, new_namespace: Any
) -> None:
    """Objects without a namespace of their own move with the source's default: created there, pruned here."""
    to = new_namespace()
    here, there = config_map("floating", namespace), config_map("floating", to)
    floating = {**here, "metadata": {"name": "floating"}}
    daemon = new_daemon(options={**PRUNED, "namespace": namespace})
    daemon.commit({"all.yaml": [namespace_of(namespace), namespace_of(to), floating]})
    daemon.start()
    daemon.wait_in_sync(here)

    _reload(daemon, namespace=to)

    daemon.wait_in_sync(there)
    _gone(daemon, live, here)
    daemon.wait_in_sync(namespace_of(namespace), namespace_of(to))
