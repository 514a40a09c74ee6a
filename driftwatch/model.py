"""The values that travel between the rooms: plain, immutable, without I/O.

Terms are those of Kubernetes, or of `docs/architecture.md`: a *manifest* is one declared object, a *source* is a Git
repository, revision and path, a *snapshot* is what a source declares at one commit.
"""

import sys
from enum import IntEnum, StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import force_setattr

FIELD_MANAGER = "driftwatch"
OUR_PREFIX = "driftwatch.io/"  # of every label and annotation that is about us
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
"""What a manifest may say of how its object is treated."""

_BUILT_IN_GROUPS = frozenset({"", "apps", "batch", "autoscaling", "policy", "extensions"})


class GroupKind(NamedTuple):
    """A kind without its version: what a watch and a CRD are about. `group` is "" for the core group."""

    group: str
    kind: str

    @property
    def built_in(self) -> bool:
        """Whether Kubernetes itself owns the group."""
        return self.group in _BUILT_IN_GROUPS or self.group.endswith(".k8s.io")

    def __str__(self) -> str:
        """`Deployment` for a kind of Kubernetes, unique by its name; `Certificate.cert-manager.io` for others."""
        return self.kind if self.built_in else f"{self.kind}.{self.group}"


NAMESPACE = GroupKind("", "Namespace")
SECRET = GroupKind("", "Secret")
CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")


class ObjectKey(NamedTuple):
    """Names one object in a cluster. `namespace` is "" for a cluster-scoped object."""

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
    """One declared object, ready to be applied.

    `namespace` is what the manifest says, else the source's default namespace; whether the kind has namespaces at all
    is known only to discovery, so it is the daemon that makes the `ObjectKey`. `body` is the server-side apply body
    as JSON: `stringData` merged into `data`, no `status`, no nulls, no `metadata.namespace`, with the tracking label
    and annotations. `digest` is the value of the `driftwatch.io/desired-hash` annotation in it. `options` are the other
    `driftwatch.io/*` annotations that Git gives the object.
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
        """Share what thousands of manifests have in common: decoding makes a string of its own for each."""
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
    """Names one manifest within a snapshot: an `ObjectKey` before discovery has said which kinds have namespaces."""

    __slots__ = ()


class InvalidManifest(msgspec.Struct, frozen=True):
    """A document that should be a manifest and is not, with where it stands and what is wrong with it.

    `elsewhere` says that its contents are not in the repository (a submodule, Git LFS), so that the source may declare
    less than it seems to.
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
    """One field that differs, and who did it.

    `declared` and `live` are JSON text, shortened, "<none>" for a field that is not there, "<hidden>" for a value of
    a Secret. `manager` is "" where nobody owns the field any more, as after a removal; `time` is RFC 3339, whole
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
    """A difference from Git that the cluster did not get from us. `manager` caused it first, "" if nobody knows."""

    key: ObjectKey
    source: str
    type: DriftType
    manager: str = ""
    fields: tuple[FieldDrift, ...] = ()


def named(key: ObjectKey) -> dict[str, str]:
    """The object's name as every log line has it."""
    return {"kind": str(key.group_kind), "namespace": key.namespace, "name": key.name}


class Priority(IntEnum):
    """Which keys go first."""

    DRIFT = 0
    SYNC = 1


PRIORITIES = tuple(Priority)
"""All of them, the first one first. To iterate over an enumeration takes longer than what the queue does with each."""
