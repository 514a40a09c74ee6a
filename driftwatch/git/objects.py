"""Reads trees and blobs of a commit from the object database.

Blobs are read with one git process per 32 MB, not one per blob: a commit may have ten thousand. File names are bytes
in Git and may contain anything, including newlines; here they are text that prints on one line.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from driftwatch.git.errors import MirrorCorrupt
from driftwatch.git.runner import Failed, GitRunner

_BATCH_BYTES = 32 * 1024 * 1024
_FILE_MODES = ("100644", "100755", "100664")


class Entry(NamedTuple):
    """One entry of a tree. `size` is in bytes, and 0 for anything but a blob."""

    path: str
    blob: str
    mode: str
    size: int

    @property
    def is_file(self) -> bool:
        """Whether the entry is a regular file, not a symbolic link or submodule."""
        return self.mode in _FILE_MODES


def tree(runner: GitRunner, commit: str, path: str) -> list[Entry]:
    """Every entry below `path` at `commit`, recursively, in Git's order."""
    arguments = ["ls-tree", "-r", "-z", "-l", "--full-tree", commit]
    listing = _read(runner, [*arguments, "--", path] if path else arguments)
    entries = []
    for line in listing.split(b"\0"):
        if line:
            facts, _, name = line.partition(b"\t")
            mode, _, blob, size = facts.decode().split()
            entries.append(Entry(printable(name), blob, mode, int(size) if size.isdigit() else 0))
    return entries


def printable(name: bytes) -> str:
    """A file name as one line of text. Control characters and bytes that are not UTF-8 are escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def blobs(runner: GitRunner, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Contents of `entries`, in order. Raises `MirrorCorrupt` when the database lacks one."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        if size >= _BATCH_BYTES:
            yield from _batch(runner, batch)
            batch, size = [], 0
    if batch:
        yield from _batch(runner, batch)


def _batch(runner: GitRunner, entries: list[Entry]) -> Iterator[tuple[Entry, bytes]]:
    names = "".join(f"{entry.blob}\n" for entry in entries).encode()
    output = _read(runner, ["cat-file", "--batch"], names)
    position = 0
    for entry in entries:
        end = output.find(b"\n", position)
        header = output[position:end].split() if end >= 0 else []
        if len(header) != 3 or header[1] != b"blob":  # noqa: PLR2004  "<id> blob <size>"
            raise MirrorCorrupt(f"the mirror lacks the contents of {entry.path}")
        size = int(header[2])
        yield entry, output[end + 1 : end + 1 + size]
        position = end + 1 + size + 1


def _read(runner: GitRunner, arguments: list[str], stdin: bytes | None = None) -> bytes:
    try:
        return runner.run(arguments, stdin=stdin)
    except Failed as error:
        raise MirrorCorrupt(f"the mirror cannot be read: {error}") from error
