"""Finds the file and line in the repository that a tool's error message refers to.

Tools report locations in prose, and count lines in a file, in one of its documents, or in rendered output. So a name
counts only if the tree has that file, and a line only where helm gives it for a template. In a file that is not valid
YAML, the manifest reader determines the line.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from driftwatch.manifests import yaml_documents
from driftwatch.render.inputs import KUSTOMIZATIONS
from driftwatch.secret import redacted


class ErrorLocation(NamedTuple):
    """A file of the repository and a line; "" and 0 if unknown."""

    file: str = ""
    line: int = 0


_KUSTOMIZE_NAME = re.compile(
    r"(?<=')[^\s']+(?=')|(?<=File: )\S+|(?<=\(|\[)[^\s()\[\]]+(?=\)|\])|"
    r'(?<=\[path: ")[^"]+|(?<=\[path: \\")[^"\\]+'  # an error about a component has its quotes escaped
)
_TEMPLATE = re.compile(r"([^\s\"'():;<>]{1,500}):(\d+)(?::\d+)?(?=[:;)\s]|\Z)")
_RENDERED = re.compile(r"YAML parse error on (\S+?):")
_OF_CHART = re.compile(r"(?:cannot load|found in) ([^\s:,]+)")
_VALUES = re.compile(r"failed to parse ([^\s:]+):")


def of_kustomize(stderr: str, tree: Path, folder: str) -> ErrorLocation:
    """The last file that kustomize names on its way down from `folder`, or the kustomization in which it stopped."""
    file = ""
    for name in _KUSTOMIZE_NAME.findall(stderr):
        # A name is relative to the kustomization that has it, unless kustomize has made it a path of the tree.
        for path in (posixpath.normpath(posixpath.join(folder, name)), posixpath.normpath(name)):
            if _kustomization(tree, path):
                folder, file = path, ""
                break
            if _has(tree, path):
                file = path
                break
    file = file or _kustomization(tree, folder)
    return ErrorLocation(file, _unreadable_line(tree / file)) if file else ErrorLocation()


def of_helm(stderr: str, tree: Path, chart: str | None) -> ErrorLocation:
    """The innermost template that helm names, or the file that it could not load.

    `chart` is the chart's directory. It is None for a chart from a chart repository: its files are not in the source's
    repository.
    """
    if (values := _VALUES.search(stderr)) and _has(tree, values[1]):
        return ErrorLocation(values[1], _unreadable_line(tree / values[1]))
    if chart is None:
        return ErrorLocation()
    # A template's path begins with the chart's name, which may differ from its directory's.
    named = [(posixpath.join(chart, name.partition("/")[2]), int(line)) for name, line in _TEMPLATE.findall(stderr)]
    named += [(posixpath.join(chart, name.partition("/")[2]), 0) for name in _RENDERED.findall(stderr)[:1]]
    named += [(posixpath.join(chart, name), 0) for name in _OF_CHART.findall(stderr)[:1]]
    known = [
        ErrorLocation(posixpath.normpath(path), line) for path, line in named if _has(tree, posixpath.normpath(path))
    ]
    if not known:
        return ErrorLocation()
    return known[-1] if known[-1].line else known[-1]._replace(line=_unreadable_line(tree / known[-1].file))


def _kustomization(tree: Path, folder: str) -> str:
    paths = (posixpath.normpath(posixpath.join(folder, name)) for name in KUSTOMIZATIONS)
    return next((path for path in paths if _has(tree, path)), "")


def _has(tree: Path, path: str) -> bool:
    return not path.startswith(("/", "../")) and os.path.isfile(tree / path)  # noqa: PTH113  accepts any text as a name


def _unreadable_line(file: Path) -> int:
    """The line of the first YAML error in a file; 1 if there is none, or for a template, which need not be YAML."""
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

_PREFIX = re.compile(r"^(Error: )+")  # a tool run by another tool has its own prefix


def summary(stderr: str) -> str:
    """The useful lines of a tool's stderr on one line, without credentials in URLs and control characters."""
    lines = ["".join(c if c.isprintable() else " " for c in line).strip() for line in redacted(stderr).splitlines()]
    useful = [_PREFIX.sub("", line) for line in lines if line and not _NOISE.search(line)]
    text = "; ".join(dict.fromkeys(useful[:_LINES])) or stderr.strip()
    # The cause may be at either end: for a template that includes itself, helm lists every call.
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH // 2]} … {text[-_LENGTH // 2 :]}"
