"""Renders a chart with the real `helm template`: the objects of `helm install`, without access to the cluster.

`lookup` returns nothing, as always in `helm template`. Hooks are filtered when the result is read, so that they can
be reported as passed over.
"""

import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from driftwatch.git.errors import RenderError
from driftwatch.render import output as result
from driftwatch.render.output import Piece
from driftwatch.render.sandbox import Sandbox, Workspace
from driftwatch.source_spec import HelmSpec

_SOURCE = re.compile(r"^# Source: (.+?)[ \t]*$", re.MULTILINE)


class Release(NamedTuple):
    """Inputs of one rendering: the program, the chart (a directory in the tree, or an archive), and the options.

    `chart` is the chart's directory in the repository, "" for a chart from a chart repository.
    """

    program: Path
    archive: Path | None
    chart: str
    values_files: tuple[str, ...]
    spec: HelmSpec
    name: str
    namespace: str
    kube_version: str
    api_versions: tuple[str, ...]
    network: bool


def render(release: Release, tree: Path, sandbox: Sandbox, workspace: Workspace) -> dict[str, bytes]:
    """Run `helm template`. Returns files by path. Raises `ToolFailed` and `RenderError`."""
    chart = release.archive or tree / release.chart
    if release.archive is None and release.spec.dependencies:
        _fetch_dependencies(release, chart, sandbox, workspace)
    command = [str(release.program), "template", release.name, str(chart), f"--namespace={release.namespace}"]
    command.append("--include-crds" if release.spec.include_crds else "--skip-crds")
    for name in release.values_files:
        if not (tree / name).is_file():
            raise RenderError(f"there is no values file {name}")
        command.append(f"--values={tree / name}")
    if release.spec.values != "{}":
        inline = workspace.folder / "values.json"
        inline.write_text(release.spec.values)
        command.append(f"--values={inline}")
    if release.kube_version:
        command.append(f"--kube-version={release.kube_version}")
    if release.api_versions:
        command.append(f"--api-versions={','.join(release.api_versions)}")
    output = sandbox.run(command, workspace, tree)
    texts = result.documents(output.decode("utf-8", "replace"))
    return result.files("helm", [_piece(text, release, chart) for text in texts])


def _fetch_dependencies(release: Release, chart: Path, sandbox: Sandbox, workspace: Workspace) -> None:
    if not release.network:
        raise RenderError("helm.dependencies needs network: true, or put the charts into the chart's folder charts/")
    sandbox.run([str(release.program), "dependency", "build", str(chart)], workspace, chart, network=True)


def _piece(text: str, release: Release, chart: Path) -> Piece:
    source = _SOURCE.search(text)
    named = posixpath.normpath(source[1]) if source else ""
    body = text[source.end() :].lstrip("\r\n") if source else text
    if not named or named.startswith(("../", "/")):
        return Piece(posixpath.join(release.chart, "Chart.yaml"), 1, body)
    if release.archive is not None:
        return Piece(named, 1, body)
    # The path begins with the chart's name, which may differ from its directory's.
    path = named.partition("/")[2] or named
    file = posixpath.normpath(posixpath.join(release.chart, path))
    try:
        template = (chart / path).read_text()
    except (OSError, UnicodeDecodeError):
        return Piece(file, 1, body)
    return Piece(file, result.line_in(template, body), body)
