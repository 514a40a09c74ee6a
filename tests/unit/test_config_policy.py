"""Ignore rules, modes and healing windows in the configuration file; what cannot hold is refused with its line."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from driftwatch.config import ConfigError, load
from driftwatch.drift.annotations import Additions
from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.model import Manifest, Mode, ObjectKey

SOURCE = "sources:\n- name: apps\n  repository: https://git.example.com/apps.git\n"
WEB = ObjectKey("apps", "Deployment", "shop", "web")


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration file and return its path."""

    def written(content: str) -> Path:
        path = tmp_path / "driftwatch.yaml"
        path.write_text(content)
        return path

    return written


def manifest(body: bytes = b'{"metadata":{"labels":{"tier":"web"}},"spec":{"replicas":2}}', **options: str) -> Manifest:
    return Manifest("apps", "v1", "Deployment", "shop", "web", body, "digest", "web.yaml", 1, options)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("ignore:\n- pointers: [spec/replicas]\n", 5, "ignore[0].pointers: 'spec/replicas' is no JSON pointer"),
        ("ignore:\n- pointers: ['/spec/~2']\n", 5, "~ stands for itself as ~0"),
        ("ignore:\n- pointers: ['']\n", 5, "'' is no JSON pointer"),
        ("ignore:\n- kind: Deployment\n  paths: ['$.spec[?']\n", 6, "ignore[0].paths: '$.spec[?' is no JSONPath"),
        ("ignore:\n- kind: Deployment\n  paths: ['$.spec[1:2']\n", 6, "is no JSONPath"),
        ("ignore:\n- paths: [$]\n", 5, "ignore[0].paths: '$' is the whole object"),
        ("ignore:\n- paths: ['$.spec | $']\n", 5, "'$.spec | $' is the whole object"),
        ("ignore:\n- paths: ['$.spec.~']\n", 5, "'$.spec.~' is no JSONPath: ~ would select the names of fields"),
        ("ignore:\n- paths: [$.metadata.name]\n  sensitive: true\n", 5, "'$.metadata.name' is left to nobody"),
        ("ignore:\n- paths: [kind]\n", 5, "'kind' is left to nobody"),
        ("ignore:\n- name: web\n  pointers:\n  - /spec\n  - /metadata/name\n", 6, "'/metadata/name' is left to nobody"),
        ("ignore:\n- pointers: [/metadata/namespace]\n", 5, "'/metadata/namespace' is left to nobody"),
        ("ignore:\n- pointers: [/apiVersion]\n", 5, "'/apiVersion' is left to nobody"),
        ("ignore:\n- pointers: [/kind]\n", 5, "'/kind' is left to nobody"),
        ("ignore:\n- pointers: [/metadata/labels/driftwatch.io~1source]\n", 5, "is left to nobody"),
        ("ignore:\n- pointers: [/metadata/annotations/driftwatch.io~1id]\n", 5, "is left to nobody"),
        ("ignore:\n- pointers: [/metadata/annotations/driftwatch.io~1desired-hash]\n", 5, "is left to nobody"),
        ("ignore:\n- managers: ['']\n", 5, "ignore[0].managers: '' names no manager"),
        ("ignore:\n- managers: [hpa, /scale]\n", 5, "'/scale' names no manager"),
        (
            "ignore:\n- {rule: mine, mode: paused}\n- mode: paused\n  rule: mine\n",
            7,
            "ignore[1].rule: two rules of this list are named 'mine'",
        ),
        ("ignore:\n- {rule: rule-2, mode: paused}\n- mode: paused\n", 6, "are named 'rule-2'"),
        (
            "  ignore:\n  - {rule: mine, mode: paused}\n  - {rule: mine, mode: paused}\n",
            6,
            "sources[0].ignore[1].rule: two rules of this list are named 'mine'",
        ),
        (
            "ignore:\n- {rule: autoscaled-replicas, pointers: [/spec/replicas]}\n",
            5,
            "ignore[0].rule: 'autoscaled-replicas' is a built-in rule, which holds beside this one",
        ),
        ("  ignore:\n  - {rule: kubectl-notes, mode: paused}\n", 5, "sources[0].ignore[0].rule: 'kubectl-notes' is a"),
        ("ignore:\n- kind: Deployment\n", 5, "ignore[0]: the rule says nothing"),
        ("ignore:\n-\n", 5, "ignore[0]: the rule says nothing"),
        ("ignore:\n- managers: [hpa]\n  sensitive: true\n", 5, "a sensitive rule needs pointers or paths"),
        ("ignore:\n- pointers: [/spec]\n  recreate: true\n", 5, "recreate goes with mode: ignore"),
        ("ignore:\n- mode: off\n", 5, "ignore[0].mode: "),
        ("ignore:\n- pointer: /spec\n", 5, "unknown key `ignore[0].pointer`"),
        ("drift:\n  additions: undo\n", 5, "drift.additions: input should be 'revert', 'report' or 'ignore'"),
        ("drift:\n  disabledRules: [hpa]\n", 5, "drift.disabledRules: 'hpa' is no built-in rule; there are aggregated"),
        ("drift:\n  maxSnooze: forever\n", 5, "'forever' is no duration"),
        ("  windows:\n  - schedule: at eight\n    duration: 1h\n", 5, "'at eight' is no cron expression"),
        ("  windows:\n  - schedule: 0 25 * * *\n    duration: 1h\n", 5, "'0 25 * * *' is no cron expression"),
        ("  windows:\n  - schedule: 0 8 * * *\n", 5, "missing key `sources[0].windows[0].duration`"),
        (
            "  windows:\n  - duration: 1h\n    schedule: 0 8 * * *\n    timezone: Mars/Base\n",
            7,
            "'Mars/Base' is no time zone",
        ),
        ("  windows:\n  - duration: 1h\n    schedule: 0 8 * * *\n    timezone: ../UTC\n", 7, "is no time zone"),
        ("  ignore:\n  - pointers: [x]\n", 5, "sources[0].ignore[0].pointers: 'x' is no JSON pointer"),
    ],
)
def test_c04_what_cannot_hold_is_refused_with_its_line(write, content, line, words):
    path = write(SOURCE + content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(f"{path}:{line}: "), said
    assert words in said


def test_lists_whose_entries_are_all_commented_out_are_empty(write):
    config = load(write(f"ignore:\n#  - kind: Job\n{SOURCE}  windows:\n  ignore:\n"))
    assert (config.ignore, config.sources[0].ignore, config.windows()) == ([], [], {})
    assert config.rules() == list(BUILT_IN_RULES)


def test_a_rule_of_the_file_holds_before_the_built_in_ones_and_is_numbered_without_a_name(write):
    rules = load(write(f"{SOURCE}ignore:\n- pointers: [/a]\n- rule: mine\n  paths: [$.b]\n")).rules()
    assert [rule.name for rule in rules[:3]] == ["rule-1", "mine", BUILT_IN_RULES[0].name]


def test_a_disabled_built_in_rule_does_not_hold(write):
    rules = load(write(f"{SOURCE}drift:\n  disabledRules: [autoscaled-replicas]\n")).rules()
    assert {rule.name for rule in BUILT_IN_RULES} - {rule.name for rule in rules} == {"autoscaled-replicas"}


def test_the_name_of_a_disabled_built_in_rule_is_free(write):
    own = "ignore:\n- {rule: autoscaled-replicas, pointers: [/spec/replicas], managers: [our-scaler]}\n"
    rules = load(write(f"{SOURCE}drift:\n  disabledRules: [autoscaled-replicas]\n{own}")).rules()
    assert [rule.built_in for rule in rules if rule.name == "autoscaled-replicas"] == [False]


def test_a_name_may_stand_in_two_lists(write):
    config = load(
        write(f"{SOURCE}  ignore:\n  - {{rule: mine, mode: paused}}\nignore:\n- {{rule: mine, mode: paused}}\n")
    )
    assert [rule.rule for rule in (*config.ignore, *config.sources[0].ignore)] == ["mine", "mine"]


@pytest.mark.parametrize(
    "path", ["$.metadata", "$.metadata.labels", "$.*", "$..name", "$.spec.kind", "$.metadata[0].name"]
)
def test_a_path_about_more_than_what_no_rule_is_about_is_taken(write, path):
    assert load(write(f"{SOURCE}ignore:\n- paths: ['{path}']\n")).ignore[0].paths == [path]


def test_a_manager_may_be_narrowed_to_a_subresource(write):
    [rule] = load(write(f"{SOURCE}ignore:\n- managers: [keda*/scale, hpa]\n")).ignore
    owners = rule.compiled("x").owners
    assert [(owner.manager, owner.subresource) for owner in owners] == [("keda*", "scale"), ("hpa", "*")]


def test_the_nearest_word_decides_about_mode_and_additions(write):
    rule = "ignore:\n- kind: Deployment\n  labels: {tier: w*}\n  mode: paused\n"
    policies = load(write(f"{SOURCE}  mode: observe\n  additions: report\n{rule}")).policies()
    other = b'{"metadata":{}}'
    assert policies.of("apps", WEB, manifest(other)).mode is Mode.OBSERVE
    assert policies.of("apps", WEB, manifest()).mode is Mode.PAUSED
    said = {"driftwatch.io/mode": "heal", "driftwatch.io/additions": "ignore"}
    policy = policies.of("apps", WEB, manifest(**said))
    assert (policy.mode, policy.additions) == (Mode.HEAL, Additions.IGNORE)
    assert policies.of("apps", WEB, manifest(other)).additions is Additions.REPORT


def test_a_source_takes_its_word_on_additions_from_the_whole_configuration(write):
    config = load(write(f"{SOURCE}- name: two\n  repository: b\n  additions: ignore\ndrift:\n  additions: report\n"))
    policies = config.policies()
    assert policies.of("apps", WEB, manifest()).additions is Additions.REPORT
    assert policies.of("two", WEB, manifest()).additions is Additions.IGNORE


def test_a_window_is_open_by_the_clock_of_its_time_zone(write):
    windows = "  windows:\n  - {schedule: 0 8 * * 1-5, duration: 10h, timezone: Europe/Berlin}\n"
    [window] = load(write(SOURCE + windows)).windows()["apps"]
    friday = datetime(2026, 7, 3, tzinfo=UTC)
    hours = [hour for hour in range(24) if window.is_open(friday.replace(hour=hour))]
    assert hours == list(range(6, 16))
    assert not window.is_open(friday.replace(day=4, hour=10))
