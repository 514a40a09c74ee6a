"""Determines which files of a commit a rendering reads. They are the cache key, and all that the tool can see.

A kustomization and a chart read their own directory and whatever they name with `../`. Everything under such a name
is included, even if it is mentioned in a comment: an extra file costs an occasional rendering, a missing one would
hide a change. A commit that touches none of these files renders nothing.
"""

import hashlib
import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from driftwatch.git.errors import RenderError
from driftwatch.git.objects import Entry
from driftwatch.manifests import yaml_documents
from driftwatch.render.worktree import LINK

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
CHART = "Chart.yaml"

_UPWARDS = re.compile(rb"(?:\.\./)+[^\s'\"#,\]}?]*|\.\.(?=[\s'\",\]}]|\Z)")
_NAMES = (".yaml", ".yml", ".json", "Kustomization", ".env", ".properties")
_READ_BYTES = 2**20
_REFERENCES = ("resources", "bases", "components", "crds", "configurations", "transformers", "generators", "validators")

Read = Callable[[Sequence[Entry]], Iterable[tuple[Entry, bytes]]]


class Files:
    """All files and links of a commit, by path."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        kept = (entry for entry in entries if entry.is_file or entry.mode == LINK)
        self._entries = {entry.path: entry for entry in kept}
        self._paths = sorted(self._entries)

    def get(self, path: str) -> Entry | None:
        """The file or link at `path`."""
        return self._entries.get(path)

    def below(self, folder: str) -> list[Entry]:
        """Every file and link below a directory ("": all), or the one with exactly this path."""
        if not folder:
            return [self._entries[path] for path in self._paths]
        if entry := self.get(folder):
            return [entry]
        first = bisect_left(self._paths, folder + "/")
        last = bisect_left(self._paths, folder + "0")  # the character after the slash
        return [self._entries[path] for path in self._paths[first:last]]


def closure(files: Files, roots: Sequence[str], read: Read) -> list[Entry]:
    """Every file and link that rendering these paths can read, sorted by path."""
    taken: dict[str, Entry] = {}
    waiting = list(roots)
    while waiting:
        new = [entry for root in waiting for entry in files.below(root) if entry.path not in taken]
        taken |= {entry.path: entry for entry in new}
        waiting = [
            path
            for entry, data in read([entry for entry in new if _may_refer(entry)])
            for path in _references(entry, data)
            if path not in taken and files.below(path)
        ]
    return [taken[path] for path in sorted(taken)]


def digest(entries: Sequence[Entry]) -> str:
    """Digest of paths and contents."""
    lines = "".join(f"{entry.mode} {entry.blob} {entry.path}\n" for entry in entries)
    return hashlib.blake2b(lines.encode(), digest_size=16).hexdigest()


def refuse_outside(entries: Sequence[Entry], read: Read) -> None:
    """Raise `RenderError` for a kustomization that refers to a path outside of the repository."""
    kustomizations = [entry for entry in entries if posixpath.basename(entry.path) in KUSTOMIZATIONS]
    for entry, data in read([one for one in kustomizations if one.is_file]):
        folder = posixpath.dirname(entry.path)
        for name in _named(data):
            if "://" not in name and (name.startswith("/") or _is_outside(posixpath.join(folder, name))):
                message = f"{entry.path}: {name} is outside of the repository; nothing outside of it is read"
                raise RenderError(message, file=entry.path, line=1)


def _named(data: bytes) -> Iterator[str]:
    for item in yaml_documents.read(data):
        if isinstance(item, yaml_documents.Document) and isinstance(item.value, dict):
            for key in _REFERENCES:
                names = item.value.get(key)
                yield from (name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _may_refer(entry: Entry) -> bool:
    return entry.mode == LINK or (entry.path.endswith(_NAMES) and entry.size <= _READ_BYTES)


def _references(entry: Entry, data: bytes) -> Iterator[str]:
    """Paths in the repository that a file may name, relative to its directory or to a parent directory."""
    folder = posixpath.dirname(entry.path)
    if entry.mode == LINK:
        yield _inside(posixpath.join(folder, data.decode("utf-8", "replace")))
        return
    for found in set(_UPWARDS.findall(data)):
        name = found.decode("utf-8", "replace").rstrip("/:;")
        base = folder
        while True:  # a transformer's file names paths relative to the kustomization above it
            if path := _inside(posixpath.join(base, name)):
                yield path
            if not base:
                break
            base = posixpath.dirname(base)


def _is_outside(path: str) -> bool:
    normal = posixpath.normpath(path)
    return normal == ".." or normal.startswith(("../", "/"))


def _inside(path: str) -> str:
    """The path without `..`; "" if it leads to the root or out of it, which matches no file."""
    normal = posixpath.normpath(path)
    return "" if normal == "." or _is_outside(path) else normal
