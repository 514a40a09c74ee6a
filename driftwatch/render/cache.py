"""Cache of rendered trees and fetched charts, kept in the source's mirror.

Entries are Git objects like everything else in the mirror: a snapshot reads a rendered tree like a plain one, damage
is detected, and unreferenced objects are garbage-collected. A ref's name contains a digest of all inputs, so looking
up the ref is the whole cache lookup.
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
    """The rendered trees and charts in a source's mirror."""

    def __init__(self, repository: Repository, source: str) -> None:
        self._repository = repository
        self._good = f"{_GOOD}{source}"

    def tree(self, key: str) -> list[Entry] | None:
        """The rendered files for `key`, None if they are not cached."""
        return self._entries(f"{_TREES}{key}")

    def keep_tree(self, key: str, files: Mapping[str, bytes]) -> list[Entry]:
        """Write rendered files. They stay as long as `needed` lists them."""
        ref = f"{_TREES}{key}"
        self._repository.run(["fast-import", "--quiet", "--force", "--done"], _stream(ref, files))
        return self._entries(ref) or []

    def good(self) -> list[Entry] | None:
        """The files that were enforced last, also before a restart."""
        return self._entries(self._good)

    def keep_good(self, key: str) -> None:
        """Record which rendering is enforced."""
        self._repository.run(["update-ref", self._good, f"{_TREES}{key}"])

    def chart(self, key: str) -> str | None:
        """The blob of a chart archive that was fetched before, or None."""
        name = f"{_CHARTS}{key}^{{blob}}"
        if not self._repository.has(name):
            return None
        return self._repository.run(["rev-parse", "--verify", "--quiet", name]).decode().strip()

    def keep_chart(self, key: str, archive: bytes) -> str:
        """Write a chart archive. Returns its blob."""
        blob = self._repository.run(["hash-object", "-w", "--stdin"], archive).decode().strip()
        self._repository.run(["update-ref", f"{_CHARTS}{key}", blob])
        return blob

    def archive(self, blob: str) -> bytes:
        """Content of a chart archive. Raises `MirrorCorrupt`."""
        [(_, data)] = self._repository.blobs([Entry("chart", blob, "100644", 0)])
        return data

    def needed(self, tree_key: str, chart_key: str) -> None:
        """Set what the next garbage collection keeps: these keys, and the enforced rendering."""
        self._repository.also_needed = {f"{_TREES}{tree_key}", f"{_CHARTS}{chart_key}", self._good}

    def _entries(self, ref: str) -> list[Entry] | None:
        return self._repository.tree_of(ref) if self._repository.has(f"{ref}^{{tree}}") else None


def _stream(ref: str, files: Mapping[str, bytes]) -> bytes:
    """A `git fast-import` stream: one commit with these files and no parent."""
    parts: list[bytes] = []
    for number, data in enumerate(files.values(), start=1):
        parts.append(b"blob\nmark :%d\ndata %d\n%b\n" % (number, len(data), data))
    parts.append(f"reset {ref}\ncommit {ref}\n{_WHO}\ndata 0\ndeleteall\n".encode())
    for number, path in enumerate(files, start=1):
        quoted = objects.printable(path.encode()).replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'M 100644 :{number} "{quoted}"\n'.encode())
    parts.append(b"done\n")
    return b"".join(parts)
