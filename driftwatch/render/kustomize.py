"""Builds a kustomization with the real kustomize.

To find the file that each object comes from, kustomize is asked for origin annotations, in the private copy that it
works on. They are removed from the output, so what is applied is exactly the output of `kustomize build`.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from driftwatch.git.errors import RenderError
from driftwatch.manifests import yaml_documents
from driftwatch.render import output as result
from driftwatch.render.inputs import KUSTOMIZATIONS
from driftwatch.render.output import Piece
from driftwatch.render.sandbox import Sandbox, Workspace

ORIGIN = "config.kubernetes.io/origin"
_OPTION = "originAnnotations"
_ORIGIN = re.compile(rf"^    {re.escape(ORIGIN)}: \|\n((?:      .*\n)+)", re.MULTILINE)
_METADATA = re.compile(r"^metadata:\n((?:[ ].*\n|\n)+)", re.MULTILINE)
_NO_ANNOTATIONS = re.compile(r"^  annotations:\n(?!    )", re.MULTILINE)


class Build(NamedTuple):
    """Inputs of one build: the program, the kustomization's directory in the repository, and further arguments."""

    program: Path
    folder: str
    arguments: tuple[str, ...]
    network: bool


def render(build: Build, tree: Path, sandbox: Sandbox, workspace: Workspace) -> dict[str, bytes]:
    """Run `kustomize build` below `tree`. Returns files by path. Raises `ToolFailed` and `RenderError`."""
    wanted = _ask_for_origins(tree / build.folder)
    command = [str(build.program), "build", ".", *build.arguments]
    output = sandbox.run(command, workspace, tree / build.folder, network=build.network)
    pieces = [_piece(document, build.folder, tree, keep=wanted) for document in result.documents(output.decode())]
    return result.files("kustomize", pieces)


def kustomization_of(folder: Path) -> Path:
    """The kustomization file of a directory. Raises `RenderError`."""
    for name in KUSTOMIZATIONS:
        if (folder / name).is_file():
            return folder / name
    raise RenderError(f"there is no {KUSTOMIZATIONS[0]} at the source's path")


def _ask_for_origins(folder: Path) -> bool:
    """Enable origin annotations. Returns whether the kustomization itself enables them, so that they must stay."""
    file = kustomization_of(folder)
    data = file.read_bytes()
    found = list(yaml_documents.read(data))
    first = found[0] if len(found) == 1 else None
    if not isinstance(first, yaml_documents.Document) or not isinstance(first.value, dict):
        return False  # kustomize reports the error better
    metadata = first.value.get("buildMetadata")
    if metadata is None:
        added = data.rstrip() + f"\nbuildMetadata: [{_OPTION}]\n".encode()
        if b"\r" not in data and next(yaml_documents.read(added)) == first._replace(
            value={**first.value, "buildMetadata": [_OPTION]}
        ):
            file.write_bytes(added)
            return False
        metadata = []
    if not isinstance(metadata, list) or _OPTION in metadata:
        return isinstance(metadata, list)
    file.write_text(json.dumps({**first.value, "buildMetadata": [*metadata, _OPTION]}))  # JSON is valid YAML
    return False


def _piece(document: str, folder: str, tree: Path, *, keep: bool) -> Piece:
    text, origin = _without_origin(document)
    if keep:
        text = document
    path = origin.get("path") or origin.get("configuredIn") or ""
    if not isinstance(path, str) or not path:
        return Piece(posixpath.join(folder, kustomization_of(tree / folder).name), 1, text)
    if repository := origin.get("repo"):  # a remote base: its own path, below a directory named after its repository
        name = str(repository).rstrip("/").rpartition("/")[2].removesuffix(".git")
        return Piece(posixpath.normpath(f"{name}/{path}").lstrip("./"), 1, text)
    file = posixpath.normpath(posixpath.join(folder, path))
    if file.startswith(("../", "/")):
        return Piece(posixpath.join(folder, KUSTOMIZATIONS[0]), 1, text)
    if "path" not in origin:
        return Piece(file, 1, text)
    try:
        written = (tree / file).read_text()
    except (OSError, UnicodeDecodeError):
        return Piece(file, 1, text)
    return Piece(file, result.line_in(written, text), text)


def _without_origin(document: str) -> tuple[str, dict[str, object]]:
    """The document without the origin annotation, and the annotation's content."""
    metadata = _METADATA.search(document)
    found = _ORIGIN.search(metadata[0]) if metadata else None
    if metadata is None or found is None:
        return document, {}
    try:
        origin = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return document, {}
    without = _NO_ANNOTATIONS.sub("", metadata[0][: found.start()] + metadata[0][found.end() :])
    text = document[: metadata.start()] + without + document[metadata.end() :]
    return text, origin if isinstance(origin, dict) else {}
