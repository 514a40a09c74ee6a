"""Makes the snapshot of a source at a commit, and the difference to the one before.

A commit that changes one file in ten thousand reads only that file. This process keeps names and digests of each file.
The bodies go to the daemon and are not kept twice. A file that cannot be read, wholly or in part, never removes an
object from the snapshot. Its last readable declarations stay in force until the file is fixed or deleted.
"""

import contextlib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple, TypeAlias

import msgspec

from driftwatch.desired.protocol import set_digest
from driftwatch.escape import printable
from driftwatch.git.errors import MirrorCorrupt, RenderError
from driftwatch.git.objects import Entry
from driftwatch.git.repository import Repository
from driftwatch.manifests import parse, yaml_documents
from driftwatch.manifests.parse import manifest_id
from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.render.renderer import Renderer
from driftwatch.render.transform import Transform
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

_Bodies: TypeAlias = dict[tuple[ManifestId, str], Manifest]


class Declared(NamedTuple):
    """A manifest without its body: the object's id, and the place of the text."""

    id: ManifestId
    digest: str
    file: str
    line: int
    blob: str


@dataclass(frozen=True, slots=True)
class _File:
    """The content of one version of a file. `kept` comes from earlier versions, where this one cannot be read.

    `state` is the state of variables and keys when the file was read, "" when the file uses none.
    """

    blob: str
    state: str
    declared: tuple[Declared, ...]
    kept: tuple[Declared, ...]
    invalid: tuple[InvalidManifest, ...]
    passed_over: tuple[InvalidManifest, ...]


@dataclass(slots=True)
class SnapshotChange:
    """The difference of a snapshot to the one before. `invalid` and `passed_over` are complete lists."""

    commit: str
    full: bool
    upserts: list[Manifest] = field(default_factory=list)
    removed: list[ManifestId] = field(default_factory=list)
    invalid: list[InvalidManifest] = field(default_factory=list)
    passed_over: list[InvalidManifest] = field(default_factory=list)
    digest: str = ""


class Snapshots:
    """Makes the snapshots of a source, one commit after another."""

    def __init__(self, spec: SourceSpec, repository: Repository) -> None:
        self._spec = spec
        self._repository = repository
        self._files: dict[str, _File] = {}
        self._in_force: dict[ManifestId, Declared] = {}
        self._is_first = True
        self._rebuilds = 0  # rebuilds of the mirror when the last snapshot was made
        self._before: tuple[dict[str, _File], dict[ManifestId, Declared], bool] | None = None
        self._pins_before: dict[str, list[str]] = {}
        self._renderer = Renderer(spec, repository)
        self._transform = Transform(spec)
        self._state = ""  # state of variables and keys when the last snapshot was made
        self._rendered = False
        self._pending = False  # the last attempt failed halfway, or served an older rendering
        self.files_read = 0
        """Files parsed since the start."""

    @property
    def trouble(self) -> str:
        """Why the snapshot is out of date, "" when it is not."""
        return self._renderer.trouble

    @property
    def renderings(self) -> int:
        """Runs of a rendering tool since the start."""
        return self._renderer.runs

    def surround(self, surroundings: ClusterCapabilities) -> None:
        """Set the cluster's inputs for rendering. The next snapshot uses them."""
        self._renderer.surroundings = self._transform.surroundings = surroundings

    def interrupt(self) -> None:
        """End the running tool."""
        self._renderer.interrupt()
        self._transform.interrupt()

    def is_stale(self) -> bool:
        """Whether the same commit may give another snapshot: variables, keys, the cluster or a chart have changed.

        It stays true until a snapshot is made with them.
        """
        rebuilt = self._repository.rebuilds != self._rebuilds  # the new mirror lacks the rendered files
        return rebuilt or self._pending or self._renderer.is_due or self._state != self._transform.state()

    def at(self, commit: str, *, last_rendered: bool = False) -> SnapshotChange:
        """Make the snapshot of `commit`, as a change to the last snapshot.

        `last_rendered` uses the last rendering on disk and runs no tool. Raises `PathNotFound`, `RenderError` or
        `GitError`. After an error the last snapshot stays the base of the next one.
        """
        change = SnapshotChange(commit, full=self._is_first)
        rebuilds = self._repository.rebuilds
        if missing := self._renderer.surroundings.missing.get(self._spec.name):
            raise RenderError(f"source {self._spec.name}: {missing}", passes=True)
        self._pending = True
        listing = self._renderer.good(commit) if last_rendered else None
        if listing is None:  # the last rendering is not on disk, or cannot be read
            listing = self._renderer.listing(commit)
            last_rendered = False
        state = self._transform.state()
        wanted = listing.entries if listing.rendered else self._manifest_files(listing.entries, change.passed_over)
        self._rendered = listing.rendered
        bodies: _Bodies = {}
        if self._is_first:
            self._pins_before = self._repository.pins()
        new = [entry for entry in wanted if self._is_new(entry, state)]
        read = {entry.path: self._refuse(entry, bodies) for entry in new if _is_too_large(entry)}
        for entry, data in self._repository.blobs([entry for entry in new if not _is_too_large(entry)]):
            read[entry.path] = self._read(entry, data, bodies, state)
        files = {entry.path: read.get(entry.path) or self._files[entry.path] for entry in wanted}
        last_applied = _in_force(files.values(), change.invalid)
        for file in files.values():
            change.invalid.extend(file.invalid)
            change.passed_over.extend(file.passed_over)
        changed = [
            declared for declared in last_applied.values() if not _same(declared, self._in_force.get(declared.id))
        ]
        change.upserts.extend(self._with_bodies(changed, bodies, {file.blob for file in files.values()}, last_applied))
        change.removed.extend(self._in_force.keys() - last_applied.keys())
        change.digest = set_digest(declared.digest for declared in last_applied.values())
        self._before = self._files, self._in_force, self._is_first
        self._files, self._in_force, self._state, self._is_first = files, last_applied, state, False
        self._rebuilds = rebuilds
        self._pending = last_rendered and listing.rendered
        return change

    def take_back(self) -> None:
        """The last change was not delivered: the snapshot before it stays the base of the next one."""
        if self._before is not None:
            self._files, self._in_force, self._is_first = self._before
            self._before = None
            self._pending = True

    def delivered(self) -> None:
        """The last change was delivered."""
        self._before = None

    def start_over(self) -> None:
        """Make the next change a full one."""
        self._files, self._in_force, self._is_first, self._before = {}, {}, True, None

    def pins(self) -> dict[str, list[str]]:
        """Return the blobs of earlier versions that are in force, by file, newest first."""
        pins: dict[str, list[str]] = {}
        for path, file in self._files.items():
            if file.kept:
                pins[path] = list(dict.fromkeys(one.blob for one in file.kept))
        return pins

    def _is_new(self, entry: Entry, state: str) -> bool:
        before = self._files.get(entry.path)
        return before is None or before.blob != entry.blob or before.state not in ("", state)

    def _manifest_files(self, entries: list[Entry], passed_over: list[InvalidManifest]) -> list[Entry]:
        """Choose the entries to read. Skipped entries that a user may expect go to `passed_over` with a reason."""
        charts = frozenset(
            str(PurePosixPath(entry.path).parent) for entry in entries if entry.path.rpartition("/")[2] == "Chart.yaml"
        )
        below = len(PurePosixPath(self._spec.path).parts) if self._spec.path else 0
        wanted = []
        for entry in entries:
            parts = entry.path.split("/")
            if any(part.startswith(".") for part in (parts[below:] or parts[-1:])):
                continue
            if entry.mode == "160000":
                reason = "a submodule; submodules are not fetched"
            elif entry.mode == "120000":
                reason = "a symbolic link; links are not followed"
            elif not entry.is_file or not entry.path.endswith(parse.SUFFIXES):
                continue
            else:
                reason = parse.passed_over_by_name(entry.path, charts)
            if reason:
                passed_over.append(InvalidManifest(entry.path, 1, reason, elsewhere=entry.mode == "160000"))
            else:
                wanted.append(entry)
        return wanted

    def _refuse(self, entry: Entry, bodies: _Bodies) -> _File:
        limit = yaml_documents.MAX_FILE_BYTES >> 20
        reason = f"the file has {entry.size / 2**20:.0f} MB, the limit is {limit} MB"
        return self._file(entry, parse.Parsed([], [InvalidManifest(entry.path, 1, reason)], []), bodies, "")

    def _read(self, entry: Entry, data: bytes, bodies: _Bodies, state: str) -> _File:
        self.files_read += 1
        before = self._files.get(entry.path)
        known = entry.path in self._pins_before if before is None else bool(before.declared or before.kept)
        state = state if self._transform.depends(data) else ""
        return self._file(entry, self._parse(entry, data, known=known), bodies, state)

    def _file(self, entry: Entry, parsed: parse.Parsed, bodies: _Bodies, state: str) -> _File:
        """Combine the declarations of a file with earlier ones that its unreadable parts may still contain."""
        declared = _declared(parsed, entry.blob, bodies)
        kept: tuple[Declared, ...] = ()
        if parsed.invalid:
            before = self._files.get(entry.path)
            pinned = self._pins_before.get(entry.path, [])
            held = (*before.declared, *before.kept) if before else self._held(entry.path, pinned, bodies)
            named = {one.id for one in declared}
            kept = tuple(one for one in held if one.id not in named)
        return _File(entry.blob, state, declared, kept, tuple(parsed.invalid), tuple(parsed.passed_over))

    def _parse(self, entry: Entry, data: bytes, *, known: bool = False) -> parse.Parsed:
        try:
            return self._transform.read(entry.path, data, rendered=self._rendered, known=known)
        except Exception as error:  # noqa: BLE001  a bug with one file must not stop the other files
            traceback.print_exc()
            reason = f"cannot be read because of a mistake in driftwatch ({type(error).__name__}); please report it"
            return parse.Parsed([], [InvalidManifest(entry.path, 1, reason)], [])

    def _held(self, file: str, blobs: Sequence[str], bodies: _Bodies) -> list[Declared]:
        """Read the declarations of earlier versions after a restart. Versions that the mirror has lost are skipped."""
        held: dict[ManifestId, Declared] = {}
        for blob in blobs:
            with contextlib.suppress(MirrorCorrupt):
                for one in self._parse_again(file, blob, bodies):
                    held.setdefault(one.id, one)
        return list(held.values())

    def _parse_again(self, file: str, blob: str, bodies: _Bodies) -> tuple[Declared, ...]:
        [(entry, data)] = self._repository.blobs([Entry(file, blob, "100644", 0)])
        return _declared(self._parse(entry, data), blob, bodies)

    def _with_bodies(
        self, declared: list[Declared], bodies: _Bodies, current: set[str], last_applied: dict[ManifestId, Declared]
    ) -> Iterator[Manifest]:
        """Yield the manifests with their bodies. Texts that did not change are read again.

        These are few: for example, a second declaration comes into force when the first is removed. `current` has the
        blobs of this commit. Raises `MirrorCorrupt` when the mirror lacks one of them. An earlier version that the
        mirror has lost does not come into force: `last_applied` is corrected to what the daemon has.
        """
        for blob, file in {one.blob: one.file for one in declared if (one.id, one.digest) not in bodies}.items():
            with contextlib.nullcontext() if blob in current else contextlib.suppress(MirrorCorrupt):
                self._parse_again(file, blob, bodies)
        for one in declared:
            manifest = bodies.get((one.id, one.digest))
            if manifest is not None:
                yield msgspec.structs.replace(manifest, file=one.file, line=one.line)
            elif (before := self._in_force.get(one.id)) is not None:
                last_applied[one.id] = before
            else:
                del last_applied[one.id]


def _declared(parsed: parse.Parsed, blob: str, bodies: _Bodies) -> tuple[Declared, ...]:
    declared = []
    for manifest in parsed.manifests:
        identity = manifest_id(manifest)
        declared.append(Declared(identity, manifest.digest, manifest.file, manifest.line, blob))
        bodies.setdefault((identity, manifest.digest), manifest)
    return tuple(declared)


def _is_too_large(entry: Entry) -> bool:
    return entry.size > yaml_documents.MAX_FILE_BYTES


def _same(one: Declared, other: Declared | None) -> bool:
    return other is not None and one[:4] == other[:4]


def _in_force(files: Iterable[_File], invalid: list[InvalidManifest]) -> dict[ManifestId, Declared]:
    """Merge the declarations of the files. The first declaration of an object wins. Kept ones come last."""
    last_applied: dict[ManifestId, Declared] = {}
    kept: list[Declared] = []
    for file in files:
        kept.extend(file.kept)
        for declared in file.declared:
            first = last_applied.setdefault(declared.id, declared)
            if first is not declared:
                name = printable(f"{declared.id.kind} {declared.id.namespace}/{declared.id.name}")
                reason = f"{name} is declared a second time; the first, {first.file}:{first.line}, is in force"
                invalid.append(InvalidManifest(declared.file, declared.line, reason))
    for declared in kept:
        last_applied.setdefault(declared.id, declared)
    return last_applied
