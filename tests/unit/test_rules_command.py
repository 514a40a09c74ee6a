"""`driftwatch rules`, as whoever wonders why a field is left alone asks it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from driftwatch.cli import root
from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.drift.managers import INTERACTIVE_MANAGERS

FILE = """\
sources:
- name: apps
  repository: https://git.example.com/apps.git
  ignore:
  - rule: tuned-by-hand
    kind: Deployment
    namespace: shop
    labels: {tier: web}
    pointers: [/spec/a~1b]
    reason: The shop tunes it.
- name: other
  repository: https://git.example.com/other.git
  ignore:
  - {kind: Secret, paths: ['data.token'], sensitive: true}
ignore:
- {managers: [keda*/scale]}
- {rule: experiments, group: '', kind: ConfigMap, name: try-*, mode: ignore, recreate: true}
drift:
  disabledRules: [apiservice-ca-bundle]
  interactiveManagers: [deploy-bot]
  trustedManagers: [kubectl-neat]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, ["rules", *arguments])


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "driftwatch.yaml"
    file.write_text(FILE)
    return f"--config={file}"


def test_without_a_configuration_it_lists_what_is_built_in():
    done = run("--output=json")
    found = json.loads(done.output)
    assert done.exit_code == 0
    assert [rule["name"] for rule in found["rules"]] == [rule.name for rule in BUILT_IN_RULES]
    assert all(rule["active"] and rule["reason"] and rule["from"] == "built-in" for rule in found["rules"])
    assert found["interactiveManagers"] == list(INTERACTIVE_MANAGERS)
    assert found["trustedManagers"] == ["kubectl-rollout"]
    assert {each["manager"]: each["reason"] for each in found["people"]} == INTERACTIVE_MANAGERS
    assert {each["from"] for each in found["people"]} == {"built-in"}


def test_rules_stand_in_the_order_in_which_they_hold(config):
    rules = json.loads(run(config, "-o", "json").output)["rules"]
    assert [(rule["name"], rule["from"]) for rule in rules[:4]] == [
        ("tuned-by-hand", "source apps"),
        ("other-1", "source other"),
        ("rule-1", "configuration"),
        ("experiments", "configuration"),
    ]
    assert [rule["name"] for rule in rules if not rule["active"]] == ["apiservice-ca-bundle"]


def test_a_rule_is_shown_as_it_is_written(config):
    tuned, token, scaled, experiments, *_ = json.loads(run(config, "-o", "json").output)["rules"]
    assert tuned["pointers"] == ["/spec/a~1b"]
    assert tuned["objects"] == {
        "group": "*",
        "kind": "Deployment",
        "namespace": "shop",
        "name": "*",
        "labels": {"tier": "web"},
    }
    assert (token["sensitive"], token["paths"]) == (True, ["$.data.token"])
    assert scaled["managers"] == ["keda*/scale"]
    assert (experiments["mode"], experiments["recreate"]) == ("ignore", True)


def test_the_text_says_all_of_it(config):
    done = run(config)
    assert done.exit_code == 0
    for words in (
        "1. tuned-by-hand (source apps)",
        "kind Deployment, namespace shop, label tier=web",
        "The shop tunes it.",
        "fields of:        keda*/scale",
        "while owned by:   kube-controller-manager/scale",
        "group (core), kind ConfigMap, name try-*",
        "ignore, created anew when deleted",
        "apiservice-ca-bundle (built-in, switched off)",
        "   GoogleCloudConsole:     the console of Google Cloud\n",
        "   deploy-bot:             configuration\n",
        "never taken for people: kubectl-rollout, kubectl-neat",
    ):
        assert words in done.output, done.output


KEPT = ["rollout-restart", "kubectl-notes", "prune-wish", "undeclared-replicas"]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("ConfigMap/shop/try-1", ["rule-1", "experiments", *KEPT, "autoscaled-replicas"]),
        ("configmap/shop/other", ["rule-1", *KEPT, "autoscaled-replicas"]),
        ("Deployment.apps/shop/web", ["tuned-by-hand", "rule-1", *KEPT, "autoscaled-replicas"]),
        (
            "ClusterRole.rbac.authorization.k8s.io/admin",
            ["rule-1", *KEPT, "autoscaled-replicas", "aggregated-cluster-roles"],
        ),
    ],
)
def test_only_the_rules_that_may_be_about_an_object(config, wanted, names):
    rules = json.loads(run(config, f"--object={wanted}", "-o", "json").output)["rules"]
    assert [rule["name"] for rule in rules] == names


@pytest.mark.parametrize("wanted", ["web", "Deployment//web", "a/b/c/d"])
def test_an_object_that_is_not_named_in_full_is_refused(wanted):
    done = run(f"--object={wanted}")
    assert done.exit_code == 2
    assert "is not KIND/NAMESPACE/NAME" in done.output


def test_a_configuration_that_cannot_be_used_is_refused_with_its_line(tmp_path):
    file = tmp_path / "driftwatch.yaml"
    file.write_text("sources: []\nignore: [{pointers: [x]}]\n")
    done = run(f"--config={file}")
    assert done.exit_code == 2
    assert f"{file}:2: ignore[0].pointers: 'x' is no JSON pointer" in done.output
