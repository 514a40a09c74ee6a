"""Whose word counts: the object's annotation, then a rule about it, then its source, then the whole configuration."""

from fnmatch import fnmatchcase

import orjson
import pytest
from driftwatch.config import load
from driftwatch.drift.annotations import Additions
from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.drift.managers import INTERACTIVE_MANAGERS, Managers
from driftwatch.drift.policy import Policies, SourcePolicy
from driftwatch.drift.rules import Rule, Target, parse_path, parse_pointer
from driftwatch.model import Manifest, Mode, ObjectKey
from hypothesis import given
from hypothesis import strategies as st

KEY = ObjectKey("apps", "Deployment", "shop", "web")
PEOPLE = (
    *("kubectl", "kubectl-edit", "kubectl-client-side-apply", "kubectl-neat", "oc", "oc-debug", "k9s"),
    *("node-fetch", "Lens", "OpenLens", "freelens", "Mozilla", "headlamp-server", "octant"),
    *("dashboard", "dashboard-api", "kubernetes-dashboard", "GoogleCloudConsole", "ACK-Console Apache-HttpClient"),
    *("curl", "PostmanRuntime", "python-requests"),
)
CONTROLLERS = (
    *("kube-controller-manager", "kubelet", "cert-manager-cainjector", "cluster-autoscaler", "kubectl-rollout"),
    *("rancher", "rancher-webhook", "fleetagent", "argocd-server", "argocd-application-controller", "helm"),
    *("dashboard-controller", "openshift-controller-manager", "OpenAPI-Generator", "Go-http-client", "unknown"),
)
modes = st.sampled_from(Mode)
additions = st.sampled_from(Additions)


def manifest(key=KEY, labels=None, body=None, **options):
    content = {"metadata": {"labels": labels or {}}, **(body or {})}
    said = {f"driftwatch.io/{name}": value for name, value in options.items()}
    return Manifest(key.group, "v1", key.kind, key.namespace, key.name, orjson.dumps(content), "abc", "a.yaml", 1, said)


@given(modes, st.none() | modes, st.none() | modes)
def test_the_nearest_word_about_the_mode_counts(source, ruled, said):
    """Annotation, rule, source: the first of them that says anything."""
    rules = [Rule("test", mode=ruled)] if ruled else []
    policies = Policies({"apps": SourcePolicy(source)}, rules)
    one = manifest(mode=said) if said else manifest()

    assert policies.of("apps", KEY, one).mode is (said or ruled or source)


@given(additions, st.none() | additions)
def test_the_nearest_word_about_additions_counts(source, said):
    """Annotation, then source."""
    policies = Policies({"apps": SourcePolicy(additions=source)})
    one = manifest(additions=said) if said else manifest()

    assert policies.of("apps", KEY, one).additions is (said or source)


def test_an_annotation_that_says_nothing_known_counts_as_unsaid():
    """A typing mistake in Git pauses nothing."""
    policies = Policies({"apps": SourcePolicy(Mode.OBSERVE, Additions.REPORT)})
    found = policies.of("apps", KEY, manifest(mode="sleep", additions="maybe"))

    assert (found.mode, found.additions) == (Mode.OBSERVE, Additions.REPORT)


def test_a_source_s_own_rule_comes_before_the_others():
    """Of two rules with a mode the first one counts, and the source's stand first."""
    own, general = Rule("own", mode=Mode.PAUSED), Rule("general", mode=Mode.IGNORE)

    assert Policies({"apps": SourcePolicy(rules=(own,))}, [general]).of("apps", KEY, manifest()).mode is Mode.PAUSED


def test_all_rules_about_an_object_apply():
    """Two without a target, and one of the source."""
    rules = [Rule(name, pointers=(("spec", name),)) for name in "abc"]
    policies = Policies({"apps": SourcePolicy(rules=(rules[0],))}, rules[1:])

    assert policies.of("apps", KEY, manifest()).ignore == tuple(rules)


@pytest.mark.parametrize(
    ("mode", "recreate", "expected"),
    [
        (Mode.IGNORE, True, True),
        (Mode.IGNORE, False, False),
        (None, False, True),
    ],
)
def test_an_ignored_object_is_created_anew_only_by_a_rule(mode, recreate, expected):
    """An annotation alone leaves a deleted object deleted; what is not ignored comes back."""
    rules = [Rule("test", mode=mode, recreate=recreate)]

    assert Policies({"apps": SourcePolicy()}, rules).of("apps", KEY, manifest()).recreate is expected
    assert Policies({"apps": SourcePolicy()}).of("apps", KEY, manifest(mode="ignore")).recreate is False


@pytest.mark.parametrize(
    ("target", "matches"),
    [
        (Target(), True),
        (Target("apps", "Deployment", "shop", "web"), True),
        (Target("app*", "Deploy*", "s?op", "[vw]eb"), True),
        (Target(""), False),
        (Target(kind="deployment"), False),
        (Target(namespace="shop-*"), False),
        (Target(labels=(("tier", "cache"),)), True),
        (Target(labels=(("tier", "c*"), ("team", "*"))), False),
        (Target(labels=(("tier", "web"),)), False),
    ],
)
def test_a_rule_is_about_what_fits_in_every_respect(target, matches):
    """Globs of group, kind, namespace and name; labels that Git gives the object, with these values."""
    assert target.matches(KEY, manifest(labels={"tier": "cache"})) is matches


def test_objects_with_the_same_policy_share_it():
    """Ten thousand objects need no ten thousand policies."""
    policies = Policies({"apps": SourcePolicy()}, [Rule("test", pointers=(("spec",),))])

    assert policies.of("apps", KEY, manifest()) is policies.of("apps", KEY, manifest(labels={"a": "b"}))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_a_pointer_says_any_key(steps):
    """RFC 6901 escapes ~ and /, and nothing else."""
    written = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)

    assert parse_pointer(written) == tuple(steps)


@pytest.mark.parametrize("written", ["", "/", "spec", "/a~", "/a~2b"])
def test_a_malformed_pointer_is_refused(written):
    """With words that show what one looks like."""
    with pytest.raises(ValueError, match="no JSON pointer"):
        parse_pointer(written)


DOCUMENT = {"env": [{"name": "a", "value": "1", "on": True}, {"name": "b]c", "value": "2"}, {"value": "3"}]}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ('$.env[?@.name=="a"].value', ["1"]),
        ('env[?name=="a"].value', ["1"]),
        ('env[?(@.name=="a")].value', ["1"]),
        ("env[?name=='b]c'].value", ["2"]),
        ('.env[?name=="a" || value=="3"].value', ["1", "3"]),
        ('env[?name=="a" && value=="3"].value', []),
        ("env[?on==true].value", ["1"]),
        ("env[?length(@.name)>1].value", ["2"]),
        ('env[?match(@.name, "a.*")].value', ["1"]),
        ("env[?!name].value", ["3"]),
        ("env[*].value", ["1", "2", "3"]),
        ("none.there", []),
    ],
)
def test_a_path_is_read_as_kubectl_users_write_it(path, values):
    """RFC 9535, where the root and a filter's current node may be left out."""
    assert parse_path(path).findall(DOCUMENT) == values


@pytest.mark.parametrize("path", ["", "$.a[?", "$.a[", "a b"])
def test_a_malformed_path_is_refused(path):
    """As a mistake of whoever wrote it."""
    with pytest.raises(ValueError, match="no JSONPath"):
        parse_path(path)


def test_people_write_as_the_managers_that_are_theirs():
    """The command line and the usual consoles are; controllers, a restart and what is trusted are not."""
    managers = Managers(interactive=("our-console*",), trusted=("kubectl-argo-rollouts",))

    assert all(map(managers.is_interactive, (*PEOPLE, "our-console-2")))
    assert [name for name in (*CONTROLLERS, "kubectl-argo-rollouts") if managers.is_interactive(name)] == []


def test_every_name_that_people_write_under_is_tried():
    """A pattern that none of the examples matches could match anything."""
    assert [one for one in INTERACTIVE_MANAGERS if not any(fnmatchcase(name, one) for name in PEOPLE)] == []


def test_a_built_in_rule_can_be_put_out_of_force(tmp_path):
    """By its name, as `driftwatch rules` lists it; the others hold on."""
    file = tmp_path / "driftwatch.yaml"
    source = "sources:\n- name: apps\n  repository: /x\n"
    file.write_text(f"{source}drift:\n  disabledRules: [autoscaled-replicas]\n")

    names = [rule.name for rule in load(file).rules()]
    assert names == [rule.name for rule in BUILT_IN_RULES if rule.name != "autoscaled-replicas"]


def test_b03_a_kept_rule_can_be_switched_off():
    """Without the built-in rule, a restart's annotation and its author are as any other person's."""
    path = ("f:spec", "f:template", "f:metadata", "f:annotations", "f:kubectl.kubernetes.io/restartedAt")
    assert Managers().keeps(path)
    assert not Managers().is_interactive("kubectl-rollout")
    without = Managers(rules=[rule for rule in BUILT_IN_RULES if rule.name != "rollout-restart"])
    assert not without.keeps(path)
    assert without.is_interactive("kubectl-rollout")


def test_replicas_that_git_does_not_declare_are_kept():
    """Scaling is left to others where Git says nothing of it, and only that field by that name."""
    assert Managers().keeps(("f:spec", "f:replicas"))
    assert not Managers().keeps(("f:spec", "f:template", "f:spec", "f:replicas"))
