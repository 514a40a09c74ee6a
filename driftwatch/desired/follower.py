"""Follows one source: fetches it, reads the changed files, and sends the changes to the daemon."""

import contextlib
import itertools
import threading
import time
import traceback
from collections.abc import Iterable
from typing import BinaryIO

from driftwatch import memory
from driftwatch.backoff import backoff
from driftwatch.desired import protocol
from driftwatch.desired.protocol import Change, Fetched, FetchFailed, Frame
from driftwatch.desired.snapshot import SnapshotChange, Snapshots
from driftwatch.escape import printable
from driftwatch.git import runner
from driftwatch.git.errors import FatalSourceError, MirrorCorrupt, NotDelivered, RenderError, SourceError
from driftwatch.git.repository import Repository
from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

FIRST_ANSWER_SECONDS = 5.0
"""Longest wait for Git's first answer after a start. After that the mirror on disk serves until Git answers."""

LONGEST_PAUSE_SECONDS = 300.0
_ITEM_BYTES = 64
_sequence = itertools.count(1)


class FrameWriter:
    """Writes frames to a stream, one message at a time, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: Frame) -> None:
        """Write one message. A broken pipe is ignored: when the daemon is gone, the closed stdin ends the process."""
        data = protocol.encode(message)
        with self._lock, contextlib.suppress(BrokenPipeError):
            self._stream.write(data)
            self._stream.flush()


class Follower:
    """Follows one source in its own thread."""

    def __init__(
        self,
        spec: SourceSpec,
        outlet: FrameWriter,
        after: "Follower | None" = None,
        surroundings: ClusterCapabilities | None = None,
        generation: int = 0,
    ) -> None:
        self.spec = spec
        self.generation = generation
        self._owed = False
        self._must_resend = False
        self._outlet = outlet
        self._after = after
        self._repository = Repository(spec)
        self._snapshots = Snapshots(spec, self._repository)
        self._snapshots.surround(surroundings or ClusterCapabilities())
        self._serving = ""
        self._kept = ""
        self._failures = 0
        self._rendered = 0.0
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"source {spec.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poll(self) -> None:
        """Poll the remote now."""
        self._wake.set()

    def resend(self) -> None:
        """Send the full snapshot again."""
        self._must_resend = True
        self._wake.set()

    def surround(self, surroundings: ClusterCapabilities) -> None:
        """Set the cluster's inputs for rendering, and check now whether they change the snapshot."""
        self._snapshots.surround(surroundings)
        self._wake.set()

    def stop(self) -> None:
        """Stop sending, and end the running git command."""
        self._stopped = True
        self._repository.interrupt()
        self._snapshots.interrupt()
        self._wake.set()

    def _run(self) -> None:
        if self._after is not None:  # both use the same mirror
            self._after._thread.join()  # noqa: SLF001
            self._after = None
        self._first_round()
        while not self._stopped:
            if self._wake.wait(self._pause()):
                self._wake.clear()
            if not self._stopped:
                self._round(self.spec.timeout)

    def _first_round(self) -> None:
        """Send a first snapshot soon: Git's if it answers in time, else the mirror's while the wait for Git goes on."""
        limit = self.spec.timeout
        with contextlib.suppress(SourceError):
            if self._repository.good() is not None:
                limit = min(limit / 2, FIRST_ANSWER_SECONDS)
        if not self._round(limit, may_take_longer=limit < self.spec.timeout):
            self._round(self.spec.timeout)

    def _round(self, limit: float, *, may_take_longer: bool = False) -> bool:
        """Poll the remote once. Returns False when it did not answer and `may_take_longer` is set."""
        began = time.monotonic()
        try:
            commit = self._repository.sync(limit)
            fetched = time.monotonic()
            try:
                self._advance(commit)
            except MirrorCorrupt:
                commit = self._repository.sync(limit, rebuild=True)
                self._advance(commit)
        except runner.TimedOut as error:
            if may_take_longer:
                self._serve_mirror()
                return False
            self._fail(error)
        except SourceError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  a bug must not end the thread of the source
            traceback.print_exc()
            self._fail(SourceError(f"source {self.spec.name}: {type(error).__name__}: {error}"))
        else:
            self._failures = 0
            self._send(Fetched(self.spec.name, commit, time.time(), fetched - began, self._rendered))
            self._rendered = 0.0
            if self._snapshots.trouble:
                self._fail(RenderError(self._snapshots.trouble, passes=True))
        return True

    def _advance(self, commit: str) -> None:
        if self._must_resend:
            self._must_resend = False
            self._owed = True
            self._snapshots.start_over()
        if self._owed or commit != self._serving or self._snapshots.is_stale():
            self._show(commit)
        elif commit == self._kept:
            return
        self._repository.keep(commit, self._snapshots.pins())  # if the disk is full, the next poll tries again
        self._kept = commit
        self._repository.tidy()

    def _show(self, commit: str, *, last_rendered: bool = False) -> None:
        began = time.monotonic()
        change = self._snapshots.at(commit, last_rendered=last_rendered)
        self._rendered = time.monotonic() - began
        self._owed = True
        try:
            for chunk in chunks(self.spec.name, change):
                self._send(chunk)
        except Exception as error:
            traceback.print_exc()
            self._snapshots.take_back()
            reason = f"commit {commit[:12]} is not in force, it cannot be handed over: {type(error).__name__}: {error}"
            raise NotDelivered(f"source {self.spec.name}: {reason}") from error
        self._snapshots.delivered()
        self._owed = False
        self._serving = commit
        del change
        memory.release()

    def _serve_mirror(self) -> str:
        """Serve the last good commit on disk, unless a commit is served already. Returns the error, or ""."""
        try:
            good = None if self._serving else self._repository.good()
            if good is not None:
                self._show(good, last_rendered=True)
        except SourceError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  a bug must not end the thread of the source
            traceback.print_exc()
            return f"{type(error).__name__}: {error}"
        return ""

    def _pause(self) -> float:
        """Return the seconds until the next poll: the interval, and longer while polls fail."""
        if self._failures == 0:
            return self.spec.interval
        longest = max(self.spec.interval, LONGEST_PAUSE_SECONDS)
        return backoff(self._failures, self.spec.interval, longest, least=0.75)

    def _fail(self, error: SourceError) -> None:
        self._failures += 1
        trouble = self._serve_mirror()
        words = f"{error}; nor can the mirror on disk serve: {trouble}" if trouble not in str(error) else str(error)
        fatal = isinstance(error, FatalSourceError) or (isinstance(error, RenderError) and not error.passes)
        failed = FetchFailed(self.spec.name, printable(words), self._serving, fatal, time.time(), error.reason)
        if isinstance(error, RenderError):
            failed.file, failed.line = printable(error.file), error.line
        self._send(failed)

    def _send(self, message: Change | Fetched | FetchFailed) -> None:
        if not self._stopped:
            message.generation = self.generation
            self._outlet.send(message)


def chunks(source: str, change: SnapshotChange) -> list[Change]:
    """Cut a change into messages that are small enough not to block the daemon. The last one has `last` set."""
    sequence = next(_sequence)

    def opened(*, first: bool = False) -> Change:
        return Change(source, change.commit, full=change.full, last=False, first=first, sequence=sequence)

    messages = [opened(first=True)]
    size = 0
    everything: Iterable[tuple[str, Manifest | ManifestId | InvalidManifest]] = itertools.chain(
        (("upserts", one) for one in change.upserts),
        (("removed", one) for one in change.removed),
        (("invalid", one) for one in change.invalid),
        (("passed_over", one) for one in change.passed_over),
    )
    for name, one in everything:
        if len(messages[-1].upserts) >= protocol.CHUNK_MANIFESTS or size > protocol.CHUNK_BYTES:
            messages.append(opened())
            size = 0
        getattr(messages[-1], name).append(one)
        size += _size(one)
    messages[-1].last, messages[-1].digest = True, change.digest
    return messages


def _size(one: Manifest | ManifestId | InvalidManifest) -> int:
    """Approximate size in a message, in bytes."""
    match one:
        case Manifest():
            return len(one.body)
        case InvalidManifest():
            return _ITEM_BYTES + len(one.file) + len(one.reason)
        case _:
            return _ITEM_BYTES + sum(map(len, one))
