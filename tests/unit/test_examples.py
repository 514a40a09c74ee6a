"""Every example configuration can be used as it stands."""

from pathlib import Path

import pytest
from driftwatch.config import load

EXAMPLES = sorted((Path(__file__).parents[2] / "config/examples").glob("*.yaml"))
SOURCES = (Path(__file__).parents[2] / "docs/sources.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads(example):
    assert load(example).sources


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_explained(example):
    assert f"config/examples/{example.name}" in SOURCES
