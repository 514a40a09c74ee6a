"""What is pending (variables, a cluster upgrade, a chart, a rendering) stays pending until it was read."""

import pytest
from driftwatch.git.errors import MirrorCorrupt, RenderError
from driftwatch.git.repository import Repository
from driftwatch.git.runner import TimedOut
from driftwatch.render import renderer
from driftwatch.source_spec import ClusterCapabilities, HelmSpec, VariablesFrom

from tests.support.desired_origin import config_map
from tests.support.followed import Followed
from tests.support.rendering import CHART, Source, found


def _variables(value):
    return ClusterCapabilities(variables={"shop": {"A": value}})


def _once(monkeypatch, owner, name, error):
    """Let the next call of a method fail."""
    real = getattr(owner, name)

    def fails(*_arguments, **_options):
        monkeypatch.setattr(owner, name, real)
        raise error

    monkeypatch.setattr(owner, name, fails)


def _look_again(source):
    """Make the next look at the same commit, as the process does."""
    return source.look() if source.snapshots.is_stale() else None


def test_h08_changed_variables_are_taken_in_after_a_look_that_failed(tmp_path, monkeypatch):
    """The mirror cannot be read once; the next look reads the file with the new variables."""
    source = Source(tmp_path, variables_from=(VariablesFrom("ConfigMap", "n", "vars"),))
    source.snapshots.surround(_variables("one"))
    source.commit({"a.yaml": config_map("a", a="${A}")})
    source.snapshots.surround(_variables("two"))
    _once(monkeypatch, Repository, "blobs", TimedOut("git cat-file did not answer"))
    with pytest.raises(TimedOut):
        _look_again(source)
    change = _look_again(source)
    assert change is not None
    assert found(change)["ConfigMap/a"]["data"] == {"a": "two"}
    assert not source.snapshots.is_stale()


@pytest.fixture
def charted(tmp_path):
    source = Source(tmp_path, kind="helm", helm=HelmSpec(chart="shop", values="extra: true"))
    source.snapshots.surround(ClusterCapabilities(kube_version="1.35.0"))
    source.commit(CHART)
    return source


def test_h08_a_cluster_upgrade_is_rendered_for_after_a_look_that_failed(charted, monkeypatch):
    """The disk is full once; the next look renders for the new version."""
    charted.snapshots.surround(ClusterCapabilities(kube_version="1.36.0"))
    _once(monkeypatch, renderer.Workspace, "create", OSError(28, "No space left on device", "/x"))
    with pytest.raises(RenderError):
        _look_again(charted)
    change = _look_again(charted)
    assert change is not None
    assert found(change)["ConfigMap/extra"]["data"]["kube"] == "v1.36.0"
    assert not charted.snapshots.is_stale()


def test_h08_a_rendering_that_cannot_be_read_is_read_at_the_next_look(charted, monkeypatch):
    """The tool has run for the new version, and reading its output fails once."""
    charted.snapshots.surround(ClusterCapabilities(kube_version="1.36.0"))
    _once(monkeypatch, renderer.Store, "keep_good", TimedOut("git update-ref did not answer"))
    with pytest.raises(TimedOut):
        _look_again(charted)
    change = _look_again(charted)
    assert change is not None
    assert found(change)["ConfigMap/extra"]["data"]["kube"] == "v1.36.0"


def test_h08_a_source_that_serves_its_last_rendering_renders_when_the_tool_is_back(charted, monkeypatch):
    """The tool is missing at a restart; the rendering on disk serves, and outlives that restart."""
    commit = charted.origin.git("rev-parse", "HEAD")
    charted.restart()
    charted.snapshots.surround(ClusterCapabilities(kube_version="1.36.0"))
    _once(monkeypatch, renderer, "program", RenderError("helm is missing", passes=True))
    charted.repository.sync()
    with pytest.raises(RenderError):
        charted.snapshots.at(commit)
    served = charted.snapshots.at(commit, last_rendered=True)
    assert found(served)["ConfigMap/extra"]["data"]["kube"] == "v1.35.0"
    change = _look_again(charted)
    assert change is not None
    assert found(change)["ConfigMap/extra"]["data"]["kube"] == "v1.36.0"


def test_h08_a_second_declaration_that_cannot_be_read_is_no_silent_gap(tmp_path, monkeypatch):
    """The first declaration leaves Git and the mirror lacks the text of the second: the look fails, and is repeated."""
    source = Followed(tmp_path)
    source.commit({"a.yaml": config_map("x", a="1"), "b.yaml": config_map("x", a="2")})
    source.origin.commit({"a.yaml": None})
    commit = source.repository.sync()
    reads = []
    real = Repository.blobs

    def lacks(self, entries):
        if entries:
            reads.append(entries)
            raise MirrorCorrupt("the mirror lacks the contents of b.yaml")
        return real(self, entries)

    monkeypatch.setattr(Repository, "blobs", lacks)
    with pytest.raises(MirrorCorrupt):
        source.snapshots.at(commit)
    monkeypatch.setattr(Repository, "blobs", real)
    change = source.snapshots.at(commit)
    assert found(change)["ConfigMap/x"]["data"] == {"a": "2"}
