"""Where a tool comes from: PATH when the version fits, else the cache, compiled once from its Go module.

The compiler and the installed tools are scripts here, for a version that does not fit is no fault of the real ones,
which the rendering tests use.
"""

from pathlib import Path

import pytest
from driftwatch.tools import HELM, KUSTOMIZE, SOPS, TOOLS, ToolError, compilation, ensure

from tests.support import tools as test_tools
from tests.unit.test_localcluster_binaries import Notes, script


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Leave nothing to be found: an empty cache, an empty PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()


def go(folder: Path, package: str) -> None:
    """Stand in for a compiler that takes no time."""
    script(
        folder / "go",
        f"""
        echo "$@" >> {folder}/calls
        for argument; do case $argument in -o=*) output=${{argument#-o=}}; /bin/mkdir -p $output;; esac; done
        case $1 in
          env) echo go1.99.1;;
          list) echo fmt;;
          build) echo built > $output/{package};;
        esac""",
    )


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        (KUSTOMIZE, "v5.4.1"),
        (KUSTOMIZE, "{Version:kustomize/v5.3.0 GitCommit:x BuildDate:2024-01-01T00:00:00Z GoOs:linux}"),
        (HELM, "v4.1.0"),
        (SOPS, "sops 3.11.0"),
    ],
)
def test_an_installed_tool_of_a_fitting_version_is_used(tmp_path, tool, said):
    """What the operator installed wins, and says its own version."""
    script(tmp_path / "path" / tool.name, f"echo '{said}'")
    found = ensure(tool)
    assert found.path == tmp_path / "path" / tool.name
    assert found.version in said


@pytest.mark.parametrize(("tool", "said"), [(KUSTOMIZE, "v4.5.7"), (HELM, "v3.19.0"), (SOPS, "sops 3.7.3")])
def test_an_installed_tool_of_another_version_is_named_and_the_pinned_one_compiled(tmp_path, tool, said):
    """Its output could differ from what was tested, so it is not used, and one learns why."""
    script(tmp_path / "path" / tool.name, f"echo '{said}'")
    go(tmp_path / "path", tool.name)
    notes = Notes()
    found = ensure(tool, notes)
    assert found.version == tool.pinned
    assert found.path.is_relative_to(tmp_path / "cache" / "driftwatch")
    assert notes.notes[0].startswith(f"{tmp_path}/path/{tool.name} is not used: it is ")
    (tmp_path / "path" / "go").unlink()
    assert ensure(tool) == found


def test_a_tool_that_is_nowhere_is_explained_without_go():
    """The message names the tool, the Go that would compile it, and what else would do."""
    with pytest.raises(ToolError) as error:
        ensure(HELM)
    said = str(error.value)
    assert f"helm {HELM.pinned} is compiled with Go" in said
    assert "put helm 4.0 or a later 4.x on PATH" in said


def test_a_tools_build_tags_reach_the_compiler(tmp_path):
    """Prometheus is compiled without the clouds' service discovery, both when its packages are counted and built."""
    go(tmp_path / "path", "prometheus")
    ensure(test_tools.PROMETHEUS)
    calls = (tmp_path / "path" / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls if "-tags=grpcnotrace,remove_all_sd" in call] == ["list", "build"]


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_every_tool_is_pinned_by_its_module(tool):
    """go.mod and go.sum are there, and the pinned version is one that would fit on PATH."""
    assert tool.pinned.startswith(f"{tool.oldest[0]}.")
    assert compilation.folder_of(tool.recipe).name.startswith(f"{tool.name}-{tool.pinned}-")
