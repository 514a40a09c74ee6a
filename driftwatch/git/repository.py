"""A bare mirror of a source's revision, fetched from the remote and read from its object database.

The mirror survives a remote that hangs, a corrupt mirror, and a repository whose author tries to run code here.
There is no work tree, so hooks and filters never run. Git never prompts for a password. Every network operation
ends after the source's timeout, together with every process that it started.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from driftwatch.files import sync_folder, write_private
from driftwatch.git import objects
from driftwatch.git.credentials import GitCredentials
from driftwatch.git.diagnosis import classify, is_damage
from driftwatch.git.errors import FatalSourceError, GitError, MirrorCorrupt, PathNotFound, RevisionNotFound
from driftwatch.git.ls_refs import LsRefsClient
from driftwatch.git.runner import Failed, GitRunner, Interrupted, TimedOut
from driftwatch.git.semver_range import Range, RangeError
from driftwatch.git.signatures import Signatures
from driftwatch.secret import redacted
from driftwatch.source_spec import SourceSpec

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,64}")
_NO_REVISION = re.compile(r"^-|\.\.|@\{|[\x00-\x20~^:?*\[\\\x7f]")
_SHA256_DIGITS = 64
_TAG_REFS = "refs/tags/"
_ALL_REFS = "refs/driftwatch/all/"
_PIN_REFS = "refs/driftwatch/pins/"
_PINS = "driftwatch-pins.json"
_HEAD = b"ref: refs/heads/driftwatch\n"
_WHOLE_HISTORY = "2147483647"


class _ResolvedRef(NamedTuple):
    """A resolved ref: the object that it names (an annotated tag, or the commit itself) and the commit it leads to."""

    ref: str
    object: str
    commit: str


class Repository:
    """The mirror of a source's revision. One thread uses it; any thread may call `interrupt`."""

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.mirror = Path(spec.mirror)
        self.fetches = 0
        self._runner = GitRunner(self.mirror)
        self._credentials = GitCredentials(spec)
        self._ls_refs = LsRefsClient(spec)
        self._is_rewritten: bool | None = None  # whether the user's Git configuration rewrites the address
        self._signatures = Signatures(spec, self._runner)
        self._opened = False
        self._damage = ""  # why the mirror must be rebuilt; "" if it is intact
        self.rebuilds = 0
        """Number of times the mirror was rebuilt because it was damaged."""
        self._have: _ResolvedRef | None = None  # the last fetched revision, known to be present
        self._accepted: _ResolvedRef | None = None  # the last revision whose signature was verified
        self._pins: dict[str, list[str]] = {}
        self.also_needed: set[str] = set()
        """Refs beside driftwatch's own that `tidy` must not delete."""
        self._revision = f"semver {spec.semver}" if spec.semver else spec.revision
        revision = hashlib.blake2b(self._revision.encode(), digest_size=8).hexdigest()
        self._fetched_ref = f"refs/driftwatch/{revision}/fetched"
        # A commit used while signatures were not required must not be used once they are.
        self._good_ref = f"refs/driftwatch/{revision}/{'verified' if self._signatures.required else 'good'}"

    # --- the remote ---

    def sync(self, timeout: float | None = None, *, rebuild: bool = False) -> str:
        """Bring the mirror to the remote's commit and return its id.

        `timeout`, in seconds, bounds each network operation (listing the refs, and a fetch if something is new);
        None means the source's own. `rebuild` replaces a damaged mirror; the old one stays until the new one is
        complete. A commit is returned only if its signature satisfies the source's verification. Raises `GitError`
        or a `FatalSourceError`.
        """
        limit = self.spec.timeout if timeout is None else timeout
        with self._error_context():
            self._open()
            if rebuild:
                self._have = None
            named = self._have = self._update_or_rebuild(limit, rebuild=rebuild or bool(self._damage))
            if named != self._accepted:
                self._signatures.check(named.commit, named.object, named.ref)
                self._accepted = named
            return named.commit

    def interrupt(self) -> None:
        """Stop the running git; every later call raises `Interrupted`."""
        self._runner.interrupt()
        self._ls_refs.interrupt()

    def _update_or_rebuild(self, limit: float, *, rebuild: bool) -> _ResolvedRef:
        """Bring the mirror to the remote's commit; rebuild the mirror if it is the cause of a failure."""
        try:
            return self._fetch_into_new_mirror(limit) if rebuild else self._update(limit)
        except Failed as error:
            _remove_leftovers(self.mirror)  # lock and temporary files of a killed git, which may be what fills the disk
            if rebuild or not is_damage(str(error), redacted(self.spec.repository)):
                raise self._with_damage(error) from error
            return self._update_or_rebuild(limit, rebuild=True)
        except TimedOut as error:
            _remove_leftovers(self.mirror)
            raise self._with_damage(error) from error

    def _with_damage(self, error: GitError) -> GitError:
        """The error that prevents a rebuild of a damaged mirror, with a description of the damage."""
        if not self._damage:
            return error
        return type(error)(
            f"{error}; and the mirror on disk is damaged ({self._damage}): it is built again when the remote answers"
        )

    def _update(self, limit: float) -> _ResolvedRef:
        """List the remote's refs, and fetch if they name something that the mirror lacks."""
        have = self._have or self._fetched()
        if have is not None and have.commit == self.spec.revision and not self.spec.semver:
            return have  # a full commit id never changes its meaning
        if have is not None and self._is_unchanged(have, limit):
            return have
        wanted = self._resolve_remote(limit)
        if have is not None and (have.object == wanted.object or (not wanted.ref and _begins(have, wanted))):
            return have._replace(ref=wanted.ref)
        return self._fetch(wanted, limit)

    def _is_unchanged(self, have: _ResolvedRef, limit: float) -> bool:
        """Whether the refs client confirms that the remote is unchanged; False when in doubt."""
        if not have.ref or not self._ls_refs.possible():
            return False
        if self._is_rewritten is None:  # by `url.<base>.insteadOf`
            used = self._runner.run(["ls-remote", "--get-url", "--", self.spec.repository]).decode().strip()
            self._is_rewritten = used != self.spec.repository
        if self._is_rewritten:
            return False
        prefixes = ["refs/tags/"] if self.spec.semver else self._names()
        refs = self._ls_refs.refs(prefixes, self._credentials.environment(), have.object, limit)
        try:
            return refs is not None and self._pick(refs) == have
        except RevisionNotFound:
            return False

    def _resolve_remote(self, limit: float) -> _ResolvedRef:
        """Resolve the revision at the remote. A commit id has no ref and stands for both object and commit."""
        names = self._names()
        peeled = [f"{name}^{{}}" for name in names if name.startswith("refs/")]
        return self._pick(self._list_refs(["refs/tags/*"] if self.spec.semver else [*names, *peeled], limit))

    def _names(self) -> list[str]:
        """Full ref names that the revision may mean; the first that exists wins. None for a semver range."""
        revision = self.spec.revision
        if self.spec.semver:
            return []
        if _NO_REVISION.search(revision):
            raise RevisionNotFound("is no branch, tag or commit")
        if revision == "HEAD" or revision.startswith("refs/"):
            return [revision]
        return [f"refs/heads/{revision}", f"refs/tags/{revision}"]

    def _pick(self, refs: Mapping[str, str]) -> _ResolvedRef:
        """Resolve the revision among a remote's refs. Raises `RevisionNotFound`."""
        names = self._names()
        if self.spec.semver:
            try:
                versions = Range(self.spec.semver)
            except RangeError as error:
                raise RevisionNotFound(f"is no semver range: {error}") from error
            tags = (name.removeprefix(_TAG_REFS) for name in refs if name.startswith(_TAG_REFS))
            tag = versions.highest(tags)
            if tag is None:
                raise RevisionNotFound("no tag of the repository is a version in this range")
            names = [f"{_TAG_REFS}{tag}"]
        for name in names:
            if name in refs:
                return _ResolvedRef(name, refs[name], refs.get(f"{name}^{{}}", refs[name]))
        if _ABBREVIATED.fullmatch(self.spec.revision):
            return _ResolvedRef("", self.spec.revision, self.spec.revision)
        raise RevisionNotFound("the repository has no such branch, tag or commit")

    def _list_refs(self, patterns: Sequence[str], limit: float) -> dict[str, str]:
        command = ["ls-remote", "--", self.spec.repository, *patterns]
        answer = self._runner.run(command, timeout=limit, environment=self._credentials.environment())
        refs: dict[str, str] = {}
        for line in answer.decode("utf-8", "replace").splitlines():
            commit, _, name = line.partition("\t")
            refs[name] = commit
        return refs

    def _fetch(self, wanted: _ResolvedRef, limit: float) -> _ResolvedRef:
        self.fetches += 1
        if wanted.ref:
            self._fetch_refs(limit, "--depth=1", f"+{wanted.ref}:{self._fetched_ref}")
            return self._just_fetched(wanted.ref)
        if _COMMIT.fullmatch(wanted.commit):
            with contextlib.suppress(Failed):  # servers may reject a request for a commit that no ref names
                self._fetch_refs(limit, "--depth=1", f"+{wanted.commit}:{self._fetched_ref}")
                return self._just_fetched("")
        everything = [f"+refs/{kind}/*:{_ALL_REFS}{kind}/*" for kind in ("heads", "tags")]
        self._fetch_refs(limit, f"--depth={_WHOLE_HISTORY}", *everything)
        try:
            commit = self._commit(wanted.commit)
        except RevisionNotFound:
            raise RevisionNotFound("no branch or tag of the repository leads to such a commit") from None
        self._runner.run(["update-ref", self._fetched_ref, commit])
        self._keep_refs(lambda name: not name.startswith(_ALL_REFS))
        return _ResolvedRef("", commit, commit)

    def _just_fetched(self, ref: str) -> _ResolvedRef:
        commit = self._commit(self._fetched_ref)
        return _ResolvedRef(ref, self._runner.run(["rev-parse", self._fetched_ref]).decode().strip(), commit)

    def _fetched(self) -> _ResolvedRef | None:
        """The revision fetched before a restart, or None if it is not present."""
        commit = self._resolve(self._fetched_ref)
        return None if commit is None else self._just_fetched("")

    def _fetch_into_new_mirror(self, limit: float) -> _ResolvedRef:
        """Fetch into a new mirror, which replaces the old one when it is complete.

        Earlier commits, rendered trees and charts that the old mirror still has are copied.
        """
        fresh = self._beside("new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._runner.directory = fresh
        try:
            self._init(sha256=False)
            wanted = self._resolve_remote(limit)
            if len(wanted.commit) == _SHA256_DIGITS:
                shutil.rmtree(fresh)
                self._init(sha256=True)
            self._take_over()
            named = self._fetch(wanted, limit)
        except GitError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            self._runner.directory = self.mirror
        self._replace_by(fresh)
        return named

    def _take_over(self) -> None:
        """Copy each readable ref of the old mirror into the new one."""
        refs = self.mirror / "refs/driftwatch"
        names = {f"refs/driftwatch/{file.relative_to(refs)}" for file in refs.rglob("*") if file.is_file()}
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in (self.mirror / "packed-refs").read_text().splitlines():
                names |= {name for name in line.split()[1:2] if name.startswith("refs/driftwatch/")}
        for name in sorted(names - {self._fetched_ref}):
            with contextlib.suppress(Failed):
                self._runner.run(
                    ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                     "--update-shallow", "--", str(self.mirror), f"+{name}:{name}"]
                )  # fmt: skip
        with contextlib.suppress(OSError):
            write_private(self._runner.directory / _PINS, (self.mirror / _PINS).read_bytes())

    def _replace_by(self, fresh: Path) -> None:
        """Replace the old mirror by a complete new one. `_finish_replacing` recovers from a crash in between."""
        old = self._beside("old")
        shutil.rmtree(old, ignore_errors=True)
        if self.mirror.exists():
            self.mirror.rename(old)
        fresh.rename(self.mirror)
        sync_folder(self.mirror.parent)
        shutil.rmtree(old, ignore_errors=True)
        self._damage = ""
        self.rebuilds += 1

    def _finish_replacing(self) -> None:
        """Complete a `_replace_by` that a crash interrupted, and remove the remains of a failed attempt."""
        fresh, old = self._beside("new"), self._beside("old")
        if not self.mirror.exists() and old.exists():  # between the two renames the new mirror is already complete
            (fresh if fresh.exists() else old).rename(self.mirror)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)

    def _beside(self, suffix: str) -> Path:
        return self.mirror.with_name(f"{self.mirror.name}.{suffix}")

    def _fetch_refs(self, limit: float, depth: str, *refspecs: str) -> None:
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance"]
        command = ["fetch", *options, "--update-shallow", depth, "--", self.spec.repository, *refspecs]
        self._runner.run(command, timeout=limit, environment=self._credentials.environment())

    # --- the mirror ---

    def good(self) -> str | None:
        """Return the last commit that gave a snapshot, None when the mirror has none.

        Raises `MirrorCorrupt` when the mirror names one that cannot be read.
        """
        with self._error_context():
            self._open()
            if self._damage:
                return None
            good = self._resolve(self._good_ref)
            if good is None and self._is_named(self._good_ref):
                if not self._signatures.required:
                    good = self._resolve(self._fetched_ref)  # it is what the damaged ref named, or will name
                if good is None:
                    raise MirrorCorrupt("the mirror is damaged: the last commit that gave a snapshot cannot be read")
            return good

    def _is_named(self, ref: str) -> bool:
        """Whether the mirror has a ref of this name, readable or not."""
        return (self.mirror / ref).exists() or self.has(ref)

    def keep(self, commit: str, pins: Mapping[str, Sequence[str]]) -> None:
        """Record, across restarts, that `commit` gave a snapshot.

        `pins` maps a file to the blobs of earlier commits that are still enforced because the file is unreadable
        in `commit`.
        """
        with self._error_context(local=True):
            pins = self._present(pins)
            updates = [f"update {self._good_ref} {commit}"]
            updates += [f"update {_PIN_REFS}{blob} {blob}" for blobs in pins.values() for blob in blobs]
            self._runner.run(["update-ref", "--stdin"], stdin="\n".join([*updates, ""]).encode())
            if pins or self._pins:
                write_private(self.mirror / _PINS, msgspec.json.encode(pins))
            self._pins = {file: list(blobs) for file, blobs in pins.items()}

    def _present(self, pins: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Pins whose blobs the mirror has. A rebuilt mirror may lack blobs that only the old one had."""
        named = list(dict.fromkeys(blob for blobs in pins.values() for blob in blobs))
        if not named:
            return {}
        answer = self._runner.run(["cat-file", "--batch-check=%(objecttype)"], stdin="\n".join([*named, ""]).encode())
        kinds = zip(named, answer.decode().splitlines(), strict=True)
        present = {blob for blob, kind in kinds if kind == "blob"}
        return {file: [blob for blob in blobs if blob in present] for file, blobs in pins.items()}

    def pins(self) -> dict[str, list[str]]:
        """Return the pins of the last `keep`, which may predate a restart."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._pins = msgspec.json.decode((self.mirror / _PINS).read_bytes(), type=dict[str, list[str]])
        return self._pins

    def tidy(self) -> None:
        """Delete refs that are no longer needed; also prune objects when there are many."""
        with self._error_context(local=True):
            needed = {self._fetched_ref, self._good_ref}
            needed |= {f"{_PIN_REFS}{blob}" for blobs in self._pins.values() for blob in blobs}
            needed |= self.also_needed
            self._keep_refs(needed.__contains__)
            settings = ["gc.auto=2000", "gc.autoPackLimit=10", "gc.autoDetach=false", "gc.pruneExpire=now"]
            options = [option for setting in settings for option in ("-c", setting)]
            self._runner.run([*options, "gc", "--auto", "--quiet"])

    def tree(self, commit: str) -> list[objects.Entry]:
        """List every file, link and submodule below the source's path at `commit`. Raises `PathNotFound`."""
        with self._error_context(local=True):
            entries = objects.tree(self._runner, commit, self.spec.path)
            path = self.spec.path
            if path and not any(entry.is_file or entry.path != path for entry in entries):
                raise PathNotFound(f"commit {commit[:12]} has no folder {path!r}")
            return entries

    def tree_of(self, revision: str) -> list[objects.Entry]:
        """List every file, link and submodule of a commit, regardless of the source's path."""
        with self._error_context(local=True):
            return objects.tree(self._runner, revision, "")

    def run(self, arguments: Sequence[str], stdin: bytes | None = None) -> bytes:
        """Run git on the mirror alone. Raises `MirrorCorrupt` if git fails."""
        with self._error_context(local=True):
            return self._runner.run(arguments, stdin=stdin)

    def has(self, revision: str) -> bool:
        """Whether the mirror has this object, and the ref that names it is readable."""
        try:
            self._runner.run(["rev-parse", "--verify", "--quiet", revision])
        except Failed:
            return False
        return True

    def blobs(self, entries: Sequence[objects.Entry]) -> Iterator[tuple[objects.Entry, bytes]]:
        """Read `entries`, in order and in batches. Raises `MirrorCorrupt` when one is missing."""
        with self._error_context():
            yield from objects.blobs(self._runner, entries)

    def _open(self) -> None:
        if self._opened:
            return
        self._finish_replacing()
        _remove_leftovers(self.mirror)
        if self.mirror.exists():
            self._examine()
        else:
            self._init(sha256=False)
        self._opened = True

    def _examine(self) -> None:
        """Check that the mirror belongs to this remote and is intact. A damaged one stays until it is replaced."""
        try:
            command = ["config", "--file", str(self.mirror / "config"), "--get", "driftwatch.remote"]
            remote = self._runner.run(command).decode().strip()
        except Failed as error:  # the mirror's remote cannot be determined, so the mirror is unusable
            self._damage = f"its configuration cannot be read: {error}"
            return
        if remote != self._remote_id():
            shutil.rmtree(self.mirror, ignore_errors=True)
            self._init(sha256=False)
            return
        head = self.mirror / "HEAD"
        if not head.exists() or head.read_bytes() != _HEAD:
            write_private(head, _HEAD)
        try:
            self._runner.run(["rev-parse", "--is-bare-repository"])
        except Failed as error:
            self._damage = str(error)

    def _init(self, *, sha256: bool) -> None:
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        object_format = "sha256" if sha256 else "sha1"
        options = ["--bare", "--quiet", "--template=", f"--object-format={object_format}"]
        self._runner.run(["init", *options, "--initial-branch=driftwatch"])
        self._runner.run(["config", "driftwatch.remote", self._remote_id()])

    def _remote_id(self) -> str:
        """Return the remote's identity as stored in the mirror, without the password: a new one keeps the mirror."""
        return hashlib.blake2b(redacted(self.spec.repository).encode(), digest_size=16).hexdigest()

    def _keep_refs(self, is_needed: Callable[[str], bool]) -> None:
        names = self._runner.run(["for-each-ref", "--format=%(refname)"]).decode().splitlines()
        deletions = [f"delete {name}" for name in names if not is_needed(name)]
        if deletions:
            self._runner.run(["update-ref", "--stdin"], stdin="\n".join([*deletions, ""]).encode())

    def _resolve(self, ref: str) -> str | None:
        """Return the commit of one of driftwatch's refs whose tree is present, or None."""
        try:
            answer = self._runner.run(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"])
            commit = answer.decode().strip()
            self._runner.run(["cat-file", "-e", f"{commit}^{{tree}}"])
        except Failed:
            return None
        return commit

    def _commit(self, revision: str) -> str:
        command = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        try:
            return self._runner.run(command).decode().strip()
        except Failed as error:
            raise RevisionNotFound("is no commit") from error

    # --- errors -------

    @contextlib.contextmanager
    def _error_context(self, *, local: bool = False) -> Iterator[None]:
        """Prefix errors with the source, and map git's stderr to temporary and permanent errors.

        With `local`, git works on the mirror alone: a failure without another known cause means a damaged mirror.
        """
        spec = self.spec
        where = f"source {spec.name}: {redacted(spec.repository)} at {self._revision}"
        try:
            yield
        except FatalSourceError as error:
            raise type(error)(f"{where}: {error}") from error
        except (MirrorCorrupt, TimedOut, Interrupted) as error:
            raise type(error)(f"{where}: {error}") from error
        except GitError as error:
            if local and isinstance(error, Failed) and is_damage(str(error), redacted(spec.repository)):
                raise MirrorCorrupt(f"{where}: the mirror cannot be used: {error}") from error
            from_git = type(error) in (GitError, Failed)  # whether git reported it, not driftwatch
            known = classify(str(error), redacted(spec.repository)) if from_git else None
            raise type(known or error)(f"{where}: {known or error}") from error
        except OSError as error:
            message = f"{error.strerror or error}: {error.filename or spec.mirror}"
            known = classify(message, redacted(spec.repository)) or GitError(message)
            raise type(known)(f"{where}: {known}") from error


def _begins(have: _ResolvedRef, wanted: _ResolvedRef) -> bool:
    return have.commit.startswith(wanted.commit)


def _remove_leftovers(mirror: Path) -> None:
    """Remove lock and temporary files of a killed git. No other process uses the mirror."""
    for pattern in ("**/*.lock", "objects/**/tmp_*"):
        for leftover in mirror.glob(pattern):
            leftover.unlink(missing_ok=True)
