"""A Git repository as a bare mirror of one revision, read from its object database.

It must survive a remote that hangs, a mirror that is corrupt, and a repository whose author wants to run
something here: there is never a work tree, hooks and filters have nothing to run on, nobody is ever asked for
a password, and every operation on the network ends after the source's timeout together with every process
that it started.
"""

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from driftwatch.desired import objects
from driftwatch.desired.commands import Commands, Failed, Interrupted, TimedOut, redacted
from driftwatch.desired.errors import (
    FatalSourceError,
    GitError,
    MirrorCorrupt,
    NotARepository,
    PathNotFound,
    RevisionNotFound,
)
from driftwatch.model import SourceSpec

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,64}")
_NO_REVISION = re.compile(r"^-|\.\.|@\{|[\x00-\x20~^:?*\[\\\x7f]")
_NO_REPOSITORY = re.compile(r"does not appear to be a git repo|repository .*not found|not a git repo", re.IGNORECASE)
_NOT_OURS = re.compile(r"dubious ownership|unsafe repository", re.IGNORECASE)
_DAMAGE = re.compile(
    r"bad object|missing (blob|tree|commit|object)|unable to (read|find)|corrupt|loose object|not a git repo|"
    r"invalid object|bad tree|inflate|packfile|bad config|mismatched algorithms|shallow file",
    re.IGNORECASE,
)
_SHA256_DIGITS = 64
_ALL_REFS = "refs/driftwatch/all/"
_PIN_REFS = "refs/driftwatch/pins/"
_PINS = "driftwatch-pins.json"
_WHOLE_HISTORY = "2147483647"


class Repository:
    """The mirror of a source's revision. One thread uses it; `interrupt` may be called from any."""

    def __init__(self, spec: SourceSpec) -> None:
        self.spec = spec
        self.mirror = Path(spec.mirror)
        self.fetches = 0
        self._commands = Commands(self.mirror)
        self._opened = False
        self._pins: dict[str, list[str]] = {}
        self.also_needed: set[str] = set()
        """Refs beside our own that `tidy` leaves alone."""
        revision = hashlib.blake2b(spec.revision.encode(), digest_size=8).hexdigest()
        self._fetched_ref = f"refs/driftwatch/{revision}/fetched"
        self._good_ref = f"refs/driftwatch/{revision}/good"

    # --- the remote ---

    def sync(self, timeout: float | None = None, *, anew: bool = False) -> str:
        """Bring the mirror to the remote's commit and return its id.

        `timeout` bounds each of the operations on the network (a question, and a fetch when there is
        something new); the source's own when None. `anew` replaces the mirror, because it is damaged; the old
        one stays until the new one is complete. Raises `GitError` or a `FatalSourceError`.
        """
        limit = self.spec.timeout if timeout is None else timeout
        with self._in_words():
            self._open()
            have = None if anew else self._resolve(self._fetched_ref)
            if have is not None and have == self.spec.revision:
                return have  # a full commit id never means anything else
            ref, wanted = self._ask(limit)
            if have is not None and (have == wanted or (not ref and have.startswith(wanted))):
                return have
            if anew:
                return self._fetch_anew(ref, wanted, limit)
            try:
                return self._fetch(ref, wanted, limit)
            except Failed as error:
                if not _DAMAGE.search(str(error)):
                    raise
                return self._fetch_anew(ref, wanted, limit)

    def interrupt(self) -> None:
        """End what git is doing; every later call raises `Interrupted`."""
        self._commands.interrupt()

    def _ask(self, limit: float) -> tuple[str, str]:
        """Ask for the remote's ref for the revision, and the commit it names; the ref is "" for a commit id."""
        revision = self.spec.revision
        if _NO_REVISION.search(revision):
            raise RevisionNotFound("is no branch, tag or commit")
        if revision == "HEAD" or revision.startswith("refs/"):
            names = [revision]
        else:
            names = [f"refs/heads/{revision}", f"refs/tags/{revision}"]
        patterns = [*names, *(f"{name}^{{}}" for name in names if name != "HEAD")]
        answer = self._commands.run(["ls-remote", "--", self.spec.repository, *patterns], timeout=limit)
        refs: dict[str, str] = {}
        for line in answer.decode("utf-8", "replace").splitlines():
            commit, _, name = line.partition("\t")
            refs[name] = commit
        for name in names:
            if name in refs:
                return name, refs.get(f"{name}^{{}}", refs[name])
        if _ABBREVIATED.fullmatch(revision):
            return "", revision
        raise RevisionNotFound("the repository has no such branch, tag or commit")

    def _fetch(self, ref: str, wanted: str, limit: float) -> str:
        self.fetches += 1
        if ref:
            self._fetch_refs(limit, "--depth=1", f"+{ref}:{self._fetched_ref}")
            return self._commit(self._fetched_ref)
        if _COMMIT.fullmatch(wanted):
            with contextlib.suppress(Failed):  # servers may refuse a commit that no ref names
                self._fetch_refs(limit, "--depth=1", f"+{wanted}:{self._fetched_ref}")
                return self._commit(self._fetched_ref)
        everything = [f"+refs/{kind}/*:{_ALL_REFS}{kind}/*" for kind in ("heads", "tags")]
        self._fetch_refs(limit, f"--depth={_WHOLE_HISTORY}", *everything)
        try:
            commit = self._commit(wanted)
        except RevisionNotFound:
            raise RevisionNotFound("no branch or tag of the repository leads to such a commit") from None
        self._commands.run(["update-ref", self._fetched_ref, commit])
        self._keep_refs(lambda name: not name.startswith(_ALL_REFS))
        return commit

    def _fetch_anew(self, ref: str, wanted: str, limit: float) -> str:
        """Fetch into a new mirror, which takes the old one's place when it is complete."""
        fresh = self.mirror.with_name(f"{self.mirror.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._commands.directory = fresh
        try:
            self._init(sha256=len(wanted) == _SHA256_DIGITS)
            commit = self._fetch(ref, wanted, limit)
        finally:
            self._commands.directory = self.mirror
        shutil.rmtree(self.mirror, ignore_errors=True)
        fresh.rename(self.mirror)
        return commit

    def _fetch_refs(self, limit: float, depth: str, *refspecs: str) -> None:
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance"]
        command = ["fetch", *options, "--update-shallow", depth, "--", self.spec.repository, *refspecs]
        self._commands.run(command, timeout=limit)

    # --- the mirror ---

    def good(self) -> str | None:
        """Return the last commit that gave a snapshot, None when the mirror has none."""
        with self._in_words():
            self._open()
            return self._resolve(self._good_ref)

    def keep(self, commit: str, pins: Mapping[str, Sequence[str]]) -> None:
        """Remember over a restart that `commit` gave a snapshot.

        `pins` are blobs of earlier commits that are still in force, by file, because the file is unreadable
        now.
        """
        with self._in_words():
            updates = [f"update {self._good_ref} {commit}"]
            updates += [f"update {_PIN_REFS}{blob} {blob}" for blobs in pins.values() for blob in blobs]
            self._commands.run(["update-ref", "--stdin"], stdin="\n".join([*updates, ""]).encode())
            if pins or self._pins:
                part = self.mirror / f"{_PINS}.part"
                part.write_bytes(msgspec.json.encode(pins))
                part.replace(self.mirror / _PINS)
            self._pins = {file: list(blobs) for file, blobs in pins.items()}

    def pins(self) -> dict[str, list[str]]:
        """Return what `keep` was told last, also before a restart."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self._pins = msgspec.json.decode((self.mirror / _PINS).read_bytes(), type=dict[str, list[str]])
        return self._pins

    def tidy(self) -> None:
        """Drop refs and objects that nothing needs any more; of objects only when there are many."""
        with self._in_words():
            needed = {self._fetched_ref, self._good_ref}
            needed |= {f"{_PIN_REFS}{blob}" for blobs in self._pins.values() for blob in blobs}
            needed |= self.also_needed
            self._keep_refs(needed.__contains__)
            settings = ["gc.auto=2000", "gc.autoPackLimit=20", "gc.autoDetach=false", "gc.pruneExpire=now"]
            options = [option for setting in settings for option in ("-c", setting)]
            self._commands.run([*options, "gc", "--auto", "--quiet"])

    def tree(self, commit: str) -> list[objects.Entry]:
        """List every file, link and submodule of the source's path at `commit`. Raises `PathNotFound`."""
        with self._in_words():
            entries = objects.tree(self._commands, commit, self.spec.path)
            path = self.spec.path
            if path and not any(entry.is_file or entry.path != path for entry in entries):
                raise PathNotFound(f"commit {commit[:12]} has no folder {path!r}")
            return entries

    def tree_of(self, revision: str) -> list[objects.Entry]:
        """List every file, link and submodule of a commit, whatever the source's path is."""
        with self._in_words():
            return objects.tree(self._commands, revision, "")

    def run(self, arguments: Sequence[str], stdin: bytes | None = None) -> bytes:
        """Run git on the mirror, asking nobody. Raises `Failed` with git's own words."""
        return self._commands.run(arguments, stdin=stdin)

    def blobs(self, entries: Sequence[objects.Entry]) -> Iterator[tuple[objects.Entry, bytes]]:
        """Read `entries`, in order and in batches. Raises `MirrorCorrupt` when one is missing."""
        with self._in_words():
            yield from objects.blobs(self._commands, entries)

    def _open(self) -> None:
        if self._opened:
            return
        _remove_leftovers(self.mirror)
        try:
            remote = self._commands.run(["config", "--get", "driftwatch.remote"]).decode().strip()
            self._commands.run(["rev-parse", "--is-bare-repository"])
        except Failed:
            remote = ""
        if remote != self._remote_id():
            shutil.rmtree(self.mirror, ignore_errors=True)
            self._init(sha256=False)
        self._opened = True

    def _init(self, *, sha256: bool) -> None:
        self.mirror.parent.mkdir(parents=True, exist_ok=True)
        object_format = "sha256" if sha256 else "sha1"
        options = ["--bare", "--quiet", "--template=", f"--object-format={object_format}"]
        self._commands.run(["init", *options, "--initial-branch=driftwatch"])
        self._commands.run(["config", "driftwatch.remote", self._remote_id()])

    def _remote_id(self) -> str:
        """Return what stands for the remote in the mirror: no password, and a new password is no new remote."""
        return hashlib.blake2b(redacted(self.spec.repository).encode(), digest_size=16).hexdigest()

    def _keep_refs(self, is_needed: Callable[[str], bool]) -> None:
        names = self._commands.run(["for-each-ref", "--format=%(refname)"]).decode().splitlines()
        deletions = [f"delete {name}" for name in names if not is_needed(name)]
        if deletions:
            self._commands.run(["update-ref", "--stdin"], stdin="\n".join([*deletions, ""]).encode())

    def _resolve(self, ref: str) -> str | None:
        """Return the commit of a ref of ours whose tree is there, None when there is none."""
        try:
            answer = self._commands.run(["rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"])
            commit = answer.decode().strip()
            self._commands.run(["cat-file", "-e", f"{commit}^{{tree}}"])
        except Failed:
            return None
        return commit

    def _commit(self, revision: str) -> str:
        command = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
        try:
            return self._commands.run(command).decode().strip()
        except Failed as error:
            raise RevisionNotFound("is no commit") from error

    # --- errors -------

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Give errors the name of the source, and sort git's words into what passes and what does not."""
        spec = self.spec
        where = f"source {spec.name}: {redacted(spec.repository)} at {spec.revision}"
        try:
            yield
        except FatalSourceError as error:
            raise type(error)(f"{where}: {error}") from error
        except (MirrorCorrupt, TimedOut, Interrupted) as error:
            raise type(error)(f"{where}: {error}") from error
        except GitError as error:
            words = str(error)
            if _NOT_OURS.search(words):
                hint = f"allow it: git config --global --add safe.directory {redacted(spec.repository)}"
                raise NotARepository(f"{where}: belongs to another user; {hint} ({words})") from error
            if _NO_REPOSITORY.search(words):
                raise NotARepository(f"{where}: {words}") from error
            raise GitError(f"{where}: {words}") from error
        except OSError as error:
            raise GitError(f"{where}: {error.strerror or error}: {error.filename or spec.mirror}") from error


def _remove_leftovers(mirror: Path) -> None:
    """Remove what a git that was killed left behind; the mirror has no other user."""
    for pattern in ("**/*.lock", "objects/**/tmp_*"):
        for leftover in mirror.glob(pattern):
            leftover.unlink(missing_ok=True)
