"""Maps a tool's output to files: each document goes to the repository file that it comes from.

A rendered snapshot thus has the repository's own paths, errors point to the file to fix, and a commit that changes
the output of one template changes one file. A comment before each document gives its source line, as exactly as the
tool reports it; a header in the file describes the format.
"""

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

HEADER = "# driftwatch: rendered by "
LINE = "# driftwatch: line "
SEPARATOR = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)

_KIND = re.compile(r"^kind:[ \t]*['\"]?(\w+)", re.MULTILINE)
_NAME = re.compile(r"^[ ]+name:[ \t]*['\"]?([\w.-]+)", re.MULTILINE)
_CONTENT = re.compile(r"^(?!---|[ \t]*#|[ \t]*\{\{|[ \t]*\r?$)", re.MULTILINE)


class Piece(NamedTuple):
    """One rendered document: its text, and the file and line that it comes from."""

    file: str
    line: int
    text: str


def documents(output: str) -> list[str]:
    """The documents of a tool's output, without separators. Empty and comment-only ones are omitted."""
    starts = [0, *(match.end() for match in SEPARATOR.finditer(output)), len(output) + 3]
    parts = [output[start : end - 3] for start, end in itertools.pairwise(starts)]
    return [part.strip("\r\n") + "\n" for part in parts if _has_content(part)]


def files(tool: str, pieces: Iterable[Piece]) -> dict[str, bytes]:
    """One file for each file that a piece comes from."""
    texts: dict[str, list[str]] = {}
    for piece in pieces:
        texts.setdefault(piece.file, [f"{HEADER}{tool}\n"]).append(f"---\n{LINE}{piece.line}\n{piece.text}")
    return {file: "".join(parts).encode() for file, parts in texts.items()}


def line_in(origin: str, document: str) -> int:
    """The line at which a rendered document begins in its source text; 1 if unknown."""
    kind = _KIND.search(document)
    if kind is None:
        return 1
    found = [start for start, part in _parts(origin) if (other := _KIND.search(part)) and other[1] == kind[1]]
    if len(found) > 1 and (name := _NAME.search(document)):
        parts = dict(_parts(origin))
        named = [start for start in found if any(other in name[1] for other in _NAME.findall(parts[start])[:1])]
        found = named if len(named) == 1 else found[:0]
    if len(found) != 1:
        return 1
    content = _CONTENT.search(origin, found[0])
    return origin.count("\n", 0, content.start() if content else found[0]) + 1


def _parts(text: str) -> list[tuple[int, str]]:
    starts = [0, *(match.start() for match in SEPARATOR.finditer(text)), len(text)]
    return [(start, text[start:end]) for start, end in itertools.pairwise(starts)]


def _has_content(part: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("#") for line in part.splitlines())
