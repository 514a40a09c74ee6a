"""Where the programs of the control plane are taken from, and what is said when there are none.

The programs here are scripts that say a version, for a version that does not fit is a fault that the real ones, which
the integration tests use, do not have.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driftwatch.localcluster import BinariesError, binaries, compilation, ensure_binaries

KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kubectl")


class Notes:
    """Keeps what is reported."""

    def __init__(self):
        self.notes = []
        self.last = None

    def note(self, text):
        self.notes.append(text)

    def advance(self, text, done, total):
        self.last = (text, done, total)


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def programs(folder: Path, version: str = "v1.36.3", etcd: str = "3.6.8", **other: str) -> Path:
    for name in KUBERNETES:
        found = other.get(name.replace("-", "_"), version)
        said = f'{{"clientVersion": {{"gitVersion": "{found}"}}}}' if name == "kubectl" else f"Kubernetes {found}"
        script(folder / name, f"echo '{said}'")
    script(folder / "etcd", f"echo 'etcd Version: {etcd}'; echo 'Git SHA: 1'")
    return folder


def go(folder: Path, version: str = "go1.99.1", build: str = "", listing: str = "echo fmt; echo os; echo net") -> Path:
    """Stand in for a compiler that takes no time; its calls are counted in the file `calls`."""
    # A program is named by its package, as the real one does.
    build = build or f"for name in {' '.join(KUBERNETES)} server; do echo $name; echo built > $output$name; done"
    script(
        folder / "go",
        f"""
        echo "$1" >> {folder}/calls
        for argument; do case $argument in -o=*) output=${{argument#-o=}}; /bin/mkdir -p $output;; esac; done
        case $1 in
          env) echo {version};;
          list) {listing};;
          build) {build};;
        esac""",
    )
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Leave nothing to be found: no assets, an empty cache, an empty PATH."""
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    (tmp_path / "path").mkdir()


def test_assets_are_preferred_to_path(tmp_path, monkeypatch):
    """The folder that the user names wins."""
    programs(tmp_path / "path")
    assets = programs(tmp_path / "assets", version="v1.35.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))

    found = ensure_binaries()

    assert found.kubectl == assets / "kubectl"
    assert found.kube_controller_manager == assets / "kube-controller-manager"
    assert (found.kubernetes_version, found.etcd_version) == ("v1.35.0", "3.6.8")


def test_unfit_assets_are_named_and_passed_over(tmp_path, monkeypatch):
    """A person who set the variable learns why it has no effect."""
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(programs(tmp_path / "assets")))
    (tmp_path / "assets" / "kube-controller-manager").unlink()
    programs(tmp_path / "path")
    notes = Notes()

    assert ensure_binaries(notes).etcd == tmp_path / "path" / "etcd"

    assert notes.notes == ["KUBEBUILDER_ASSETS is not used: kube-controller-manager is not there."]


@pytest.mark.parametrize(
    ("versions", "complaint"),
    [
        ({"kubectl": "v1.32.4-dispatcher"}, "kubectl is v1.32.4-dispatcher, and 1.34 is the oldest that fits"),
        ({"etcd": "3.4.9"}, "etcd is 3.4.9, and 3.5 is the oldest that fits"),
        ({"kube_apiserver": "v1.35.1"}, "the versions differ"),
        ({"kube_apiserver": "of unknown origin"}, "kube-apiserver is of, and 1.34"),
    ],
)
def test_unfit_versions_on_path_are_rejected(tmp_path, versions, complaint):
    """Programs that happen to be installed are used only if they fit."""
    programs(tmp_path / "path", **versions)
    notes = Notes()

    with pytest.raises(BinariesError, match="no `go` on PATH"):
        ensure_binaries(notes)

    assert complaint in notes.notes[0]


def test_program_that_does_not_answer_is_rejected(tmp_path, monkeypatch):
    """A wrapper that waits for something does not hold up everything."""
    monkeypatch.setattr(binaries, "PROBE_SECONDS", 0.2)
    programs(tmp_path / "path")
    script(tmp_path / "path" / "kube-apiserver", "exec /bin/sleep 60")
    notes = Notes()

    with pytest.raises(BinariesError):
        ensure_binaries(notes)

    assert "kube-apiserver did not tell its version" in notes.notes[0]


def test_missing_go_is_explained():
    """The message says what to install, of which version, and what else would do."""
    with pytest.raises(BinariesError) as error:
        ensure_binaries()

    assert f"Go {compilation.versions().go} or newer" in str(error.value)
    assert "https://go.dev/dl/" in str(error.value)
    assert "KUBEBUILDER_ASSETS" in str(error.value)


@pytest.mark.parametrize("version", ["go1.19", "go1.25.9", "devel +abc"])
def test_old_go_is_explained(tmp_path, version):
    """The message says which Go was found, and that it is too old."""
    go(tmp_path / "path", version=f"'{version}'")

    with pytest.raises(BinariesError) as error:
        ensure_binaries()

    assert f"Go {compilation.versions().go} or newer" in str(error.value)
    assert (version.removeprefix("go") if version.startswith("go") else "of an unknown version") in str(error.value)
    assert (tmp_path / "path" / "calls").read_text().split() == ["env"]


def test_failed_build_shows_the_compilers_words(tmp_path):
    """What `go` said last is in the message, and nothing is left in the cache that looks like programs."""
    go(tmp_path / "path", build="echo 'k8s.io/api: dial tcp: no route to host' >&2; exit 1")

    with pytest.raises(BinariesError, match="no route to host") as error:
        ensure_binaries()

    assert "GOPROXY" in str(error.value)
    assert compilation.cached() is None
    assert [item.name for item in (tmp_path / "cache" / "driftwatch").iterdir()] == ["build.lock"]


def test_programs_are_compiled_once(tmp_path):
    """The first call compiles and shows how far it is; the second finds the programs in the cache, without go."""
    folder = go(tmp_path / "path")
    notes = Notes()

    first = ensure_binaries(notes)
    (folder / "go").unlink()

    assert ensure_binaries() == first
    assert first.etcd.read_text() == "built\n"
    assert notes.last == ("Compiling the control plane", 3, 3)
    assert first.kubernetes_version == compilation.versions().kubernetes
    assert first.kubectl.is_relative_to(tmp_path / "cache" / "driftwatch")


def test_two_processes_compile_once(tmp_path):
    """The second waits for the first, and uses what that made."""
    folder = go(tmp_path / "path", listing="/bin/sleep 0.5; echo fmt")
    source = "from driftwatch.localcluster import ensure_binaries; print(ensure_binaries().kubectl)"
    running = [
        subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, env=os.environ) for _ in range(2)
    ]

    said = {process.communicate(timeout=30)[0] for process in running}

    assert len(said) == 1
    assert (folder / "calls").read_text().split() == ["env", "list", "build"]
