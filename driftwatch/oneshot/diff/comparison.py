"""Compares every declared object with the result of a dry-run apply.

It only reads and sends dry runs, so it can run at any time beside a daemon. It has no state: a commit that the daemon
has not applied yet is a difference too.
"""

import asyncio
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.errors import NOT_FOUND, ApiError, ClusterError
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.session import Session
from driftwatch.config import Config
from driftwatch.desired import read_once
from driftwatch.drift.desired_state import Declared, within
from driftwatch.drift.detector import Detector
from driftwatch.drift.metadata import decode_head
from driftwatch.drift.object_state import Declaration, ObjectState
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import wish
from driftwatch.model import NAMESPACE, GroupKind, Manifest, Mode, ObjectKey
from driftwatch.oneshot.diff.describe import being_deleted, deleted, described, masked_message
from driftwatch.oneshot.diff.orphans import OrphanFinder
from driftwatch.oneshot.diff.results import Difference, Results, Trouble, unfit, unread
from driftwatch.reconcile.dry_run import LOOKS, compare, is_tracked, without_ours
from driftwatch.reconcile.interfaces import Target
from driftwatch.reconcile.outcome import Outcome, classify
from driftwatch.reconcile.schedule import Schedule

MOST_LISTED = 20  # kinds or namespaces listed in the error about a filter that matches none
CONCURRENCY = 8  # objects compared at the same time, as in the daemon's controller

Advance = Callable[[int, int], None]


class Filter(msgspec.Struct, frozen=True):
    """Filter of the compared objects: glob patterns per field, of which one must match. No patterns match all."""

    sources: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def takes_source(self, name: str) -> bool:
        """Whether the filter matches the source."""
        return _any(self.sources, name)

    def takes(self, source: str, kind: GroupKind, namespace: str, name: str) -> bool:
        """Whether the filter matches the object. Kind patterns match with or without the group, in any case."""
        kinds = tuple(pattern.lower() for pattern in self.kinds)
        return (
            self.takes_source(source)
            and (_any(kinds, kind.kind.lower()) or _any(kinds, str(kind).lower()))
            and _any(self.namespaces, namespace)
            and _any(self.names, name)
        )

    def idle(self, objects: Iterable[tuple[GroupKind, str, str]]) -> list[str]:
        """Return an error for each pattern that matches none of these objects (kind, namespace, name)."""
        objects = list(objects)
        kinds = {str(kind) for kind, _, _ in objects}
        namespaces = {namespace for _, namespace, _ in objects if namespace}
        words = [
            f"--kind {pattern}: Git declares nothing of that kind; it declares {_listed(kinds)}"
            for pattern in self.kinds
            if not any(Filter(kinds=(pattern,)).takes("", *each) for each in objects)
        ]
        words += [
            f"--namespace {pattern}: Git declares nothing there; it declares objects in {_listed(namespaces)}"
            for pattern in self.namespaces
            if not any(Filter(namespaces=(pattern,)).takes("", *each) for each in objects)
        ]
        words += [
            f"--name {pattern}: Git declares nothing of that name"
            for pattern in self.names
            if not any(Filter(names=(pattern,)).takes("", *each) for each in objects)
        ]
        return words

    @property
    def is_narrow(self) -> bool:
        """Whether the filter excludes anything."""
        return self != Filter()


def _listed(names: set[str]) -> str:
    shown = sorted(names)[:MOST_LISTED]
    return ", ".join(shown) + (f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else "")


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


class Comparer:
    """Compares the cluster of a session with the sources of a configuration. `advance` is called with the progress."""

    def __init__(
        self,
        config: Config,
        session: Session,
        chosen: Filter,
        *,
        everything: bool = False,
        advance: Advance | None = None,
    ) -> None:
        self._config = config
        self._chosen = chosen
        self._everything = everything
        self._advance = advance or (lambda _done, _total: None)
        self._discovery = Discovery(session)
        self._render_inputs = RenderInputsWatch(session, self._discovery)
        self._kinds = RestMapper(self._discovery)
        self._declared = Declared((source.name for source in config.sources), self._kinds.namespaced)
        self._detector = Detector(self._declared.states, time.monotonic, config.managers())
        self._api = ApiClient(session)
        self._policies = config.policies()
        self._schedule = Schedule(longest_snooze=config.drift.maxSnooze)
        self._results = Results()
        self._invalid: dict[str, int] = {}  # readable source -> number of its unreadable documents

    async def run(self) -> Results:
        """Compare everything. Raises `ClusterError` if discovery fails."""
        await self._discovery.refresh()
        await self._read_sources()
        chosen = list(self._choose())
        left = await self._left_in_cluster()
        taken = [each for each in left if self._takes(each)]
        self._results.differences += taken
        self._report_troubles_of_git(len(chosen) + len(taken), left)
        waiting = iter(chosen)
        done = 0

        async def work() -> None:
            nonlocal done
            for key, declaration, policy in waiting:
                await self._compare(key, declaration, policy)
                done += 1
                self._advance(done, len(chosen))

        async with asyncio.TaskGroup() as workers:
            for _ in range(CONCURRENCY):
                workers.create_task(work())
        self._results.sort()
        return self._results

    async def _read_sources(self) -> None:
        render_inputs = await self._render_inputs.read([source.spec(Path()) for source in self._config.sources])
        reading = await read_once.read(self._config.sources, render_inputs)
        troubles = unread(reading.failures)
        for name, snapshot in reading.snapshots.items():
            kept, refused = within(snapshot.upserts, self._config.cluster.namespace)
            self._declared.replace(name, kept)
            troubles += [
                _trouble("outside of cluster.namespace; it is left alone", name, manifest, _key_of(manifest))
                for manifest in refused
            ]
            self._invalid[name] = len(snapshot.invalid)
            troubles += unfit(name, snapshot.invalid)
        self._results.troubles += [trouble for trouble in troubles if self._chosen.takes_source(trouble.source)]

    async def _left_in_cluster(self) -> list[Difference]:
        """Find orphans of readable sources. For an unreadable source, every object would look like an orphan."""
        left = OrphanFinder(self._config, self._declared, self._kinds, self._api)
        await left.find([name for name in self._invalid if self._chosen.takes_source(name)])
        self._results.troubles += left.troubles
        return [found for found in left.differences(self._invalid) if self._chosen.takes_source(found.source)]

    def _takes(self, found: Difference) -> bool:
        return self._chosen.takes(found.source, found.key.group_kind, found.key.namespace, found.key.name)

    def _choose(self) -> Iterator[tuple[ObjectKey, Declaration, Policy]]:
        for kind in self._declared.kinds:
            for key in self._declared.keys(kind):
                declaration = self._declared.get(key)
                if declaration is None or not self._chosen.takes(declaration.source, kind, key.namespace, key.name):
                    continue
                policy = self._policies.of(declaration.source, key, declaration.manifest)
                if policy.mode in (Mode.PAUSED, Mode.IGNORE) and not self._everything:
                    self._results.left_out += 1
                else:
                    yield key, declaration, policy

    def _report_troubles_of_git(self, chosen: int, left: list[Difference]) -> None:
        """Report declared objects that cannot be compared: kinds that are not served, objects declared twice.

        Then report patterns that match nothing in Git or among the orphans (`left`). Otherwise a mistyped pattern
        beside a matching one would look like a cluster in sync.
        """
        found = self._results
        is_all_read = not found.troubles
        for kind, waiting in self._declared.unknown_kinds.items():
            for source, manifest in waiting:
                if self._chosen.takes(source, kind, manifest.namespace, manifest.name):
                    found.troubles.append(self._unserved(source, manifest, _key_of(manifest)))
        for conflict in self._declared.conflicts():
            refused, owner = conflict.refused, conflict.owner
            if self._chosen.takes(refused.source, conflict.key.group_kind, conflict.key.namespace, conflict.key.name):
                words = f"declared twice; source {owner.source} ({owner.manifest.file}:{owner.manifest.line}) owns it"
                found.troubles.append(_trouble(words, refused.source, refused.manifest, conflict.key))
        if is_all_read:  # otherwise an unread source may declare it
            found.troubles += [Trouble(words, "") for words in self._chosen.idle(self._all(left))]
        if self._chosen.is_narrow and not (chosen or found.left_out or found.troubles):
            found.troubles.append(Trouble("nothing that Git declares matches the filters", ""))

    def _all(self, left: list[Difference]) -> Iterator[tuple[GroupKind, str, str]]:
        """Yield kind, namespace and name of every declared object and orphan of the chosen sources."""
        yield from ((each.key.group_kind, each.key.namespace, each.key.name) for each in left)
        for kind in self._declared.kinds:
            for key in self._declared.keys(kind):
                declaration = self._declared.get(key)
                if declaration is not None and self._chosen.takes_source(declaration.source):
                    yield kind, key.namespace, key.name
        for kind, waiting in self._declared.unknown_kinds.items():
            for source, manifest in waiting:
                if self._chosen.takes_source(source):
                    yield kind, manifest.namespace, manifest.name
        for conflict in self._declared.conflicts():
            if self._chosen.takes_source(conflict.refused.source):
                yield conflict.key.group_kind, conflict.key.namespace, conflict.key.name

    def _unserved(self, source: str, manifest: Manifest, key: ObjectKey) -> Trouble:
        wanted = f"{manifest.group}/{manifest.version}" if manifest.group else manifest.version
        served = ", ".join(self._kinds.served(manifest.group_kind))
        words = f"the cluster does not serve {manifest.kind} at {wanted}" + (f"; it serves {served}" if served else "")
        return _trouble(words, source, manifest, key)

    async def _compare(self, key: ObjectKey, declaration: Declaration, policy: Policy) -> None:
        resource = self._kinds.resource(declaration.manifest)
        if resource is None:
            self._results.troubles.append(self._unserved(declaration.source, declaration.manifest, key))
            return
        state = ObjectState()
        state.policy = policy
        target = Target(key, declaration, resource, state, None)
        raw: bytes | None = None
        try:
            raw = await self._read(target)
            found = await self._difference(target, raw)
        except ClusterError as error:
            words = masked_message(target, raw, str(error))
            self._results.troubles.append(_trouble(words, declaration.source, declaration.manifest, key))
            return
        except Exception as error:  # noqa: BLE001  a bug with one object must not hide the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            # Without the exception's message: it may contain a value of a Secret.
            words = f"unexpected {type(error).__name__} at {Path(where.filename).name}:{where.lineno}, please report it"
            self._results.troubles.append(_trouble(words, declaration.source, declaration.manifest, key))
            return
        if found is None:
            self._results.in_sync += 1
        else:
            self._results.differences.append(found)

    async def _read(self, target: Target) -> bytes | None:
        """Return the live object, None if it does not exist."""
        try:
            return await self._api.read(target.resource, target.key.namespace, target.key.name)
        except ApiError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    async def _missing(self, target: Target) -> Difference:
        """Describe a missing object. Dry-runs its creation, which raises if the API server rejects it."""
        key, body = target.key, target.declaration.manifest.body
        if target.state.policy.mode is not Mode.HEAL:
            body = without_ours(body)
        try:
            wanted = await self._api.dry_run(target.resource, key.namespace, key.name, body)
        except ApiError as error:
            if not self._waits_for_namespace(key, error):
                raise
            return deleted(target, body, f"its namespace {key.namespace} is not there either, or is being deleted")
        return deleted(target, wanted)

    def _waits_for_namespace(self, key: ObjectKey, error: ApiError) -> bool:
        """Whether the create failed only because of the namespace, and Git declares the namespace too."""
        if classify(error) not in (Outcome.NAMESPACE_MISSING, Outcome.NAMESPACE_TERMINATING):
            return False
        return self._declared.get(ObjectKey(*NAMESPACE, "", key.namespace)) is not None

    async def _difference(self, target: Target, raw: bytes | None) -> Difference | None:
        for _ in range(LOOKS):
            if raw is None:
                return await self._missing(target)
            head = decode_head(raw)
            if head.metadata.deletionTimestamp:
                return being_deleted(target, raw)
            found = await compare(self._api, self._detector, target, head, raw, tracked=is_tracked(head.metadata))
            if not found.torn:
                break
            raw = await self._read(target)
        if not found.differing and not found.added:
            return None
        snooze = self._schedule.snoozed(wish(head.metadata, None, time.time()))
        return described(target, found, f"snoozed until {snooze.until}" if snooze else "")


def _key_of(manifest: Manifest) -> ObjectKey:
    return ObjectKey(manifest.group, manifest.kind, manifest.namespace, manifest.name)


def _trouble(message: str, source: str, manifest: Manifest, key: ObjectKey) -> Trouble:
    return Trouble(message, source, manifest.file, manifest.line, key)
