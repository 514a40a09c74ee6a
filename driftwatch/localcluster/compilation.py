"""Compiles the programs of the control plane from their Go modules, once, into the user's cache.

Nobody publishes kube-controller-manager for every platform, and a test that downloads programs needs a
network that many build machines do not have; a Go module proxy they do have. `toolchain/go.mod` is the one
place that names versions.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from driftwatch.localcluster.errors import BinariesError
from driftwatch.localcluster.files import LockHeldError, locked
from driftwatch.localcluster.gocommand import go_lines, require_go
from driftwatch.localcluster.progress import REPORT_SECONDS, Progress

_PACKAGES = (
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kubectl",
    "go.etcd.io/etcd/server/v3",
)
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
# grpcnotrace lets the linker drop what nothing calls: a third of the size, and less to load at every start.
_TAGS = "-tags=grpcnotrace"

# A cold build takes six minutes on two cores; a slow machine may need many times that.
BUILD_SECONDS = 3600.0


@dataclass(frozen=True)
class Versions:
    """What go.mod asks for: `go` as `1.26.0`, the others as tags (`v1.36.3`)."""

    go: str
    kubernetes: str
    etcd: str


def _module_file(name: str) -> bytes:
    return resources.files("driftwatch.localcluster").joinpath("toolchain", name).read_bytes()


@cache
def versions() -> Versions:
    """The versions in go.mod."""
    text = _module_file("go.mod").decode()

    def find(pattern: str) -> str:
        match = re.search(pattern, text, re.MULTILINE)
        if match is None:
            raise BinariesError(f"toolchain/go.mod has no line like {pattern!r}; install driftwatch again")
        return match[1]

    return Versions(
        go=find(r"^go (\S+)$"),
        kubernetes=find(r"^\s*k8s\.io/kubernetes (v\S+)"),
        etcd=find(r"^\s*go\.etcd\.io/etcd/server/v3 (v\S+)"),
    )


def _folder() -> Path:
    """Where in the cache the programs of these very modules are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification has relative paths ignored.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    digest = hashlib.sha256(_module_file("go.mod") + _module_file("go.sum")).hexdigest()[:12]
    found = versions()
    return root / "driftwatch" / f"kubernetes-{found.kubernetes}-etcd-{found.etcd}-{digest}"


def cached() -> Path | None:
    """The folder of programs compiled earlier, if there is one."""
    folder = _folder()
    return folder if all((folder / name).is_file() for name in PROGRAMS) else None


def ensure_compiled(progress: Progress) -> Path:
    """The folder of the compiled programs, after compiling them if need be. Raises `BinariesError`."""
    folder = cached()
    if folder is not None:
        return folder
    folder = _folder()
    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BinariesError(
            f"{root} cannot be made ({error.strerror}): set XDG_CACHE_HOME to a writable folder"
        ) from error
    lock = root / "build.lock"
    try:
        with locked(
            lock,
            BUILD_SECONDS,
            lambda: progress.note("Another process compiles the control plane; waiting for it."),
        ):
            if cached() is None:  # it may have been made while we waited
                _compile(folder, progress)
    except LockHeldError:
        raise BinariesError(f"{lock} was held for an hour: see who builds there, end it and try again") from None
    return folder


def _compile(folder: Path, progress: Progress) -> None:
    """Compile beside `folder` and rename, so that `folder` is complete from the moment that it exists."""
    found = versions()
    progress.note(
        f"Compiling Kubernetes {found.kubernetes} and etcd {found.etcd} with Go: once, about 6 minutes on two cores."
    )
    for abandoned in folder.parent.glob("build-*/"):  # by a process that was killed: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as temporary:
        work = Path(temporary)
        modules, output = work / "modules", work / "programs"
        modules.mkdir()
        # Copied, because an installed package may be read-only and go wants to lock go.mod's folder.
        for name in ("go.mod", "go.sum"):
            (modules / name).write_bytes(_module_file(name))
        require_go(modules, found.go)
        packages = _count_packages(modules, progress)
        done = 0
        command = ["build", "-v", *_build_flags(), f"-o={output}/", *_PACKAGES]
        with closing(go_lines(command, modules, BUILD_SECONDS)) as lines:
            for line in lines:
                if not line.startswith("go: downloading"):
                    done += 1
                    progress.advance("Compiling the control plane", min(done, packages - 1), packages)
        progress.advance("Compiling the control plane", packages, packages)
        # go names a program by its package, and etcd's is called `server`.
        (output / "server").rename(output / "etcd")
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one; a whole one would have been used
        output.rename(folder)


def _count_packages(modules: Path, progress: Progress) -> int:
    """How many packages there are to compile. Fetches the modules on the way."""
    downloads = packages = 0
    told = time.monotonic()
    command = ["list", "-deps", "-mod=readonly", _TAGS, *_PACKAGES]
    with closing(go_lines(command, modules, BUILD_SECONDS)) as lines:
        for line in lines:
            if not line.startswith("go: downloading"):
                packages += 1
                continue
            downloads += 1
            if downloads == 1:
                progress.note("Fetching the Go modules.")
            elif time.monotonic() - told >= REPORT_SECONDS:
                told = time.monotonic()
                progress.note(f"Fetching the Go modules: {downloads} so far.")
    return packages


def _build_flags() -> list[str]:
    """What makes the programs small, the same on every machine, and sure of their version."""
    kubernetes = versions().kubernetes
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    stamps = {
        "gitVersion": kubernetes,
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": "",
    }
    stamped = " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())
    return ["-trimpath", "-buildvcs=false", "-mod=readonly", _TAGS, f"-ldflags=-s -w {stamped}"]
