"""Every example configuration can be used as it stands."""

import re
from pathlib import Path, PurePosixPath

import pytest
import yaml
from driftwatch.config import load

CONFIG = Path(__file__).parents[2] / "config"
EXAMPLES = sorted((CONFIG / "examples").glob("*.yaml"))
DOCS = [page.read_text(encoding="utf-8") for page in (CONFIG.parent / "docs").glob("*.md")]
TLS = "/etc/driftwatch-tls"  # what components/tls mounts


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads(example):
    assert load(example).sources


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_an_example_is_explained(example):
    assert any(f"config/examples/{example.name}" in page for page in DOCS)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_the_files_of_an_example_can_be_there_in_the_pod(example):
    """They are on volumes of the base; below the ConfigMap of the configuration nothing else can be mounted."""
    pod = yaml.safe_load((CONFIG / "deploy/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    mounts = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]} - {"/etc/driftwatch"} | {TLS}
    for path in re.findall(r": (/\S+)", example.read_text(encoding="utf-8")):
        assert any(PurePosixPath(path).is_relative_to(mount) for mount in mounts), path
