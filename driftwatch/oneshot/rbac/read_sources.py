"""Reads the inputs of the role: the declared objects, and the cluster's names of their kinds."""

from collections.abc import Iterable
from pathlib import Path

import msgspec
import orjson

from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.session import Session
from driftwatch.config import Config
from driftwatch.desired import read_once
from driftwatch.drift.annotations import Prune, Recreate
from driftwatch.drift.desired_state import within
from driftwatch.drift.orphan import GUARDED, PrunePolicy
from driftwatch.drift.policy import Policy
from driftwatch.model import PRUNE_ANNOTATION, RECREATE_ANNOTATION, GroupKind, Manifest, ObjectKey
from driftwatch.oneshot.diff.results import Trouble, unfit, unread
from driftwatch.oneshot.rbac.requirements import Kept, Resource, defined_kinds, guessed
from driftwatch.source_spec import ClusterCapabilities, VariablesFrom


class Declaration(msgspec.Struct):
    """Declared objects, unreadable sources (`unread`), and documents that are left out (`invalid`).

    `confined` is the configuration's `cluster.namespace`, "" for none. `inventory` is the namespace of the inventory,
    "" if it is not in the cluster. `variables` are the objects that rendering reads from the cluster.
    """

    confined: str = ""
    inventory: str = ""
    variables: list[VariablesFrom] = []
    kept: list[Kept] = []
    unread: list[Trouble] = []
    invalid: list[Trouble] = []

    @property
    def kinds(self) -> set[GroupKind]:
        """The kinds of the objects."""
        return {each.manifest.group_kind for each in self.kept}


async def read(
    config: Config, also: set[GroupKind], *, use_cluster: bool
) -> tuple[Declaration, dict[GroupKind, Resource]]:
    """Read the sources, and the cluster's resources of their kinds and of `also`. Without `use_cluster`, sources only.

    Raises `ClusterError` if the cluster cannot be reached.
    """
    if not use_cluster:
        return await declared(config, None), {}
    session = await Session.open(config.cluster.kubeconfig, config.cluster.context)
    try:
        discovery = Discovery(session)
        await discovery.refresh()
        render_inputs = await RenderInputsWatch(session, discovery).read([each.spec(Path()) for each in config.sources])
    finally:
        await session.close()
    found = await declared(config, render_inputs)
    return found, _served(discovery, found.kinds | also)


async def declared(config: Config, render_inputs: ClusterCapabilities | None) -> Declaration:
    """Read every source at its newest commit."""
    reading = await read_once.read(config.sources, render_inputs)
    found = Declaration(config.cluster.namespace or "", config.inventory.namespace)
    found.unread = unread(reading.failures)
    found.variables = [
        reference for source in config.sources for reference in source.spec(Path()).render.variables_from
    ]
    policies, pruning = config.policies(), config.pruning()
    for source, snapshot in reading.snapshots.items():
        found.invalid += unfit(source, snapshot.invalid)
        manifests, refused = within(snapshot.upserts, found.confined)
        found.invalid += [_outside(source, manifest) for manifest in refused]
        for manifest in manifests:
            key = ObjectKey(*manifest.group_kind, manifest.namespace, manifest.name)
            policy = policies.of(source, key, manifest)
            deleted = _may_be_deleted(manifest, policy, pruning[source])
            found.kept.append(Kept(manifest, policy.mode, deleted))
    return found


def _may_be_deleted(manifest: Manifest, policy: Policy, pruning: PrunePolicy) -> bool:
    """Whether driftwatch may delete the object when it leaves Git, or to recreate it.

    Objects whose deletion also deletes other objects or data need explicit consent for each.
    """
    if manifest.group_kind not in GUARDED:
        return pruning.enabled or policy.replace
    annotations = orjson.loads(manifest.body)["metadata"].get("annotations") or {}
    consented = manifest.kind in pruning.kinds or annotations.get(PRUNE_ANNOTATION) == Prune.CONFIRMED
    return (pruning.enabled and consented) or manifest.options.get(RECREATE_ANNOTATION) == Recreate.IMMUTABLE


def _outside(source: str, manifest: Manifest) -> Trouble:
    words = f"{manifest.kind} {manifest.namespace}/{manifest.name} is outside of cluster.namespace"
    return Trouble(words, source, manifest.file, manifest.line)


def _served(discovery: Discovery, kinds: Iterable[GroupKind]) -> dict[GroupKind, Resource]:
    found = {}
    for kind in kinds:
        for version in discovery.versions(kind)[:1]:
            if (resource := discovery.resource(kind.group, version, kind.kind)) is not None:
                found[kind] = Resource(kind.group, resource.plural, namespaced=resource.namespaced)
    return found


def resolved(
    kinds: Iterable[GroupKind], known: dict[GroupKind, Resource], kept: Iterable[Kept]
) -> dict[GroupKind, Resource]:
    """Return the resource of each kind: from the cluster, else from a definition in Git, else by the plural rule."""
    defined = defined_kinds(each.manifest for each in kept)
    return {kind: known.get(kind) or defined.get(kind) or guessed(kind) for kind in kinds}
