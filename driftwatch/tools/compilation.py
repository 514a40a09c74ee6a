"""Compiles programs from Go modules, once, into the user's cache.

No upstream publishes every program for every platform, and downloads need a network that many test machines and Pods
lack, while they do have a Go module proxy. A go.mod and a go.sum pin what is compiled, and their digest is part of the
directory's name, so another version never replaces one that is in use.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from driftwatch.file_lock import LockHeldError, locked
from driftwatch.tools.errors import ToolError
from driftwatch.tools.gocommand import Purpose, go_lines, require_go
from driftwatch.tools.progress import REPORT_SECONDS, Progress

# grpcnotrace lets the linker drop unused code: a third of the size, and less to load at every start.
_TAGS = ("grpcnotrace",)

# A cold build of the control plane takes six minutes on two cores; a slow machine may need many times that.
BUILD_SECONDS = 3600.0


@dataclass(frozen=True)
class Recipe:
    """Programs compiled together. `modules` is the directory of go.mod and go.sum, `programs` maps name to package.

    `name` is the prefix of the cache directory's name and contains the versions, `title` is for progress messages,
    `announcement` is printed once before the build, `stamps` are variables that the linker sets, `tags` are build tags.
    """

    name: str
    title: str
    announcement: str
    modules: Traversable
    programs: dict[str, str]
    purpose: Purpose
    stamps: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def module_file(self, name: str) -> bytes:
        """Content of go.mod or go.sum."""
        return self.modules.joinpath(name).read_bytes()


def required(recipe_file: bytes, pattern: str) -> str:
    """The first group of the first match in a go.mod. Raises `ToolError`."""
    match = re.search(pattern, recipe_file.decode(), re.MULTILINE)
    if match is None:
        raise ToolError(f"go.mod has no line like {pattern!r}; install driftwatch again")
    return match[1]


def folder_of(recipe: Recipe) -> Path:
    """Cache directory for the programs of exactly these modules."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore relative paths.
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    digest = hashlib.sha256(recipe.module_file("go.mod") + recipe.module_file("go.sum")).hexdigest()[:12]
    return root / "driftwatch" / f"{recipe.name}-{digest}"


def cached(recipe: Recipe) -> Path | None:
    """The directory of programs compiled earlier, or None."""
    folder = folder_of(recipe)
    return folder if all((folder / name).is_file() for name in recipe.programs) else None


def ensure_compiled(recipe: Recipe, progress: Progress) -> Path:
    """The directory of the compiled programs; compiles them if necessary. Raises `ToolError`."""
    folder = cached(recipe)
    if folder is not None:
        return folder
    folder = folder_of(recipe)
    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"{root} cannot be made ({error.strerror}): set XDG_CACHE_HOME to a writable folder") from error
    lock = root / "build.lock"
    try:
        with locked(
            lock,
            BUILD_SECONDS,
            lambda: progress.note(f"Another process compiles; {recipe.title} waits for it."),
        ):
            if cached(recipe) is None:  # another process may have compiled it while we waited
                _compile(recipe, folder, progress)
    except LockHeldError:
        raise ToolError(f"{lock} was held for an hour: see who builds there, end it and try again") from None
    return folder


def _compile(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Compile in a temporary directory and rename it to `folder`, so that `folder` is complete once it exists."""
    progress.note(recipe.announcement)
    for abandoned in folder.parent.glob("build-*/"):  # of a killed process: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder.parent) as temporary:
        work = Path(temporary)
        modules, output = work / "modules", work / "programs"
        modules.mkdir()
        # Copied, because an installed package may be read-only and go locks go.mod's directory.
        for name in ("go.mod", "go.sum"):
            (modules / name).write_bytes(recipe.module_file(name))
        require_go(modules, required(recipe.module_file("go.mod"), r"^go (\S+)$"), recipe.purpose)
        title = f"Compiling {recipe.title}"
        packages = _count_packages(recipe, modules, progress)
        done = 0
        command = ["build", "-v", *_build_flags(recipe), f"-o={output}/", *recipe.programs.values()]
        with closing(go_lines(command, modules, BUILD_SECONDS, recipe.purpose)) as lines:
            for line in lines:
                if not line.startswith("go: downloading"):
                    done += 1
                    progress.advance(title, min(done, packages - 1), packages)
        progress.advance(title, packages, packages)
        for name, package in recipe.programs.items():
            (output / _named_by_go(package)).rename(output / name)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one; an intact one would have been used
        output.rename(folder)


def _named_by_go(package: str) -> str:
    """The file name that Go gives a program: the package's last element, or the one before a major version suffix."""
    *before, last = package.split("/")
    return before[-1] if re.fullmatch(r"v[0-9]+", last) else last


def _count_packages(recipe: Recipe, modules: Path, progress: Progress) -> int:
    """The number of packages to compile. Fetches the modules if necessary."""
    downloads = packages = 0
    last_report = time.monotonic()
    command = ["list", "-deps", "-mod=readonly", _tags(recipe), *recipe.programs.values()]
    with closing(go_lines(command, modules, BUILD_SECONDS, recipe.purpose)) as lines:
        for line in lines:
            if not line.startswith("go: downloading"):
                packages += 1
                continue
            downloads += 1
            if downloads == 1:
                progress.note("Fetching the Go modules.")
            elif time.monotonic() - last_report >= REPORT_SECONDS:
                last_report = time.monotonic()
                progress.note(f"Fetching the Go modules: {downloads} so far.")
    return packages


def _build_flags(recipe: Recipe) -> list[str]:
    """Build flags for small, reproducible programs with a correct version."""
    stamped = "".join(f" -X {stamp}" for stamp in recipe.stamps)
    return ["-trimpath", "-buildvcs=false", "-mod=readonly", _tags(recipe), f"-ldflags=-s -w{stamped}"]


def _tags(recipe: Recipe) -> str:
    return f"-tags={','.join((*_TAGS, *recipe.tags))}"
