"""The documents say what the program does: what can be made from the code is compared with it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from driftwatch.cli import COMMANDS, root
from driftwatch.config import Config, DriftSettings, Source, load, reference
from driftwatch.config.policy import RuleConfig, WindowConfig
from driftwatch.config.values import Section
from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.drift.managers import INTERACTIVE_MANAGERS

from tests.support import metrics_page, module_map

ROOT = Path(__file__).parents[2]
MADE = [
    ("example", "config/driftwatch.example.yaml"),
    ("reference", "docs/configuration.md"),
    ("schema", "config/driftwatch.schema.json"),
]


@pytest.mark.parametrize(("what", "file"), MADE)
def test_the_committed_file_is_what_the_schema_makes(what, file):
    printed = CliRunner().invoke(root, ["config", what])
    assert printed.exit_code == 0
    committed = (ROOT / file).read_text(encoding="utf-8")
    assert committed == printed.output, f"run: driftwatch config {what} > {file}"


def test_the_example_loads_and_shows_the_defaults():
    config = load(ROOT / "config/driftwatch.example.yaml")
    [source] = config.sources
    assert config == Config.model_validate({"sources": [{"name": source.name, "repository": source.repository}]})


def with_optional_entries(text):
    """The example with every optional entry in use."""
    return re.sub("^#(?=  )", "", text, flags=re.MULTILINE)


def sections(model, written):
    """Every section of the file, as the schema has it and as it is written."""
    yield model, written
    for name, field in model.model_fields.items():
        held = written[name][0] if isinstance(written[name], list) and written[name] else written[name]
        inner = next(iter(getattr(field.annotation, "__args__", ())), field.annotation)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from sections(inner, held)


def test_the_example_has_every_key_and_its_sentence():
    text = with_optional_entries(reference.example())
    comments = " ".join(line.strip().lstrip("# ") for line in text.splitlines() if line.lstrip().startswith("#"))
    found = list(sections(Config, yaml.safe_load(text)))
    assert {RuleConfig, WindowConfig, Source, DriftSettings} <= {section for section, _ in found}
    for section, written in found:
        assert set(written) == set(section.model_fields)
        assert all(each.description in comments for each in section.model_fields.values())


def test_the_example_loads_with_its_optional_entries_in_use():
    config = Config.model_validate(yaml.safe_load(with_optional_entries(reference.example())))
    assert [rule.pointers for rule in config.ignore] == [["/spec/replicas"]]
    assert config.windows().keys() == {"apps"}


@pytest.mark.parametrize("example", sorted((ROOT / "config/examples").glob("*.yaml")), ids=lambda file: file.name)
def test_every_example_loads_and_a_page_names_it(example):
    assert load(example).sources
    assert any(f"examples/{example.name}" in page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"driftwatch {name}" not in text] == []


def test_every_setting_has_a_sentence():
    schema = reference.json_schema()
    for section in (schema, *schema["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            assert field.get("description", "").endswith("."), name


def test_the_schema_is_json_and_refuses_unknown_keys():
    schema = json.loads(reference.schema_text())
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Source"]["additionalProperties"] is False


def test_local_links_of_the_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_architecture_names_only_modules_that_are_there():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for room, table in re.findall(r"^### `(driftwatch/[a-z/]*)`\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL):
        for module in re.findall(r"^\| `(\w+\.py)`", table, re.MULTILINE):
            assert (ROOT / room / module).exists(), f"{room}{module}"


def test_the_page_on_drift_names_every_built_in_rule_with_its_owners():
    text = (ROOT / "docs/drift.md").read_text(encoding="utf-8")
    for rule in BUILT_IN_RULES:
        [row] = re.findall(rf"^\| `{rule.name}` .*", text, re.MULTILINE)
        assert all(f"`{owner.manager}" in row for owner in rule.owners)


def test_the_page_on_drift_names_everybody_who_is_taken_for_a_person():
    text = (ROOT / "docs/drift.md").read_text(encoding="utf-8")
    rows = [f"| `{pattern}` | {who} |" for pattern, who in INTERACTIVE_MANAGERS.items()]
    table = "\n".join(["| manager | who writes under it |", "|---|---|", *rows])
    assert f"\n\n{table}\n\n" in text, f"the table is:\n{table}"


def test_the_page_on_metrics_is_that_of_the_registry():
    """docs/metrics.md lists every metric with its type, labels and sentence."""
    assert metrics_page.PAGE.read_text(encoding="utf-8") == metrics_page.page(), (
        "run: python -m tests.support.metrics_page"
    )


def test_the_module_map_is_that_of_the_modules():
    """docs/modules.md lists every module with the first sentence of its docstring."""
    assert module_map.PAGE.read_text() == module_map.page(), "run: python -m tests.support.module_map"
