"""The snapshot of a source at a commit, and how it differs from the one before.

A commit with one changed file in ten thousand reads that file alone. What is remembered of a file are names
and digests; bodies go to the daemon and are not kept twice. A file that cannot be read, wholly or in part,
never takes an object out of the snapshot: what it declared last stays in force until the file is mended or
gone.
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
    """A manifest without its body: what it names, and where its text is."""

    id: ManifestId
    digest: str
    file: str
    line: int
    blob: str


@dataclass(frozen=True, slots=True)
class _File:
    """What one version of a file holds; `kept` is of earlier ones, because this one is partly unreadable.

    `state` is that of variables and keys when it was read, "" when it needs none.
    """

    blob: str
    state: str
    declared: tuple[Declared, ...]
    kept: tuple[Declared, ...]
    invalid: tuple[InvalidManifest, ...]
    passed_over: tuple[InvalidManifest, ...]


@dataclass(slots=True)
class SnapshotChange:
    """How a snapshot differs from the one before; `invalid` and `passed_over` are complete."""

    commit: str
    full: bool
    upserts: list[Manifest] = field(default_factory=list)
    removed: list[ManifestId] = field(default_factory=list)
    invalid: list[InvalidManifest] = field(default_factory=list)
    passed_over: list[InvalidManifest] = field(default_factory=list)
    digest: str = ""


class Snapshots:
    """Makes a source's snapshots, one commit after the other."""

    def __init__(self, spec: SourceSpec, repository: Repository) -> None:
        self._spec = spec
        self._repository = repository
        self._files: dict[str, _File] = {}
        self._in_force: dict[ManifestId, Declared] = {}
        self._is_first = True
        self._rebuilds = 0  # of the mirror, when the last snapshot was made
        self._before: tuple[dict[str, _File], dict[ManifestId, Declared], bool] | None = None
        self._pins_before: dict[str, list[str]] = {}
        self._renderer = Renderer(spec, repository)
        self._transform = Transform(spec)
        self._state = ""  # of variables and keys, when the last snapshot was made
        self._rendered = False
        self._pending = False  # the last attempt was given up halfway, or served an older rendering
        self.files_read = 0
        """How many files were parsed since the start."""

    @property
    def trouble(self) -> str:
        """What could not be brought up to date although there is a snapshot, "" when all is well."""
        return self._renderer.trouble

    @property
    def renderings(self) -> int:
        """How often a tool has rendered since the start."""
        return self._renderer.runs

    def surround(self, surroundings: ClusterCapabilities) -> None:
        """Take what the cluster gives to rendering; the next snapshot is made with it."""
        self._renderer.surroundings = self._transform.surroundings = surroundings

    def interrupt(self) -> None:
        """End the tool that runs."""
        self._renderer.interrupt()
        self._transform.interrupt()

    def is_stale(self) -> bool:
        """Whether the same commit may give another snapshot: variables, keys, the cluster or a chart are others.

        It stays so until a snapshot was made with them.
        """
        rebuilt = self._repository.rebuilds != self._rebuilds  # the new mirror lacks what was rendered
        return rebuilt or self._pending or self._renderer.is_due or self._state != self._transform.state()

    def at(self, commit: str, *, last_rendered: bool = False) -> SnapshotChange:
        """Make the snapshot of `commit`, as a change of the one that was made before.

        `last_rendered` takes what was rendered last and is on disk, without any tool. Raises `PathNotFound`,
        `RenderError` or `GitError`; then the one before stays the base of the next.
        """
        change = SnapshotChange(commit, full=self._is_first)
        rebuilds = self._repository.rebuilds
        if missing := self._renderer.surroundings.missing.get(self._spec.name):
            raise RenderError(f"source {self._spec.name}: {missing}", passes=True)
        self._pending = True
        listing = self._renderer.good(commit) if last_rendered else None
        if listing is None:  # what was rendered last is not on disk, or cannot be read any more
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
        """The change that was made last has not been delivered: the one before stays the base of the next."""
        if self._before is not None:
            self._files, self._in_force, self._is_first = self._before
            self._before = None
            self._pending = True

    def delivered(self) -> None:
        """The change that was made last has been delivered."""
        self._before = None

    def start_over(self) -> None:
        """Make the next change a full one."""
        self._files, self._in_force, self._is_first, self._before = {}, {}, True, None

    def pins(self) -> dict[str, list[str]]:
        """Return the blobs of earlier versions that are in force, by file; the newest first."""
        pins: dict[str, list[str]] = {}
        for path, file in self._files.items():
            if file.kept:
                pins[path] = list(dict.fromkeys(one.blob for one in file.kept))
        return pins

    def _is_new(self, entry: Entry, state: str) -> bool:
        before = self._files.get(entry.path)
        return before is None or before.blob != entry.blob or before.state not in ("", state)

    def _manifest_files(self, entries: list[Entry], passed_over: list[InvalidManifest]) -> list[Entry]:
        """Choose the entries to read; of the others, those that somebody may miss are told with a reason."""
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
        """Join what a file declares now with what an unreadable part of it declared before."""
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
        except Exception as error:  # noqa: BLE001  one file must not keep ten thousand from the cluster
            traceback.print_exc()
            reason = f"cannot be read because of a mistake in driftwatch ({type(error).__name__}); please report it"
            return parse.Parsed([], [InvalidManifest(entry.path, 1, reason)], [])

    def _held(self, file: str, blobs: Sequence[str], bodies: _Bodies) -> list[Declared]:
        """Read what earlier versions of a file declared, after a restart; nothing when the mirror lost them."""
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
        """Give manifests with bodies; those whose text did not change are read again.

        They are few: the second declaration of an object comes into force when the first is removed. `current` are the
        blobs of this commit: raises `MirrorCorrupt` when the mirror lacks one. An earlier version that the mirror has
        lost does not come into force: `last_applied` is corrected to what the daemon has.
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
    """Join what the files declare: the first to declare an object owns it, what is kept yields to any of them."""
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
