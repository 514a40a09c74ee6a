"""Dry-runs the declared objects on a cluster. The API server checks schema, admission and permissions.

Objects of the same commit may not exist yet. If Git declares an object's missing namespace, the dry run uses another
namespace and name. A custom resource whose CustomResourceDefinition Git declares cannot be checked yet.
"""

import asyncio
import re
from collections.abc import Callable
from secrets import token_hex

import orjson

from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Discovery, Resource
from driftwatch.cluster.errors import ApiError, ClusterError
from driftwatch.cluster.rest_mapper import RestMapper
from driftwatch.cluster.session import Session
from driftwatch.drift.ignore import ignored_paths
from driftwatch.drift.object_state import Declaration
from driftwatch.drift.policy import Policies
from driftwatch.model import NAMESPACE, SECRET, GroupKind, ObjectKey
from driftwatch.oneshot.diff.masking import hidden_paths, scrub
from driftwatch.oneshot.diff.retry import with_retries
from driftwatch.oneshot.validate.results import DryRunSummary, Problem
from driftwatch.oneshot.validate.validate import Check
from driftwatch.reconcile.outcome import Outcome, classify
from driftwatch.report.drift_report import without_values

CONCURRENCY = 8  # objects at the same time, as in the daemon's controller
ELSEWHERE = "default"  # a namespace that every cluster has

_NO_RIGHT = re.compile(r"\bcannot (patch|create|get|update) resource\b")


class DryRuns:
    """Dry-runs every object that a check has read. `advance` is called with the progress."""

    def __init__(self, check: Check, session: Session, policies: Policies, advance: Callable[[int, int], None]) -> None:
        self._check = check
        self._policies = policies
        self._advance = advance
        self._api = ApiClient(session)
        self._discovery = Discovery(session)
        self._kinds = RestMapper(self._discovery)
        self._summary = DryRunSummary(session.server)

    async def run(self) -> None:
        """Add the cluster's answers to the results. Raises `ClusterError` if discovery fails."""
        await self._discovery.refresh()
        self._check.results.dry_run = self._summary
        declarations = self._check.declarations()
        left = iter(declarations)
        done = 0

        async def work() -> None:
            nonlocal done
            for key, declaration in left:
                await self._try(self._as_served(key), declaration)
                done += 1
                self._advance(done, len(declarations))

        async with asyncio.TaskGroup() as workers:
            for _ in range(CONCURRENCY):
                workers.create_task(work())

    def _as_served(self, key: ObjectKey) -> ObjectKey:
        """Return the key without a namespace if the cluster serves the kind as cluster-scoped."""
        return key._replace(namespace="") if self._kinds.namespaced(key.group_kind) is False else key

    async def _try(self, key: ObjectKey, declaration: Declaration) -> None:
        resource = self._kinds.resource(declaration.manifest)
        if resource is None:
            if key.group_kind in self._check.defined:
                self._summary.waiting += 1
            else:
                self._report(key, declaration, self._unserved(declaration, key.group_kind))
            return
        try:
            await self._dry_run(resource, key, declaration.manifest.body)
        except ClusterError as error:
            outcome = classify(error)
            if outcome in (Outcome.NAMESPACE_MISSING, Outcome.NAMESPACE_TERMINATING):
                await self._try_elsewhere(resource, key, declaration)
                return
            self._refused(key, declaration, error)
        else:
            self._summary.accepted += 1

    async def _try_elsewhere(self, resource: Resource, key: ObjectKey, declaration: Declaration) -> None:
        """Dry-run an object whose namespace is missing, under an unused name in another namespace."""
        if self._check.declared.get(ObjectKey(*NAMESPACE, "", key.namespace)) is None:
            words = f"its namespace {key.namespace} is not in the cluster, and no source that was read declares it"
            self._report(key, declaration, words)
            return
        document = orjson.loads(declaration.manifest.body)
        name = document["metadata"]["name"] = f"driftwatch-{token_hex(8)}"
        there = key._replace(namespace=ELSEWHERE, name=name)
        try:
            await self._dry_run(resource, there, orjson.dumps(document))
        except ApiError as error:
            error.message = error.message.replace(name, key.name)
            self._refused(key, declaration, error)
        except ClusterError as error:
            self._refused(key, declaration, error)
        else:
            self._summary.accepted += 1

    async def _dry_run(self, resource: Resource, key: ObjectKey, body: bytes) -> None:
        await with_retries(lambda: self._api.dry_run(resource, key.namespace, key.name, body))

    def _unserved(self, declaration: Declaration, kind: GroupKind) -> str:
        manifest = declaration.manifest
        wanted = f"{manifest.group}/{manifest.version}" if manifest.group else manifest.version
        served = ", ".join(self._kinds.served(kind))
        return f"the cluster does not serve {manifest.kind} at {wanted}" + (f"; it serves {served}" if served else "")

    def _refused(self, key: ObjectKey, declaration: Declaration, error: ClusterError) -> None:
        unchecked = classify(error) is Outcome.RETRY or bool(_NO_RIGHT.search(str(error)))
        self._report(key, declaration, self._masked(key, declaration, str(error)), unchecked=unchecked)

    def _masked(self, key: ObjectKey, declaration: Declaration, words: str) -> str:
        """Mask the values of a Secret or a sensitive field that the API server quotes."""
        secret = key.group_kind == SECRET
        policy = self._policies.of(declaration.source, key, declaration.manifest)
        if not secret and not policy.sensitive:
            return words
        document = orjson.loads(declaration.manifest.body)
        paths = hidden_paths(document, ignored_paths(document, [], policy.sensitive), secret=secret)
        words = scrub(words, [document], paths)
        return without_values(words) if secret else words

    def _report(self, key: ObjectKey, declaration: Declaration, words: str, *, unchecked: bool = False) -> None:
        manifest = declaration.manifest
        self._check.results.problems.append(
            Problem(words, declaration.source, manifest.file, manifest.line, key, unchecked=unchecked)
        )
