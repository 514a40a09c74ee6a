"""Every example configuration can be used as it stands."""

from pathlib import Path

import pytest
from driftwatch.config import load

EXAMPLES = sorted((Path(__file__).parents[2] / "config/examples").glob("*.yaml"))
DOCS = [page.read_text(encoding="utf-8") for page in (Path(__file__).parents[2] / "docs").glob("*.md")]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads(example):
    assert load(example).sources


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_explained(example):
    assert any(f"config/examples/{example.name}" in page for page in DOCS)
