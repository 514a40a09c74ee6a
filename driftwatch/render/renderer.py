"""Renders a source: selects the tool, looks in the cache, runs the tool, and stores the result.

The cache key covers everything that the result depends on: the tool's version, the files that it can read, the
source's settings, the chart's archive, and the capabilities of the cluster. A failed rendering is not retried for the
same key, unless the cause may go away by itself (a registry, a missing tool).
"""

import hashlib
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec

from driftwatch.git.errors import RenderError
from driftwatch.git.objects import Entry
from driftwatch.git.repository import Repository
from driftwatch.render import error_location, helm, inputs, kustomize, worktree
from driftwatch.render.cache import Store
from driftwatch.render.chart_repository import Charts
from driftwatch.render.error_location import ErrorLocation, summary
from driftwatch.render.inputs import CHART, KUSTOMIZATIONS, Files
from driftwatch.render.sandbox import Sandbox, ToolFailed, Workspace, program
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

_FORMAT = 1  # version of the stored form; a new number invalidates all renderings


_Capabilities: TypeAlias = tuple[str, tuple[str, ...]]  # Kubernetes version and API versions


class Listing(NamedTuple):
    """The files of a snapshot: the repository's own, or a tool's output if `rendered`."""

    entries: list[Entry]
    rendered: bool


class _Job(NamedTuple):
    """One rendering: its cache key, input files, the function that runs the tool, and the one that locates its errors.

    `seen` is the cluster capabilities that templates see, None if there are no templates.
    """

    key: str
    seen: _Capabilities | None
    files: list[Entry]
    run: Callable[[Path, Workspace], dict[str, bytes]]
    locate: Callable[[str, Path], ErrorLocation]


class Renderer:
    """Produces the files of a source's snapshots, one commit after another. One thread uses it."""

    def __init__(self, spec: SourceSpec, repository: Repository) -> None:
        self.surroundings = ClusterCapabilities()
        self.runs = 0
        """Number of tool runs since the start."""
        self._spec = spec
        self._repository = repository
        self._store = Store(repository, _identity(spec))
        self._charts = Charts(spec.render.helm, self._store)
        self._sandbox = Sandbox(spec.render.limits)
        self._folder = Path(spec.mirror).with_name(f"{spec.name}.rendering")
        self._failed: tuple[str, RenderError] | None = None
        self._seen: _Capabilities | None = None  # the capabilities that templates saw last, if there are templates

    @property
    def trouble(self) -> str:
        """Why a part of the snapshot is not up to date, "" if all of it is."""
        return self._charts.trouble and f"source {self._spec.name}: {self._charts.trouble}"

    @property
    def is_due(self) -> bool:
        """Whether the same commit may now render differently, because the chart or the cluster changed."""
        if self._seen is None:
            return False
        by_chart = bool(self._spec.render.helm.repository) and (self._charts.is_due or bool(self._charts.trouble))
        return by_chart or self._seen != self._capabilities()

    def interrupt(self) -> None:
        """Stop the running tool."""
        self._sandbox.interrupt()

    def listing(self, commit: str) -> Listing:
        """The files of `commit`'s snapshot. Raises `RenderError`, `PathNotFound` or `GitError`."""
        entries = self._repository.tree(commit)
        kind = self._kind(entries)
        if kind == "plain":
            self._seen = None
            return Listing(entries, rendered=False)
        try:
            workspace = self._workspace()
            job = self._kustomize(commit) if kind == "kustomize" else self._helm(commit, workspace)
            listed = self._rendered(job, workspace)
        except ToolFailed as failure:
            raise self._with_source(RenderError(f"{kind}: {summary(failure.stderr)}")) from failure
        except RenderError as error:
            raise self._with_source(error) from error
        except OSError as error:
            raise self._with_source(RenderError(f"{error.strerror}: {error.filename}", passes=True)) from error
        self._store.keep_good(job.key)
        self._store.needed(job.key, self._charts.key)
        self._seen = job.seen
        return Listing(listed, rendered=True)

    def good(self, commit: str) -> Listing | None:
        """The files that were enforced last, made from `commit`, without tool or network; None if there are none."""
        entries = self._repository.tree(commit)
        if self._kind(entries) == "plain":
            return Listing(entries, rendered=False)
        kept = self._store.good()
        return None if kept is None else Listing(kept, rendered=True)

    def _kind(self, entries: list[Entry]) -> str:
        if self._spec.render.kind != "auto":
            return self._spec.render.kind
        here = {entry.path for entry in entries if posixpath.dirname(entry.path) == self._spec.path}
        if any(posixpath.join(self._spec.path, name) in here for name in KUSTOMIZATIONS):
            return "kustomize"
        return "helm" if posixpath.join(self._spec.path, CHART) in here else "plain"

    def _rendered(self, job: _Job, workspace: Workspace) -> list[Entry]:
        kept = self._store.tree(job.key)
        if kept is not None:
            return kept
        if self._failed is not None and self._failed[0] == job.key:
            raise self._failed[1]
        left_out = worktree.write(self._repository.blobs(job.files), workspace.tree)
        self.runs += 1
        try:
            files = job.run(workspace.tree, workspace)
        except ToolFailed as failure:
            message = "; ".join([summary(failure.stderr), *left_out[:3]])
            location = job.locate(failure.stderr, workspace.tree)
            error = RenderError(message, file=location.file, line=location.line)
            self._failed = (job.key, error)
            raise error from failure
        except RenderError as error:
            if not error.passes:
                self._failed = (job.key, error)
            raise
        finally:
            worktree.remove(workspace.folder)
        return self._store.keep_tree(job.key, files)

    def _kustomize(self, commit: str) -> _Job:
        spec = self._spec.render
        tool = program("kustomize")
        files = Files(self._repository.tree_of(commit))
        read = inputs.closure(files, [self._spec.path], self._repository.blobs)
        inputs.refuse_outside(read, self._repository.blobs)
        arguments: tuple[str, ...] = ()
        around: tuple[object, ...] = ()
        seen: _Capabilities | None = None
        if spec.kustomize.helm:
            chart_tool = program("helm")
            version, apis = seen = self._capabilities()
            arguments = ("--enable-helm", f"--helm-command={chart_tool.path}")
            arguments += (f"--helm-kube-version={version}",) if version else ()
            arguments += tuple(f"--helm-api-versions={api}" for api in apis)
            around = (chart_tool.version, version, apis)
        build = kustomize.Build(tool.path, self._spec.path, arguments, spec.network)
        key = _key(
            "kustomize", tool.version, self._spec.path, inputs.digest(read), spec.kustomize, spec.network, around
        )
        return _Job(
            key,
            seen,
            read,
            lambda tree, workspace: kustomize.render(build, tree, self._sandbox, workspace),
            lambda stderr, tree: error_location.of_kustomize(stderr, tree, build.folder),
        )

    def _helm(self, commit: str, workspace: Workspace) -> _Job:
        spec = self._spec.render.helm
        tool = program("helm")
        blob = ""
        roots = [self._within(name) for name in spec.values_files]
        if spec.repository:
            blob = self._charts.current(tool.path, self._sandbox, workspace)
            chart = ""
        else:
            chart = self._within(spec.chart)
            roots.append(chart)
        files = Files(self._repository.tree_of(commit))
        read = inputs.closure(files, roots, self._repository.blobs) if roots else []
        if not spec.repository and files.get(posixpath.join(chart, CHART)) is None:
            raise RenderError(f"there is no chart in folder {chart or '.'!r}: it has no {CHART}")
        version, apis = seen = self._capabilities()
        name, namespace = spec.release_name or self._spec.name, spec.namespace or self._spec.namespace
        options = (spec, name, namespace, chart, version, apis, self._spec.render.network)
        key = _key("helm", tool.version, inputs.digest(read), blob, *options)

        values = tuple(map(self._within, spec.values_files))

        def run(tree: Path, workspace: Workspace) -> dict[str, bytes]:
            archive = workspace.folder / "chart.tgz" if blob else None
            if archive is not None:
                archive.write_bytes(self._store.archive(blob))
            network = self._spec.render.network
            release = helm.Release(tool.path, archive, chart, values, spec, name, namespace, version, apis, network)
            return helm.render(release, tree, self._sandbox, workspace)

        return _Job(
            key, seen, read, run, lambda stderr, tree: error_location.of_helm(stderr, tree, None if blob else chart)
        )

    def _capabilities(self) -> _Capabilities:
        """Kubernetes version and API versions that templates see."""
        spec = self._spec.render.helm
        return (
            spec.kube_version or self.surroundings.kube_version,
            spec.api_versions or self.surroundings.api_versions,
        )

    def _within(self, path: str) -> str:
        """Resolve a configured path, relative to the source's path, in the repository. Raises `RenderError`."""
        found = posixpath.normpath(posixpath.join(self._spec.path, path))
        if found == ".." or found.startswith(("../", "/")):
            raise RenderError(f"{path} leads out of the repository")
        return "" if found == "." else found

    def _workspace(self) -> Workspace:
        worktree.remove(self._folder)
        self._folder.mkdir(mode=0o700, parents=True)
        return Workspace(self._folder).create()

    def _with_source(self, error: RenderError) -> RenderError:
        where = f"source {self._spec.name}: {self._spec.path or 'the repository'} cannot be rendered"
        return RenderError(f"{where}: {error}", passes=error.passes, file=error.file, line=error.line)


def _key(*parts: object) -> str:
    return hashlib.blake2b(msgspec.json.encode((_FORMAT, *parts)), digest_size=20).hexdigest()


def _identity(spec: SourceSpec) -> str:
    """Identity of a source's output: a rendering of another path or chart must not be reused."""
    render = spec.render
    about = (spec.semver, spec.revision, spec.path, render.kind, render.helm.repository, render.helm.chart)
    return hashlib.blake2b(msgspec.json.encode(about), digest_size=8).hexdigest()
