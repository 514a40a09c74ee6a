"""The least role for what sources declare, and what `driftwatch rbac` says where it cannot be told."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.model import GroupKind, Manifest, Mode
from driftwatch.oneshot.rbac.requirements import Kept, Resource, defined_kinds, guessed, of_objects
from driftwatch.oneshot.rbac.role import Account, manifests, rules

from tests.support.account import run_rbac
from tests.support.manifests import config_map, crd, manifest
from tests.support.repository import Repository

RBAC = "rbac.authorization.k8s.io"
HEALED = ["get", "list", "watch", "create", "patch", "update"]


def kept(
    api_version: str, kind: str, name: str = "x", *, deleted: bool = False, mode: Mode = Mode.HEAL, **body: Any
) -> Kept:
    group, _, version = api_version.rpartition("/")
    declared = Manifest(group, version, kind, "shop", name, json.dumps(body).encode(), "", "file.yaml", 1)
    return Kept(declared, mode, deleted)


def rules_for(*objects: Kept) -> list[dict[str, Any]]:
    """The rules for these objects, without those that are always there."""
    resources = {each.manifest.group_kind: guessed(each.manifest.group_kind) for each in objects}
    return [rule for rule in rules(of_objects(objects, resources)) if rule not in rules([])]


def test_kinds_of_a_group_share_a_rule() -> None:
    """Kinds that need the same come together, each once, whatever the number of their objects."""
    found = rules_for(kept("apps/v1", "StatefulSet"), kept("apps/v1", "Deployment"), kept("apps/v1", "Deployment", "y"))

    assert found == [{"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": HEALED}]


def test_kind_that_is_only_observed_is_never_updated() -> None:
    """What is observed needs dry runs of applies, and no more; one healed object of the kind is enough for the rest."""
    observed = kept("v1", "ConfigMap", mode=Mode.OBSERVE, deleted=True)

    assert rules_for(observed)[0]["verbs"] == ["get", "list", "watch", "create", "patch"]
    assert rules_for(observed, kept("v1", "ConfigMap", "y"))[0]["verbs"] == HEALED


def test_delete_is_for_what_may_be_deleted() -> None:
    """Only kinds of which driftwatch itself deletes an object get the verb."""
    found = rules_for(kept("v1", "ConfigMap", deleted=True), kept("v1", "Service"))

    assert {tuple(rule["resources"]): "delete" in rule["verbs"] for rule in found} == {
        ("configmaps",): True,
        ("services",): False,
    }


def test_roles_and_bindings_are_named() -> None:
    """Escalation is allowed for the roles that Git declares, and binding for those that its bindings refer to."""
    found = rules_for(
        kept(f"{RBAC}/v1", "ClusterRole", "b"),
        kept(f"{RBAC}/v1", "ClusterRole", "a"),
        kept(f"{RBAC}/v1", "Role", "local"),
        kept(f"{RBAC}/v1", "RoleBinding", "any", roleRef={"kind": "ClusterRole", "name": "view"}),
    )

    assert found[1:] == [
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": ["view"], "verbs": ["bind"]},
        {"apiGroups": [RBAC], "resources": ["clusterroles"], "resourceNames": ["a", "b"], "verbs": ["escalate"]},
        {"apiGroups": [RBAC], "resources": ["roles"], "resourceNames": ["local"], "verbs": ["escalate"]},
    ]


def test_confined_to_a_namespace_there_is_no_cluster_role() -> None:
    """All is granted by Roles: one in the namespace that is kept, one where the inventory is."""
    found = manifests([], Account(), confined="shop", inventory="driftwatch-system")

    assert [(each["kind"], each["metadata"]["namespace"]) for each in found] == [
        ("Role", "shop"),
        ("RoleBinding", "shop"),
        ("Role", "driftwatch-system"),
        ("RoleBinding", "driftwatch-system"),
    ]
    assert all("nonResourceURLs" not in rule for each in found for rule in each.get("rules", []))


def test_by_namespace_each_gets_what_is_declared_there() -> None:
    """What is in no namespace stays in the ClusterRole, with what every daemon needs."""
    shop, cluster = kept("v1", "ConfigMap"), kept("v1", "Namespace")
    resources = {each.manifest.group_kind: guessed(each.manifest.group_kind) for each in (shop, cluster)}
    requirements = list(of_objects([shop, cluster], resources))

    everywhere, _, there, binding = manifests(requirements, Account(), by_namespace=True)

    assert (there["kind"], there["metadata"]["namespace"]) == ("Role", "shop")
    assert there["rules"] == [{"apiGroups": [""], "resources": ["configmaps"], "verbs": HEALED}]
    assert (binding["kind"], binding["metadata"]["namespace"]) == ("RoleBinding", "shop")
    granted = [resource for rule in everywhere["rules"] for resource in rule.get("resources", [])]
    assert ("namespaces" in granted, "configmaps" in granted) == (True, False)
    assert len(manifests(requirements, Account())) == 2


def test_custom_kinds_are_called_as_their_definition_in_git_says() -> None:
    """The plural of a CustomResourceDefinition need not follow the rule."""
    declared = crd("widgetry", "example.com", "Widget")
    definition = kept("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec=declared["spec"]).manifest

    assert defined_kinds([definition]) == {GroupKind("example.com", "Widget"): Resource("example.com", "widgetry")}


# --- The command ---


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "git")


@pytest.fixture
def config(tmp_path: Path, repository: Repository) -> Path:
    """A configuration file whose one source is the repository."""
    file = tmp_path / "driftwatch.yaml"
    file.write_text(yaml.safe_dump({"sources": [{"name": "shop", "repository": str(repository.folder)}]}))
    return file


def test_command_without_a_cluster_goes_by_git(config: Path, repository: Repository) -> None:
    """Built-in kinds by their names, custom ones by their definition; one that nobody knows is named as a guess."""
    custom = [manifest("example.com/v1", kind, "x", "shop") for kind in ("Widget", "Gadget")]
    repository.commit({"all.yaml": [config_map("settings", "shop"), crd("widgetry", "example.com", "Widget"), *custom]})

    done = run_rbac(f"--config={config}", "--no-cluster", "--output=rules", "--kind=Ingress.networking.k8s.io")

    assert done.returncode == 0
    granted = {resource for rule in yaml.safe_load(done.stdout) for resource in rule.get("resources", [])}
    assert granted >= {"configmaps", "customresourcedefinitions", "widgetry", "gadgets", "ingresses"}
    assert "Gadget.example.com: neither the cluster nor a CustomResourceDefinition in Git" in done.stderr
    assert "Widget" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "annotations", "expected"),
    [
        ({}, {}, set()),
        ({"prune": True}, {}, {"configmaps"}),
        ({"recreate": "immutable"}, {}, {"configmaps"}),
        ({"prune": True, "pruneKinds": ["Namespace"]}, {}, {"configmaps", "namespaces"}),
        ({"prune": True}, {"driftwatch.io/prune": "confirmed"}, {"configmaps", "namespaces"}),
        ({}, {"driftwatch.io/recreate": "immutable"}, {"namespaces"}),
        ({"prune": True, "recreate": "immutable", "mode": "observe"}, {}, set()),
    ],
)
def test_command_grants_delete_where_pruning_or_creating_anew_is_allowed(
    config: Path, repository: Repository, settings: dict[str, Any], annotations: dict[str, str], expected: set[str]
) -> None:
    """What takes others or data along needs its own consent, as the daemon has it."""
    shop = manifest("v1", "Namespace", "shop", metadata={"annotations": annotations})
    repository.commit({"all.yaml": [shop, config_map("settings", "shop")]})
    document = yaml.safe_load(config.read_text())
    document["sources"][0] |= settings
    config.write_text(yaml.safe_dump(document))

    done = run_rbac(f"--config={config}", "--no-cluster", "--output=rules")

    rules = yaml.safe_load(done.stdout)
    assert {resource for rule in rules if "delete" in rule["verbs"] for resource in rule["resources"]} == expected


def test_command_prints_nothing_where_a_source_cannot_be_read(config: Path) -> None:
    """A role for some of the sources would take from the others what they have."""
    done = run_rbac(f"--config={config}", "--no-cluster")

    assert (done.returncode, done.stdout) == (2, "")
    assert "shop" in done.stderr
    assert "nothing is printed" in done.stderr


def test_command_says_what_is_left_out(config: Path, repository: Repository) -> None:
    """An invalid manifest among good ones is named with its file and line; the exit status tells of it."""
    repository.commit({"bad.yaml": "apiVersion: v1\nkind: ConfigMap\n", "good.yaml": config_map("settings", "shop")})

    done = run_rbac(f"--config={config}", "--no-cluster", "--output=json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["items"][0]["kind"] == "ClusterRole"
    assert "bad.yaml:1" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--config"),
        (("--kind=apps/Deployment",), "is not KIND or KIND.GROUP"),
        (("--kind=Pod", "--by-namespace"), "--by-namespace needs objects"),
        (("--config=/nonexistent.yaml",), "/nonexistent.yaml"),
    ],
)
def test_command_refuses_what_it_cannot_use(arguments: tuple[str, ...], words: str) -> None:
    """Wrong options and an unreadable configuration are named; nothing is printed."""
    done = run_rbac(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
