"""Writes the files that a tool works on from the object database into a private directory.

Git makes no work tree here, so no filter, hook or attribute of a hostile repository can run. Anything that would
lead out of the directory (a symbolic link, a name with `..`) is omitted and reported.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from driftwatch.git.errors import RenderError
from driftwatch.git.objects import Entry

MAX_BYTES = 512 * 2**20
LINK = "120000"


def write(contents: Iterable[tuple[Entry, bytes]], folder: Path) -> list[str]:
    """Write files and links below `folder`, which is recreated. Returns a description of each omitted entry.

    Raises `RenderError` when the files are too large, and when the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    links: list[tuple[str, str]] = []
    left_out = []
    size = 0
    try:
        for entry, data in contents:
            size += len(data)
            if size > MAX_BYTES:
                raise RenderError(f"the files to render have more than {MAX_BYTES >> 20} MB")
            if not _is_plain(entry.path):
                left_out.append(f"{entry.path}: no ordinary file name")
            elif entry.mode == LINK:
                links.append((entry.path, data.decode("utf-8", "surrogateescape")))
            else:
                file = folder / entry.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
        # After the files: nothing is ever written through a link.
        left_out += [f"the symbolic link {path} leads out of the repository" for path in _link(folder, links)]
    except OSError as error:
        raise RenderError(f"the files to render cannot be written: {error.strerror}: {error.filename}") from error
    return left_out


def remove(folder: Path) -> None:
    """Remove a directory that a tool may have left in any state."""
    shutil.rmtree(folder, ignore_errors=True)


def _link(folder: Path, links: list[tuple[str, str]]) -> Iterator[str]:
    """Create the links, then remove those that lead outside, which can be determined only when all exist."""
    made = []
    for path, target in links:
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if "\0" in target or not target or link.exists() or link.is_symlink():
            yield path
            continue
        link.symlink_to(target)
        made.append(path)
    root = os.path.realpath(folder)
    for path in made:
        found = os.path.realpath(folder / path)
        if found != root and not found.startswith(root + os.sep):
            (folder / path).unlink()
            yield path


def _is_plain(path: str) -> bool:
    return bool(path) and all(part not in ("", ".", "..", ".git") for part in path.split("/"))
