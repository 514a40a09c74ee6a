"""Which file of the repository a tool's words are about, and where in it: what has to be mended.

Tools tell it in prose, and count lines now in a file, now in a document of it, now in what they have rendered. So a
name counts where the tree has such a file, and a line where helm gives it for a template. In a file that is no YAML,
the reader of manifests finds the line again.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from driftwatch.git.runner import redacted
from driftwatch.manifests import yaml_documents
from driftwatch.render.inputs import KUSTOMIZATIONS


class Place(NamedTuple):
    """A file of the repository and a line; "" and 0 where neither is known."""

    file: str = ""
    line: int = 0


_KUSTOMIZE_NAME = re.compile(
    r"(?<=')[^\s']+(?=')|(?<=File: )\S+|(?<=\(|\[)[^\s()\[\]]+(?=\)|\])|"
    r'(?<=\[path: ")[^"]+|(?<=\[path: \\")[^"\\]+'  # of a component it quotes its own quotes
)
_TEMPLATE = re.compile(r"([^\s\"'():;<>]{1,500}):(\d+)(?::\d+)?(?=[:;)\s]|\Z)")
_RENDERED = re.compile(r"YAML parse error on (\S+?):")
_OF_CHART = re.compile(r"(?:cannot load|found in) ([^\s:,]+)")
_VALUES = re.compile(r"failed to parse ([^\s:]+):")


def of_kustomize(words: str, tree: Path, folder: str) -> Place:
    """The last file that kustomize names on its way down from `folder`; else the kustomization where it ended."""
    file = ""
    for name in _KUSTOMIZE_NAME.findall(words):
        # A name is relative to the kustomization that has it, unless kustomize has made it a path of the tree.
        for path in (posixpath.normpath(posixpath.join(folder, name)), posixpath.normpath(name)):
            if _kustomization(tree, path):
                folder, file = path, ""
                break
            if _has(tree, path):
                file = path
                break
    file = file or _kustomization(tree, folder)
    return Place(file, _unreadable_line(tree / file)) if file else Place()


def of_helm(words: str, tree: Path, chart: str | None) -> Place:
    """The innermost template that helm names, or the file that it could not load.

    `chart` is the chart's folder, None for one of a chart repository, whose files are none of the source's repository.
    """
    if (values := _VALUES.search(words)) and _has(tree, values[1]):
        return Place(values[1], _unreadable_line(tree / values[1]))
    if chart is None:
        return Place()
    # The path of a template begins with the chart's name, which need not be its folder's.
    named = [(posixpath.join(chart, name.partition("/")[2]), int(line)) for name, line in _TEMPLATE.findall(words)]
    named += [(posixpath.join(chart, name.partition("/")[2]), 0) for name in _RENDERED.findall(words)[:1]]
    named += [(posixpath.join(chart, name), 0) for name in _OF_CHART.findall(words)[:1]]
    known = [Place(posixpath.normpath(path), line) for path, line in named if _has(tree, posixpath.normpath(path))]
    if not known:
        return Place()
    return known[-1] if known[-1].line else known[-1]._replace(line=_unreadable_line(tree / known[-1].file))


def _kustomization(tree: Path, folder: str) -> str:
    paths = (posixpath.normpath(posixpath.join(folder, name)) for name in KUSTOMIZATIONS)
    return next((path for path in paths if _has(tree, path)), "")


def _has(tree: Path, path: str) -> bool:
    return not path.startswith(("/", "../")) and os.path.isfile(tree / path)  # noqa: PTH113  takes any text for a name


def _unreadable_line(file: Path) -> int:
    """The line of what is no YAML in a file; 1 where all of it is, and in a template, which need not be any."""
    data = file.read_bytes()
    if b"{{" in data:
        return 1
    return next((item.line for item in yaml_documents.read(data) if isinstance(item, yaml_documents.Unreadable)), 1)


_LINES = 6
_LENGTH = 700
_NOISE = re.compile(
    r"^(level=|time=|WARNING:|walk\.go:|\[warning\]|# Warning|Use --debug flag|Hang tight while|Usage:|kustomize |"
    r": unable to run: )"
)

_PREFIX = re.compile(r"^(Error: )+")  # a tool that is run by another has its own


def useful(words: str) -> str:
    """The first useful lines in one, without credentials of URLs and control characters."""
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in redacted(words).splitlines()]
    said = [_PREFIX.sub("", line) for line in lines if line and not _NOISE.search(line)]
    text = "; ".join(dict.fromkeys(said[:_LINES])) or words.strip()
    # What is wrong may stand at either end: a template that includes itself is told call by call.
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH // 2]} … {text[-_LENGTH // 2 :]}"
