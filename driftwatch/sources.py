"""Takes in what the desired-state process says of each source: snapshots, fetches, and failures.

A change is taken in whole or not at all. Afterwards a digest of what is declared here is compared with the digest that
the other process sent; when they differ, the full snapshot is requested again.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import structlog

from driftwatch.backoff import backoff
from driftwatch.desired.client import ChangeAssembler, DesiredStateClient
from driftwatch.desired.protocol import Change, Fetched, FetchFailed, FromProcess, set_digest
from driftwatch.drift.desired_state import Declared, within
from driftwatch.metrics.registry import Metrics
from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.prune.safeguards import PruneSafeguards
from driftwatch.reconcile.sync import Sync
from driftwatch.report.source_status import SourceStatusStore
from driftwatch.startup import CannotStart

OTHER_SOURCES = 5.0  # seconds that the start waits for other sources after the first snapshot
DIFFERING_FIRST = 1.0  # seconds until a snapshot that arrived incomplete is requested again
DIFFERING_LONGEST = 300.0
MOST_NAMED = 100  # invalid manifests of one commit that are named: a hundred thousand would hold up the loop

log = structlog.get_logger()


class _Source(msgspec.Struct):
    """All that is remembered of one source.

    `trouble` is None until the process has said something of it, "" once it has a snapshot, else why it has none;
    `hopeless`: waiting does not help. `elsewhere` and `invalid` are what was last logged. `refused` has the digests of
    manifests outside of `cluster.namespace`. `differing` counts differing snapshots in a row.
    """

    trouble: str | None = None
    hopeless: bool = False
    assembler: ChangeAssembler = msgspec.field(default_factory=ChangeAssembler)
    elsewhere: set[tuple[str, str]] = set()
    invalid: set[InvalidManifest] = set()
    refused: dict[ManifestId, str] = {}
    differing: int = 0


class Sources:
    """Runs on the daemon's event loop. `confined` is the only namespace that sources may declare objects in, if any."""

    def __init__(
        self,
        client: DesiredStateClient,
        declared: Declared,
        sync: Sync,
        safeguards: PruneSafeguards,
        status: SourceStatusStore,
        metrics: Metrics,
        confined: str | None,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._client = client
        self._declared = declared
        self._sync = sync
        self._safeguards = safeguards
        self._status = status
        self._metrics = metrics
        self._confined = confined
        self._spawn = spawn
        self._states: dict[str, _Source] = {}
        self._changed = asyncio.Event()

    @property
    def names(self) -> list[str]:
        """The configured sources, in their order."""
        return list(self._states)

    def follow(self, names: Iterable[str]) -> None:
        """Take in messages of these sources. Everything that is remembered of other sources is forgotten."""
        self._states = {name: self._states.get(name) or _Source() for name in names}
        self._changed.set()

    def missing(self) -> Iterator[str]:
        """Which sources have no snapshot yet, and why."""
        for name, state in self._states.items():
            if state.trouble != "":
                yield f"source {name}: {state.trouble or 'no snapshot yet'}"

    async def run(self) -> None:
        """Take in messages until cancelled."""
        async for message in self._client.messages():
            self.on_message(message)

    async def await_first(self) -> None:
        """Wait until each source has said something, or one has a snapshot and `OTHER_SOURCES` are over.

        Raises `CannotStart` when no source has a snapshot and waiting helps none of them.
        """
        deadline: float | None = None
        while not (self._has_snapshot() and all(state.trouble is not None for state in self._states.values())):
            if all(state.hopeless for state in self._states.values()):
                troubles = [f"source {name}: {state.trouble}" for name, state in self._states.items()]
                raise CannotStart("no source has anything to begin with:\n" + "\n".join(troubles))
            self._changed.clear()
            try:
                async with asyncio.timeout(None if deadline is None else max(deadline - time.monotonic(), 0)):
                    await self._changed.wait()
            except TimeoutError:
                break
            if deadline is None and self._has_snapshot():
                deadline = time.monotonic() + OTHER_SOURCES

    def on_message(self, message: FromProcess) -> None:
        """Take in one message of the desired-state process."""
        state = self._states.get(message.source)
        if state is None:
            return  # the source has just left the configuration
        match message:
            case Change():
                if (change := state.assembler.add(message)) is not None:
                    self._on_change(state, change)
            case Fetched():
                self._on_fetched(message)
            case FetchFailed():
                self._on_fetch_failed(state, message)

    def _has_snapshot(self) -> bool:
        return any(state.trouble == "" for state in self._states.values())

    def _on_fetched(self, message: Fetched) -> None:
        self._status.note(message)
        self._metrics.git_success.labels(message.source).set(message.time)
        self._metrics.sources.fetch.labels(message.source).observe(message.fetch_seconds)
        if message.render_seconds:
            self._metrics.sources.render.labels(message.source).observe(message.render_seconds)
        self._safeguards.on_fetched(message.source, message.commit)

    def _on_fetch_failed(self, state: _Source, message: FetchFailed) -> None:
        self._status.note(message)
        self._safeguards.on_fetch_failed(message.source, message.error)
        self._metrics.git_failures.labels(message.source, message.reason).inc()
        log.error(
            "source cannot be read",
            source=message.source,
            reason=message.reason,
            error=message.error,
            next=_next_for(message),
        )
        if not message.serving and state.trouble != "":
            state.trouble, state.hopeless = message.error, message.fatal
            self._changed.set()

    def _on_change(self, state: _Source, change: Change) -> None:
        self._log_invalid(state, change)
        _log_passed_over(state, change)
        upserts = self._within(change.source, change.upserts)
        self._note_refused(state, change, upserts)
        if change.full:
            affected = self._declared.replace(change.source, upserts)
        else:
            affected = self._declared.change(change.source, upserts, map(ManifestId._make, change.removed))
        log.info(
            "snapshot",
            source=change.source,
            commit=change.commit[:12],
            changed=len(change.upserts),
            removed=len(change.removed),
            invalid=len(change.invalid),
        )
        self._status.note(change)
        self._metrics.sources.snapshot(
            change.source,
            change.commit,
            time.time(),
            size=sum(len(manifest.body) for manifest in self._declared.manifests(change.source).values()),
        )
        self._compare(state, change)
        state.trouble, state.hopeless = "", False
        self._changed.set()
        self._sync.on_declared(affected)
        self._safeguards.on_snapshot(change.source, change.commit, len(change.invalid))

    def _compare(self, state: _Source, change: Change) -> None:
        """Request the full snapshot again when what is declared here differs from what the other process has read."""
        declared = self._declared.manifests(change.source).values()
        digests = itertools.chain((manifest.digest for manifest in declared), state.refused.values())
        if set_digest(digests) == change.digest:
            state.differing = 0
            self._status.compared(change.source, "")
            return
        state.differing += 1
        self._metrics.snapshot_differences.labels(change.source).inc()
        wait = backoff(state.differing, DIFFERING_FIRST, DIFFERING_LONGEST)
        self._status.compared(
            change.source, f"the snapshot of commit {change.commit[:12]} arrived incomplete; it is asked for again"
        )
        log.error(
            "snapshot differs from what Git declares",
            source=change.source,
            commit=change.commit[:12],
            next=f"the full snapshot is asked for in {wait:.1f} s",
        )
        self._spawn(self._request_again(change.source, state, wait))

    async def _request_again(self, source: str, state: _Source, wait: float) -> None:
        await asyncio.sleep(wait)
        if state.differing and self._states.get(source) is state:
            await self._client.resend(source)

    def _log_invalid(self, state: _Source, change: Change) -> None:
        """Name each invalid manifest once, and not again with every commit that leaves it as it is."""
        new = [mistake for mistake in change.invalid if mistake not in state.invalid]
        state.invalid = set(change.invalid)
        for mistake in new[:MOST_NAMED]:
            log.error(
                "invalid manifest",
                source=change.source,
                file=f"{mistake.file}:{mistake.line}",
                error=mistake.reason,
                next="its last good version stays in force",
            )
        if len(new) > MOST_NAMED:
            log.error(
                "more invalid manifests",
                source=change.source,
                count=len(new) - MOST_NAMED,
                next="`driftwatch validate` names them all",
            )
        self._metrics.invalid_manifests.labels(change.source).set(len(change.invalid))

    def _within(self, source: str, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
        """The manifests that are in the namespace to which the daemon is confined."""
        kept, refused = within(manifests, self._confined)
        for manifest in refused:
            log.error(
                "outside of cluster.namespace",
                source=source,
                kind=str(manifest.group_kind),
                namespace=manifest.namespace,
                name=manifest.name,
                file=f"{manifest.file}:{manifest.line}",
                next=f"it is left alone; driftwatch is confined to {self._confined}",
            )
        return kept

    def _note_refused(self, state: _Source, change: Change, kept: Sequence[Manifest]) -> None:
        """Remember the digests of manifests outside of `cluster.namespace`: the other process counts them, too."""
        if change.full:
            state.refused = {}
        for gone in change.removed:
            state.refused.pop(ManifestId._make(gone), None)
        if len(kept) < len(change.upserts):
            for manifest in change.upserts:
                if manifest.namespace != self._confined:
                    found = ManifestId(manifest.group, manifest.kind, manifest.namespace, manifest.name)
                    state.refused[found] = manifest.digest


def _log_passed_over(state: _Source, change: Change) -> None:
    elsewhere = {(passed.file, passed.reason) for passed in change.passed_over if passed.elsewhere}
    for file, reason in sorted(elsewhere - state.elsewhere):
        log.warning(
            "not in the repository", source=change.source, file=file, reason=reason, next="nothing of it is applied"
        )
    state.elsewhere = elsewhere
    for passed in change.passed_over:
        log.debug("passed over", source=change.source, file=f"{passed.file}:{passed.line}", reason=passed.reason)


def _next_for(failure: FetchFailed) -> str:
    if failure.serving:
        return f"commit {failure.serving[:12]} stays in force"
    return "nothing of this source is healed until it can be read"
