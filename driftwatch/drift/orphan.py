"""Orphans, objects of a source that no snapshot declares: their source, and what keeps each from being pruned.

An object belongs to a source if it has the label `driftwatch.io/source`, and an annotation `driftwatch.io/id` with its
own identity. A copy of such an object (`kubectl get -o yaml`, another name, `kubectl apply`) carries both, but its
annotation names the original, so it is no orphan.
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
LONGEST_WORD = 40  # characters of an annotation that is not understood; it may have 256 KiB

GUARDED = {
    NAMESPACE,
    CRD,
    GroupKind("", "PersistentVolume"),
    GroupKind("", "PersistentVolumeClaim"),
}
"""Kinds whose deletion takes other objects, or data, with it."""

# What other tools' users have written on objects that must outlive their manifest. It counts here as it does there.
_KEPT_BY_OTHERS = {
    "argocd.argoproj.io/sync-options": ("Prune=false", "Delete=false"),
    "kustomize.toolkit.fluxcd.io/prune": ("disabled",),
    "helm.sh/resource-policy": ("keep",),
    "cli-utils.sigs.k8s.io/on-remove": ("keep",),
    "client.lifecycle.config.k8s.io/deletion": ("detach",),
}


class PrunePolicy(msgspec.Struct, frozen=True):
    """What a source allows: whether and which kinds are pruned, after `delay` seconds, and how much at once.

    More than `objects` objects that are also more than `percent` of the source are held, until `confirm` is the commit
    (or its first digits) that removes them.
    """

    enabled: bool = False
    kinds: frozenset[str] = frozenset()
    delay: float = 5.0
    objects: int = 10
    percent: float = 20.0
    confirm: str = ""

    def is_too_much(self, count: int, declared: int) -> bool:
        """Whether removing `count` objects beside which `declared` stay needs a confirmation."""
        return count > self.objects and count * 100 > self.percent * (count + declared)

    def confirms(self, commit: str) -> bool:
        """Whether somebody has confirmed what this commit removes."""
        return bool(self.confirm) and commit.startswith(self.confirm)


class Orphan(msgspec.Struct):
    """A live object of a source that no snapshot declares.

    `since` is when it was first seen, in monotonic seconds; `asked` says that its deletion was requested.
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
    # What has no namespace was declared beside things that have one: its id names the source's default namespace.
    return (group, kind, name) == (key.group, key.kind, key.name) and key.namespace in ("", namespace)


def read(key: ObjectKey, raw: bytes, now: float) -> Orphan | None:
    """The orphan in `raw`, a live object's JSON seen at `now`; None where it does not belong to a source."""
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
    """The mode that rules, source and the last manifest's annotation give the object."""
    body = orjson.dumps({"metadata": {"labels": orphan.labels}})
    said = orphan.annotations.get(MODE_ANNOTATION)
    options = {MODE_ANNOTATION: said} if said else {}
    manifest = Manifest(key.group, "", key.kind, key.namespace, key.name, body, "", "", 0, options)
    return policies.of(orphan.source, key, manifest).mode


def kept_because(kind: GroupKind, orphan: Orphan, policy: PrunePolicy, mode: Mode) -> str:
    """Why an orphan is not pruned, in words for an operator; "" where it may be."""
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
    """The annotation of the object that keeps it, in words; "" where none does."""
    for name in (PRUNE_ANNOTATION, MODE_ANNOTATION):
        value = orphan.annotations.get(name)
        if value == Prune.DISABLED:
            return f"the annotation {name}: {value}"
        if value is not None and not is_understood(name, value):  # it may well be the wish that it stays
            return f"the annotation {name} is {value[:LONGEST_WORD]!r}, and must be {expected(name)}"
    for name, words in _KEPT_BY_OTHERS.items():
        value = orphan.annotations.get(name, "")
        if any(part.strip() in words for part in value.split(",")):
            return f"the annotation {name}: {value}"
    return ""


def taken_along(
    leaving: Iterable[ObjectKey], stays: Iterable[ObjectKey], crd_of: Callable[[GroupKind], str]
) -> dict[ObjectKey, ObjectKey]:
    """Of the namespaces and definitions that leave, those whose deletion would delete an object that stays, and one.

    All of them are checked in one walk over `stays`. `crd_of` gives the name that the definition of a kind has.
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
