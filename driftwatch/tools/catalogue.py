"""Catalogue of the external tools: module, pinned version, accepted versions on PATH, and location.

A program on PATH is the operator's choice, so it wins if its version fits: the major version that driftwatch's
command lines are written for, and not older than the tested one. Otherwise the pinned version is compiled.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from driftwatch.tools import compilation
from driftwatch.tools.compilation import Recipe
from driftwatch.tools.gocommand import Purpose
from driftwatch.tools.progress import Progress, Silent

PROBE_SECONDS = 10.0
_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")


class Program(NamedTuple):
    """A program to run, and its version as `5.8.2`."""

    path: Path
    version: str


@dataclass(frozen=True)
class Tool:
    """A program of a Go module.

    `modules` is the directory of its go.mod and go.sum, `module` the module whose version is read there, `package` the
    package to compile. `oldest` is the oldest accepted version on PATH (of that major version). `stamp` is a variable
    that the linker sets to the version, `tags` are build tags. `minutes` describes the build time on two cores.
    """

    name: str
    module: str
    package: str
    modules: Traversable
    oldest: tuple[int, int]
    version_arguments: tuple[str, ...]
    stamp: str = ""
    tags: tuple[str, ...] = ()
    minutes: str = "a minute or less"

    @cached_property
    def pinned(self) -> str:
        """The version in go.mod, as `5.8.2`. Raises `ToolError`."""
        pattern = rf"^(?:require )?\s*{re.escape(self.module)} v(\S+)"
        return compilation.required(self.modules.joinpath("go.mod").read_bytes(), pattern)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that compiles it."""
        return Recipe(
            name=f"{self.name}-{self.pinned}",
            title=self.name,
            announcement=f"Compiling {self.name} {self.pinned} with Go: once, about {self.minutes} on two cores.",
            modules=self.modules,
            programs={self.name: self.package},
            purpose=Purpose(f"{self.name} {self.pinned}", f"or put {self.name} {self.fits} on PATH"),
            stamps=(f"{self.stamp}=v{self.pinned}",) if self.stamp else (),
            tags=self.tags,
        )

    @property
    def fits(self) -> str:
        """Description of the accepted versions on PATH."""
        return f"{self.oldest[0]}.{self.oldest[1]} or a later {self.oldest[0]}.x"

    def __hash__(self) -> int:
        return hash(self.name)


def _modules(name: str) -> Traversable:
    return resources.files("driftwatch.tools").joinpath("modules", name)


KUSTOMIZE = Tool(
    name="kustomize",
    module="sigs.k8s.io/kustomize/kustomize/v5",
    package="sigs.k8s.io/kustomize/kustomize/v5",
    modules=_modules("kustomize"),
    oldest=(5, 3),
    version_arguments=("version",),
)
HELM = Tool(
    name="helm",
    module="helm.sh/helm/v4",
    package="helm.sh/helm/v4/cmd/helm",
    modules=_modules("helm"),
    oldest=(4, 0),
    version_arguments=("version", "--template={{.Version}}"),
    stamp="helm.sh/helm/v4/internal/version.version",
    minutes="4 minutes",
)
SOPS = Tool(
    name="sops",
    module="github.com/getsops/sops/v3",
    package="github.com/getsops/sops/v3/cmd/sops",
    modules=_modules("sops"),
    oldest=(3, 10),
    version_arguments=("--disable-version-check", "--version"),
    minutes="4 minutes",
)
TOOLS = {tool.name: tool for tool in (KUSTOMIZE, HELM, SOPS)}


def ensure(tool: Tool, progress: Progress | None = None) -> Program:
    """Find the tool, or compile it, which takes minutes. Raises `ToolError`."""
    progress = progress or Silent()
    installed = shutil.which(tool.name)
    if installed is not None:
        found = _version(Path(installed).absolute(), tool)
        if _fits(found, tool):
            return Program(Path(installed).absolute(), found)
        said = found or "of an unknown version"
        progress.note(f"{installed} is not used: it is {said}, and {tool.fits} is wanted.")
    return Program(compilation.ensure_compiled(tool.recipe, progress) / tool.name, tool.pinned)


def _fits(version: str, tool: Tool) -> bool:
    match = _VERSION.match(version)
    return match is not None and int(match[1]) == tool.oldest[0] and int(match[2]) >= tool.oldest[1]


def _version(path: Path, tool: Tool) -> str:
    """The version that the program prints; "" if it does not answer in time."""
    try:
        asked = subprocess.run(
            [path, *tool.version_arguments],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.defpath, "HOME": "/nonexistent"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    match = _VERSION.search(asked.stdout)
    return match[0].removeprefix("v") if match else ""
