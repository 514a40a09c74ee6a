"""The Containerfile as far as it can be checked without an engine that builds it."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from driftwatch.tools import TOOLS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "config/Containerfile"


def _instructions() -> list[tuple[str, str]]:
    """Instructions and their arguments, comments left out and continued lines joined."""
    lines = [line for line in FILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in joined.splitlines() if line.strip()]


INSTRUCTIONS = _instructions()
STAGES = [index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM"]
LAST = INSTRUCTIONS[STAGES[-1] :]


def _last(name: str) -> str:
    return [argument for instruction, argument in LAST if instruction == name][-1]


def _deployment() -> dict:
    return yaml.safe_load((ROOT / "config/deploy/base/deployment.yaml").read_text())["spec"]["template"]["spec"]


def test_instructions_are_known() -> None:
    """Nothing is misspelled, and ADD, which fetches and unpacks what nobody has checked, is not used."""
    known = {"FROM", "ENV", "COPY", "RUN", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in INSTRUCTIONS} <= known


def test_everything_that_is_copied_is_there() -> None:
    """Sources of COPY are files of the repository, or stages of this file."""
    stages = {argument.split()[-1] for name, argument in INSTRUCTIONS if name == "FROM" and " AS " in argument}
    for name, argument in INSTRUCTIONS:
        if name != "COPY":
            continue
        words = argument.split()
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
            continue
        for source in words[:-1]:
            assert (ROOT / source).exists(), source


def test_base_images_are_pinned_and_fit_what_is_built() -> None:
    """Each has a version; Python's and Go's are what pyproject.toml and the modules ask for."""
    images = [argument.split()[0] for name, argument in INSTRUCTIONS if name == "FROM"]
    assert all(re.search(r":\d", image) for image in images)
    python = next(image for image in images if "python" in image)
    assert tuple(map(int, re.findall(r":(\d+)\.(\d+)", python)[0])) >= (3, 11)
    assert len({image for image in images if "python" in image}) == 1, "the venv is used where it was made"
    go = tuple(map(int, re.findall(r"golang:(\d+)\.(\d+)", " ".join(images))[0]))
    for module in (ROOT / "driftwatch/tools/modules").glob("*/go.mod"):
        wanted = tuple(map(int, re.findall(r"^go (\d+)\.(\d+)", module.read_text(), re.MULTILINE)[0]))
        assert go >= wanted, module


def test_tools_that_are_compiled_are_those_of_the_catalogue() -> None:
    """Each tool of driftwatch is built, from the package that the catalogue names."""
    run = next(argument for name, argument in INSTRUCTIONS if name == "RUN" and "go build" in argument)
    words = shlex.split(run)
    for tool in TOOLS.values():
        assert f"/modules/{tool.name}" in words
        assert f"/out/{tool.name}" in words
        assert tool.package in words
        assert f"{tool.stamp}=" in run


def test_it_runs_as_the_deployment_says() -> None:
    """By number, so that Kubernetes can tell that it is not root; with the Deployment's uid, arguments and folders."""
    pod = _deployment()
    (container,) = pod["containers"]
    context = pod["securityContext"]
    assert _last("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert f"--uid {context['runAsUser']}" in _last("RUN")
    assert _last("ENTRYPOINT") == '["/usr/bin/tini", "--", "driftwatch"]'
    assert container["args"][0] == "run"
    assert container["args"][:2] == yaml.safe_load(_last("CMD"))[:2]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert mounts == {"/var/lib/driftwatch", "/tmp"}
    assert _last("WORKDIR") == "/var/lib/driftwatch"
    assert _last("EXPOSE") == str(container["ports"][0]["containerPort"])


@pytest.mark.parametrize("package", ["git", "openssh-client", "gnupg", "tini", "ca-certificates"])
def test_programs_that_the_daemon_calls_are_installed(package: str) -> None:
    """And nothing of the package lists stays in the image."""
    run = _last("RUN")
    assert package in run.split()
    assert "--no-install-recommends" in run
    assert "rm -rf /var/lib/apt/lists/*" in run
