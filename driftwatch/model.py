"""Plain, immutable values that the packages share. No I/O.

Terms are those of Kubernetes, or of `docs/architecture.md`: a *manifest* is one declared object, a *source* is a Git
repository, revision and path, a *snapshot* is what a source declares at one commit.
"""

import sys
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import force_setattr

FIELD_MANAGER = "driftwatch"
OUR_PREFIX = "driftwatch.io/"  # prefix of all labels and annotations of driftwatch
SOURCE_LABEL = "driftwatch.io/source"
ID_ANNOTATION = "driftwatch.io/id"
DESIRED_HASH_ANNOTATION = "driftwatch.io/desired-hash"
MODE_ANNOTATION = "driftwatch.io/mode"
ADDITIONS_ANNOTATION = "driftwatch.io/additions"
SNOOZE_ANNOTATION = "driftwatch.io/snooze-until"
PRUNE_ANNOTATION = "driftwatch.io/prune"
RECREATE_ANNOTATION = "driftwatch.io/recreate"
SUBSTITUTE = "driftwatch.io/substitute"  # a label or an annotation

OPTION_ANNOTATIONS = frozenset({MODE_ANNOTATION, ADDITIONS_ANNOTATION, RECREATE_ANNOTATION})
"""Annotations by which a manifest sets options of its object."""

_BUILT_IN_GROUPS = frozenset({"", "apps", "batch", "autoscaling", "policy", "extensions"})


class GroupKind(NamedTuple):
    """A kind without its version, as in watches and CRDs. `group` is "" for the core group."""

    group: str
    kind: str

    @property
    def built_in(self) -> bool:
        """Whether Kubernetes itself owns the group."""
        return self.group in _BUILT_IN_GROUPS or self.group.endswith(".k8s.io")

    def __str__(self) -> str:
        """`Deployment` for a built-in kind, whose name is unique; `Certificate.cert-manager.io` for any other."""
        return self.kind if self.built_in else f"{self.kind}.{self.group}"


NAMESPACE = GroupKind("", "Namespace")
SECRET = GroupKind("", "Secret")
CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")


class ObjectKey(NamedTuple):
    """Identifies one object in a cluster. `namespace` is "" for a cluster-scoped object."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def group_kind(self) -> GroupKind:
        """The kind of the object."""
        return GroupKind(self.group, self.kind)

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.group_kind} {where}"


class Mode(StrEnum):
    """What driftwatch does about drift.

    `heal` puts it back; `observe` reports it and writes nothing, not even a label; `paused` does neither, for a while;
    `ignore` does neither for good, but may create the object anew when it is deleted.
    """

    HEAL = "heal"
    OBSERVE = "observe"
    PAUSED = "paused"
    IGNORE = "ignore"


_NO_OPTIONS: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, gc=False):
    """One declared object, ready for server-side apply.

    `namespace` comes from the manifest, else it is the source's default namespace. Only discovery knows whether the
    kind is namespaced, so the daemon builds the `ObjectKey`. `body` is the server-side apply body as JSON: `stringData`
    merged into `data`, no `status`, no nulls, no `metadata.namespace`, with the tracking label and annotations.
    `digest` is the value of its `driftwatch.io/desired-hash` annotation. `options` are the other `driftwatch.io/*`
    annotations that Git sets on the object. `file` and `line` locate the manifest in the repository.
    """

    group: str
    version: str
    kind: str
    namespace: str
    name: str
    body: bytes
    digest: str
    file: str
    line: int
    options: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Intern strings that thousands of manifests share; decoding creates a new string for each."""
        force_setattr(self, "group", sys.intern(self.group))
        force_setattr(self, "version", sys.intern(self.version))
        force_setattr(self, "kind", sys.intern(self.kind))
        force_setattr(self, "namespace", sys.intern(self.namespace))
        if not self.options:
            force_setattr(self, "options", _NO_OPTIONS)

    @property
    def group_kind(self) -> GroupKind:
        """The kind of the object that this manifest declares."""
        return GroupKind(self.group, self.kind)

    def __str__(self) -> str:
        return f"{self.group_kind} {self.namespace}/{self.name} ({self.file}:{self.line})"


class ManifestId(ObjectKey):
    """Identifies one manifest in a snapshot: an `ObjectKey` before discovery has shown which kinds are namespaced."""

    __slots__ = ()


class InvalidManifest(msgspec.Struct, frozen=True):
    """A malformed manifest: its location and the reason.

    `elsewhere` means that the contents are not in the repository (a submodule, Git LFS), so the source may declare more
    than the snapshot shows.
    """

    file: str
    line: int
    reason: str
    elsewhere: bool = False


class DriftType(StrEnum):
    """How an object differs from Git."""

    DELETED = "deleted"
    MODIFIED = "modified"
    ADDED = "added"
    ORPHANED = "orphaned"


class FieldDrift(msgspec.Struct, frozen=True):
    """One field that differs, and who changed it.

    `declared` and `live` are shortened JSON text: "<none>" for an absent field, "<hidden>" for a value of a Secret.
    `manager` is "" if the field has no owner any more, for example after a removal. `time` is RFC 3339, in whole
    seconds.
    """

    path: str
    declared: str
    live: str
    manager: str = ""
    operation: str = ""
    subresource: str = ""
    time: str = ""


class Drift(msgspec.Struct, frozen=True):
    """A difference from Git not caused by driftwatch. `manager` is its first cause, "" if unknown."""

    key: ObjectKey
    source: str
    type: DriftType
    manager: str = ""
    fields: tuple[FieldDrift, ...] = ()


def named(key: ObjectKey) -> dict[str, str]:
    """The object's identity as log keys."""
    return {"kind": str(key.group_kind), "namespace": key.namespace, "name": key.name}


class Priority(IntEnum):
    """Which keys go first."""

    DRIFT = 0
    SYNC = 1


PRIORITIES = tuple(Priority)
"""All of them, the first one first. To iterate over an enumeration takes longer than what the queue does with each."""
