"""Rendered trees and fetched charts, kept in the source's own mirror.

They are objects of Git like everything else there: the snapshot reads a rendered tree as it reads a plain one, what is
damaged is noticed, what no ref keeps is collected. A ref is named by all that the content was made from, so that
finding it is the whole cache.
"""

from collections.abc import Mapping

from driftwatch.git import objects
from driftwatch.git.objects import Entry
from driftwatch.git.repository import Repository

_TREES = "refs/driftwatch/rendered/"
_CHARTS = "refs/driftwatch/charts/"
_GOOD = "refs/driftwatch/rendered-good/"
_WHO = "committer driftwatch <driftwatch@localhost> 0 +0000"


class Store:
    """What rendering keeps in a source's mirror."""

    def __init__(self, repository: Repository, source: str) -> None:
        self._repository = repository
        self._good = f"{_GOOD}{source}"

    def tree(self, key: str) -> list[Entry] | None:
        """The files that were rendered from what `key` stands for, None when that was never done."""
        return self._entries(f"{_TREES}{key}")

    def keep_tree(self, key: str, files: Mapping[str, bytes]) -> list[Entry]:
        """Write rendered files; they stay as long as `needed` says so."""
        ref = f"{_TREES}{key}"
        self._repository.run(["fast-import", "--quiet", "--force", "--done"], _stream(ref, files))
        return self._entries(ref) or []

    def good(self) -> list[Entry] | None:
        """The files that were in force last, also before a restart."""
        return self._entries(self._good)

    def keep_good(self, key: str) -> None:
        """Remember what is in force."""
        self._repository.run(["update-ref", self._good, f"{_TREES}{key}"])

    def chart(self, key: str) -> str | None:
        """The blob of a chart archive that was fetched before."""
        name = f"{_CHARTS}{key}^{{blob}}"
        if not self._repository.has(name):
            return None
        return self._repository.run(["rev-parse", "--verify", "--quiet", name]).decode().strip()

    def keep_chart(self, key: str, archive: bytes) -> str:
        """Write a chart archive; returns its blob."""
        blob = self._repository.run(["hash-object", "-w", "--stdin"], archive).decode().strip()
        self._repository.run(["update-ref", f"{_CHARTS}{key}", blob])
        return blob

    def archive(self, blob: str) -> bytes:
        """Content of a chart archive. Raises `MirrorCorrupt`."""
        [(_, data)] = self._repository.blobs([Entry("chart", blob, "100644", 0)])
        return data

    def needed(self, tree_key: str, chart_key: str) -> None:
        """Say what is to outlive the next tidying: this, and what is in force."""
        self._repository.also_needed = {f"{_TREES}{tree_key}", f"{_CHARTS}{chart_key}", self._good}

    def _entries(self, ref: str) -> list[Entry] | None:
        return self._repository.tree_of(ref) if self._repository.has(f"{ref}^{{tree}}") else None


def _stream(ref: str, files: Mapping[str, bytes]) -> bytes:
    """A stream for `git fast-import`: one commit with these files and no parent."""
    parts: list[bytes] = []
    for number, data in enumerate(files.values(), start=1):
        parts.append(b"blob\nmark :%d\ndata %d\n%b\n" % (number, len(data), data))
    parts.append(f"reset {ref}\ncommit {ref}\n{_WHO}\ndata 0\ndeleteall\n".encode())
    for number, path in enumerate(files, start=1):
        quoted = objects.printable(path.encode()).replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'M 100644 :{number} "{quoted}"\n'.encode())
    parts.append(b"done\n")
    return b"".join(parts)
