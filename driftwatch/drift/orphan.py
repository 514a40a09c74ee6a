"""Orphans: live objects of a source that no snapshot declares, and the reasons not to prune them.

An object belongs to a source if it has the label `driftwatch.io/source` and an annotation `driftwatch.io/id` with its
own identity. A copy of such an object (`kubectl get -o yaml`, another name, `kubectl apply`) has both. Its annotation
names the original, so the copy is not an orphan.
"""

from collections.abc import Callable, Iterable

import msgspec
import orjson

from driftwatch.drift.annotations import Prune, expected, is_understood
from driftwatch.drift.policy import Policies
from driftwatch.model import (
    CRD,
    ID_ANNOTATION,
    MODE_ANNOTATION,
    NAMESPACE,
    PRUNE_ANNOTATION,
    SOURCE_LABEL,
    GroupKind,
    Manifest,
    Mode,
    ObjectKey,
)

OFF = "prune is off"
LONGEST_WORD = 40  # characters shown of an unknown annotation value, which may have 256 KiB

GUARDED = {
    NAMESPACE,
    CRD,
    GroupKind("", "PersistentVolume"),
    GroupKind("", "PersistentVolumeClaim"),
}
"""Kinds whose deletion also deletes other objects or data."""

# Annotations of other tools that keep an object without its manifest. They have the same effect here.
_KEPT_BY_OTHERS = {
    "argocd.argoproj.io/sync-options": ("Prune=false", "Delete=false"),
    "kustomize.toolkit.fluxcd.io/prune": ("disabled",),
    "helm.sh/resource-policy": ("keep",),
    "cli-utils.sigs.k8s.io/on-remove": ("keep",),
    "client.lifecycle.config.k8s.io/deletion": ("detach",),
}


class PrunePolicy(msgspec.Struct, frozen=True):
    """The pruning settings of a source: whether and which kinds are pruned, after `delay` seconds, and the limit.

    The limit is exceeded by more than `objects` objects that are also more than `percent` of the source. Their deletion
    waits until `confirm` is the commit (or its first digits) that removes them.
    """

    enabled: bool = False
    kinds: frozenset[str] = frozenset()
    delay: float = 5.0
    objects: int = 10
    percent: float = 20.0
    confirm: str = ""

    def is_too_much(self, count: int, declared: int) -> bool:
        """Whether the removal of `count` objects needs a confirmation if `declared` objects stay."""
        return count > self.objects and count * 100 > self.percent * (count + declared)

    def confirms(self, commit: str) -> bool:
        """Whether the removals of this commit are confirmed."""
        return bool(self.confirm) and commit.startswith(self.confirm)


class Orphan(msgspec.Struct):
    """A live object of a source that no snapshot declares.

    `since` is the time when it was first seen, in monotonic seconds. `asked` says that its deletion was requested.
    """

    source: str
    uid: str
    version: int
    since: float
    labels: dict[str, str]
    annotations: dict[str, str]
    finalizers: tuple[str, ...] = ()
    terminating: bool = False
    asked: bool = False


class _Metadata(msgspec.Struct):
    uid: str = ""
    resourceVersion: str = "0"  # noqa: N815  the API's name
    deletionTimestamp: str = ""  # noqa: N815  the API's name
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []


class _Object(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


_decode = msgspec.json.Decoder(_Object).decode
_REMEMBERED = (PRUNE_ANNOTATION, MODE_ANNOTATION, *_KEPT_BY_OTHERS)


def names_itself(key: ObjectKey, identity: str) -> bool:
    """Whether the id annotation is the object's own identity."""
    parts = identity.split("/")
    if len(parts) != 4:  # noqa: PLR2004  group, kind, namespace, name
        return False
    group, kind, namespace, name = parts
    # The id of a cluster-scoped object may name a namespace: the default namespace of its source.
    return (group, kind, name) == (key.group, key.kind, key.name) and key.namespace in ("", namespace)


def read(key: ObjectKey, raw: bytes, now: float) -> Orphan | None:
    """The orphan in `raw`, a live object's JSON seen at `now`. None if the object belongs to no source."""
    metadata = _decode(raw).metadata
    source = metadata.labels.get(SOURCE_LABEL, "")
    if not source or not names_itself(key, metadata.annotations.get(ID_ANNOTATION, "")):
        return None
    return Orphan(
        source=source,
        uid=metadata.uid,
        version=int(metadata.resourceVersion),
        since=now,
        labels=metadata.labels,
        annotations={name: metadata.annotations[name] for name in _REMEMBERED if name in metadata.annotations},
        finalizers=tuple(metadata.finalizers),
        terminating=bool(metadata.deletionTimestamp),
    )


def mode_of(key: ObjectKey, orphan: Orphan, policies: Policies) -> Mode:
    """The mode of the orphan by the annotation of its last manifest, the rules and its source."""
    body = orjson.dumps({"metadata": {"labels": orphan.labels}})
    said = orphan.annotations.get(MODE_ANNOTATION)
    options = {MODE_ANNOTATION: said} if said else {}
    manifest = Manifest(key.group, "", key.kind, key.namespace, key.name, body, "", "", 0, options)
    return policies.of(orphan.source, key, manifest).mode


def kept_because(kind: GroupKind, orphan: Orphan, policy: PrunePolicy, mode: Mode) -> str:
    """Why an orphan is not pruned, as text for an operator. "" if it may be pruned."""
    if not policy.enabled:
        return OFF
    if mode is not Mode.HEAL:
        return f"mode {mode}"
    if why := _asked_to_stay(orphan):
        return why
    confirmed = orphan.annotations.get(PRUNE_ANNOTATION) == Prune.CONFIRMED
    if kind in GUARDED and not confirmed and kind.kind not in policy.kinds:
        return f"a {kind.kind} needs consent: pruneKinds, or the annotation {PRUNE_ANNOTATION}: {Prune.CONFIRMED}"
    return ""


def _asked_to_stay(orphan: Orphan) -> str:
    """The annotation that keeps the object, as text for an operator. "" if none does."""
    for name in (PRUNE_ANNOTATION, MODE_ANNOTATION):
        value = orphan.annotations.get(name)
        if value == Prune.DISABLED:
            return f"the annotation {name}: {value}"
        if value is not None and not is_understood(name, value):  # it may be meant to keep the object
            return f"the annotation {name} is {value[:LONGEST_WORD]!r}, and must be {expected(name)}"
    for name, words in _KEPT_BY_OTHERS.items():
        value = orphan.annotations.get(name, "")
        if any(part.strip() in words for part in value.split(",")):
            return f"the annotation {name}: {value}"
    return ""


def taken_along(
    leaving: Iterable[ObjectKey], stays: Iterable[ObjectKey], crd_of: Callable[[GroupKind], str]
) -> dict[ObjectKey, ObjectKey]:
    """Leaving namespaces and CRDs whose deletion would delete an object that stays, each with one such object.

    One walk over `stays` checks all of them. `crd_of` returns the name of the CRD of a kind.
    """
    namespaces: dict[str, ObjectKey] = {}
    definitions: dict[str, ObjectKey] = {}
    for key in leaving:
        if key.group_kind == NAMESPACE:
            namespaces[key.name] = key
        elif key.group_kind == CRD:
            definitions[key.name] = key
    found: dict[ObjectKey, ObjectKey] = {}
    if not namespaces and not definitions:
        return found
    kinds: set[tuple[str, str]] = set()
    for each in stays:
        if each.namespace in namespaces:
            found.setdefault(namespaces[each.namespace], each)
        if definitions and (each.group, each.kind) not in kinds:
            kinds.add((each.group, each.kind))
            definition = definitions.get(crd_of(each.group_kind))
            if definition is not None:
                found.setdefault(definition, each)
    return found
