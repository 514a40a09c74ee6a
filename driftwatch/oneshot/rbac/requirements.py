"""What the API server asks of whoever keeps an object: verbs on its kind, and for RBAC objects verbs on their names.

The verbs are those that the API server's audit log shows of the daemon: LIST and WATCH of each kind; GET to look again;
an apply is PATCH, and CREATE where the object is gone; UPDATE is the dry run that tells whether a manifest is valid by
itself; DELETE is for what is pruned or created anew. A dry run needs what the write needs: RBAC cannot tell them apart.

Who writes a role must hold what it grants, or be allowed to `escalate` that role; who writes a binding, or be allowed
to `bind` the role that it refers to (Kubernetes' "Using RBAC Authorization": privilege escalation prevention).
"""

from collections.abc import Iterable, Iterator

import msgspec
import orjson

from driftwatch.model import GroupKind, Manifest, Mode
from driftwatch.oneshot.validate.scopes import definitions, is_namespaced

OBSERVING = ("get", "list", "watch", "create", "patch")
HEALING = (*OBSERVING, "update")
VERBS = (*HEALING, "delete", "bind", "escalate")
"""Every verb that there is, in the order in which they are written."""

RBAC = "rbac.authorization.k8s.io"
_ROLES = {"Role": "roles", "ClusterRole": "clusterroles"}
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


class Resource(msgspec.Struct, frozen=True):
    """A kind as RBAC names it. `guessed`: by Kubernetes' own rule for plurals, since nobody was there to ask."""

    group: str
    plural: str
    guessed: bool = False
    namespaced: bool = True


class Requirement(msgspec.Struct, frozen=True):
    """Verbs on a kind, or, with `names`, on these objects of it; with `namespace` only there."""

    group: str
    plural: str
    verbs: frozenset[str]
    names: frozenset[str] = frozenset()
    namespace: str = ""


class Kept(msgspec.Struct, frozen=True):
    """An object that Git declares, and what may be done about it; `deleted` says that we may delete it ourselves."""

    manifest: Manifest
    mode: Mode
    deleted: bool = False


def of_kind(resource: Resource, *, healed: bool = True) -> Requirement:
    """What objects of a kind need that are healed, or only observed."""
    return Requirement(resource.group, resource.plural, frozenset(HEALING if healed else OBSERVING))


def of_objects(kept: Iterable[Kept], resources: dict[GroupKind, Resource]) -> Iterator[Requirement]:
    """What these objects need, each requirement as often as it comes up, in the namespace of the object."""
    for each in kept:
        resource = resources[each.manifest.group_kind]
        namespace = each.manifest.namespace if resource.namespaced else ""
        for requirement in _of_object(each, resource):
            yield msgspec.structs.replace(requirement, namespace=namespace)


def _of_object(kept: Kept, resource: Resource) -> Iterator[Requirement]:
    # One that is paused is healed again one day, and one that is ignored may be created anew.
    yield of_kind(resource, healed=kept.mode is not Mode.OBSERVE)
    if kept.deleted and kept.mode is not Mode.OBSERVE:
        yield Requirement(resource.group, resource.plural, frozenset({"delete"}))
    yield from _against_escalation(kept.manifest)


def _against_escalation(manifest: Manifest) -> Iterator[Requirement]:
    """What the API server asks beyond the verbs of the kind, by name: no other role can be written or given."""
    if manifest.group != RBAC:
        return
    if plural := _ROLES.get(manifest.kind):
        yield Requirement(RBAC, plural, frozenset({"escalate"}), frozenset({manifest.name}))
    elif manifest.kind in _BINDINGS:
        reference = orjson.loads(manifest.body).get("roleRef")
        if isinstance(reference, dict) and (plural := _ROLES.get(str(reference.get("kind")))):
            yield Requirement(RBAC, plural, frozenset({"bind"}), frozenset({str(reference.get("name"))}))


def defined_kinds(manifests: Iterable[Manifest]) -> dict[GroupKind, Resource]:
    """The kinds that CustomResourceDefinitions among the manifests define."""
    return {
        kind: Resource(kind.group, plural, namespaced=namespaced) for kind, plural, namespaced in definitions(manifests)
    }


def guessed(kind: GroupKind) -> Resource:
    """A kind's resource by the rule of apimachinery's `meta.UnsafeGuessKindToResource`, true of all built-in kinds."""
    singular = kind.kind.lower()
    if singular.endswith("endpoints"):
        plural = singular
    elif singular.endswith("s"):
        plural = f"{singular}es"
    elif singular.endswith("y"):
        plural = f"{singular[:-1]}ies"
    else:
        plural = f"{singular}s"
    return Resource(kind.group, plural, guessed=not kind.built_in, namespaced=is_namespaced(kind, {}))
