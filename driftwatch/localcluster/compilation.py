"""Defines the control plane's programs and their versions, for compilation.

Versions are set only in `toolchain/go.mod`.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from driftwatch.localcluster.errors import BinariesError
from driftwatch.tools import compilation
from driftwatch.tools.compilation import Recipe
from driftwatch.tools.errors import ToolError
from driftwatch.tools.gocommand import Purpose
from driftwatch.tools.progress import Progress

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
_PACKAGES = (
    "go.etcd.io/etcd/server/v3",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kubectl",
)
_PURPOSE = Purpose(
    "The local control plane",
    "or set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager and kubectl"
    " (Kubernetes 1.34 or later)",
)


@dataclass(frozen=True)
class Versions:
    """Versions in go.mod: `go` as `1.26.0`, the others as tags (`v1.36.3`)."""

    go: str
    kubernetes: str
    etcd: str


@cache
def versions() -> Versions:
    """The versions in go.mod. Raises `BinariesError`."""
    text = resources.files("driftwatch.localcluster").joinpath("toolchain", "go.mod").read_bytes()
    try:
        return Versions(
            go=compilation.required(text, r"^go (\S+)$"),
            kubernetes=compilation.required(text, r"^\s*k8s\.io/kubernetes (v\S+)"),
            etcd=compilation.required(text, r"^\s*go\.etcd\.io/etcd/server/v3 (v\S+)"),
        )
    except ToolError as error:
        raise BinariesError(f"toolchain/{error}") from error


@cache
def _recipe() -> Recipe:
    found = versions()
    return Recipe(
        name=f"kubernetes-{found.kubernetes}-etcd-{found.etcd}",
        title="the control plane",
        announcement=f"Compiling Kubernetes {found.kubernetes} and etcd {found.etcd} with Go: once, about 6 minutes on "
        "two cores.",
        modules=resources.files("driftwatch.localcluster").joinpath("toolchain"),
        programs=dict(zip(PROGRAMS, _PACKAGES, strict=True)),
        purpose=_PURPOSE,
        stamps=_stamps(found.kubernetes),
    )


def _stamps(kubernetes: str) -> tuple[str, ...]:
    """Linker variables from which kubectl knows its version, to print and compare it."""
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    values = {
        "gitVersion": kubernetes,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "",
    }
    return tuple(f"k8s.io/component-base/version.{key}={value}" for key, value in values.items())


def cached() -> Path | None:
    """The directory of programs compiled earlier, or None."""
    return compilation.cached(_recipe())


def ensure_compiled(progress: Progress) -> Path:
    """The directory of the compiled programs; compiles them if necessary. Raises `BinariesError`."""
    try:
        return compilation.ensure_compiled(_recipe(), progress)
    except ToolError as error:
        raise BinariesError(str(error)) from error
