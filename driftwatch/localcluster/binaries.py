"""Finds the control plane's programs, and compiles them if they are not installed.

Search order: the directory `$KUBEBUILDER_ASSETS`, the user's cache, `PATH`. A location counts only if it has all four
programs in matching versions. Kubernetes supports its programs together only at like versions (a controller manager
must not be newer than its API server), and an incomplete location is more often an accident than intended.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from driftwatch.localcluster import compilation
from driftwatch.localcluster.compilation import PROGRAMS
from driftwatch.tools.progress import Progress, Silent

# driftwatch's assumptions about Kubernetes were measured with 1.36. Upstream no longer supports versions before
# 1.34, and the controllers named in our command lines exist since 1.34.
OLDEST_KUBERNETES = (1, 34)
# The oldest version that upstream maintains; Kubernetes 1.34 requires no less.
OLDEST_ETCD = (3, 5)
PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Binaries:
    """Paths of the programs, and the versions that they print (`v1.36.3`, `3.6.8`)."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    kubernetes_version: str
    etcd_version: str


class UnfitError(Exception):
    """A location lacks a program, or has an unsuitable version; the message says which."""


def ensure_binaries(progress: Progress | None = None) -> Binaries:
    """Find the programs. Compile them, which takes minutes, if no location has them. Raises `BinariesError`."""
    progress = progress or Silent()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        try:
            return _probed({name: Path(assets, name) for name in PROGRAMS})
        except UnfitError as why:
            progress.note(f"KUBEBUILDER_ASSETS is not used: {why}.")
    if compilation.cached() is None:
        try:
            return _probed({name: Path(shutil.which(name) or name) for name in PROGRAMS})
        except UnfitError as why:
            progress.note(f"The programs on PATH are not used: {why}.")
    return _compiled(compilation.ensure_compiled(progress))


def _compiled(folder: Path) -> Binaries:
    """The cached programs. Their directory is named by version, so no program has to be run."""
    versions = compilation.versions()
    return _binaries({name: folder / name for name in PROGRAMS}, versions.kubernetes, versions.etcd.removeprefix("v"))


def _probed(paths: dict[str, Path]) -> Binaries:
    """The programs at `paths`, after running each for its version. Raises `UnfitError`."""
    for name, path in paths.items():
        if not path.is_file():
            raise UnfitError(f"{name} is not there")
    found = {name: _version(name, path) for name, path in paths.items()}
    for name, text in found.items():
        oldest = OLDEST_ETCD if name == "etcd" else OLDEST_KUBERNETES
        if _minor(text) < oldest:
            raise UnfitError(f"{name} is {text}, and {oldest[0]}.{oldest[1]} is the oldest that fits")
    if len({_minor(found[name]) for name in PROGRAMS[1:]}) > 1:
        raise UnfitError("the versions differ: " + ", ".join(f"{name} {found[name]}" for name in PROGRAMS[1:]))
    return _binaries(paths, found["kube-apiserver"], found["etcd"])


def _binaries(paths: dict[str, Path], kubernetes: str, etcd: str) -> Binaries:
    absolute = {name: path.absolute() for name, path in paths.items()}
    return Binaries(
        etcd=absolute["etcd"],
        kube_apiserver=absolute["kube-apiserver"],
        kube_controller_manager=absolute["kube-controller-manager"],
        kubectl=absolute["kubectl"],
        kubernetes_version=kubernetes,
        etcd_version=etcd,
    )


def _version(name: str, path: Path) -> str:
    """The version that the program prints. Raises `UnfitError` if it does not answer in time."""
    arguments = ["version", "--client", "--output=json"] if name == "kubectl" else ["--version"]
    try:
        asked = subprocess.run(
            [path, *arguments],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        if name == "kubectl":
            return str(json.loads(asked.stdout)["clientVersion"]["gitVersion"])
    except subprocess.TimeoutExpired:
        raise UnfitError(f"{name} did not tell its version within {PROBE_SECONDS:.0f} s") from None
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
        raise UnfitError(f"{name} does not tell its version ({error})") from error
    match = re.search(r"(?:Kubernetes|etcd Version:) (\S+)", asked.stdout)
    if match is None:
        raise UnfitError(f"{name} does not tell its version")
    return match[1]


def _minor(version: str) -> tuple[int, int]:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
