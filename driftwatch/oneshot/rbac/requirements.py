"""RBAC requirements of healing an object: verbs on its kind, and for RBAC objects verbs on their names.

The verbs are those of the daemon's requests in the API server's audit log:

- `list` and `watch` for each kind, `get` to read an object again.
- `patch` for an apply, and `create` if the object does not exist.
- `update` for the dry run that checks whether a manifest is valid by itself.
- `delete` for objects that are pruned or recreated.

A dry run needs the permission of the write: RBAC cannot distinguish them.

Writing a role requires the permissions that it grants, or `escalate` on the role. Writing a binding requires the
permissions of its role, or `bind` on that role (Kubernetes documentation, "Using RBAC Authorization": privilege
escalation prevention).
"""

from collections.abc import Iterable, Iterator

import msgspec
import orjson

from driftwatch.model import GroupKind, Manifest, Mode
from driftwatch.oneshot.validate.scopes import definitions, is_namespaced

OBSERVING = ("get", "list", "watch", "create", "patch")
HEALING = (*OBSERVING, "update")
VERBS = (*HEALING, "delete", "bind", "escalate")
"""Every verb that driftwatch uses, in the order of the output."""

RBAC = "rbac.authorization.k8s.io"
_ROLES = {"Role": "roles", "ClusterRole": "clusterroles"}
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")


class Resource(msgspec.Struct, frozen=True):
    """A kind as RBAC names it. `guessed` is True if the plural comes from Kubernetes' naming rule."""

    group: str
    plural: str
    guessed: bool = False
    namespaced: bool = True


class Requirement(msgspec.Struct, frozen=True):
    """Verbs on a kind. `names` limits them to these objects, `namespace` to that namespace."""

    group: str
    plural: str
    verbs: frozenset[str]
    names: frozenset[str] = frozenset()
    namespace: str = ""


class Kept(msgspec.Struct, frozen=True):
    """A declared object with its mode. `deleted` is True if driftwatch may delete it."""

    manifest: Manifest
    mode: Mode
    deleted: bool = False


def of_kind(resource: Resource, *, healed: bool = True) -> Requirement:
    """Return the requirement of a kind whose objects are healed, or only observed."""
    return Requirement(resource.group, resource.plural, frozenset(HEALING if healed else OBSERVING))


def of_objects(kept: Iterable[Kept], resources: dict[GroupKind, Resource]) -> Iterator[Requirement]:
    """Yield the requirements of these objects, with duplicates, each in the namespace of its object."""
    for each in kept:
        resource = resources[each.manifest.group_kind]
        namespace = each.manifest.namespace if resource.namespaced else ""
        for requirement in _of_object(each, resource):
            yield msgspec.structs.replace(requirement, namespace=namespace)


def _of_object(kept: Kept, resource: Resource) -> Iterator[Requirement]:
    # A paused object may be healed again later, and an ignored object may be recreated.
    yield of_kind(resource, healed=kept.mode is not Mode.OBSERVE)
    if kept.deleted and kept.mode is not Mode.OBSERVE:
        yield Requirement(resource.group, resource.plural, frozenset({"delete"}))
    yield from _against_escalation(kept.manifest)


def _against_escalation(manifest: Manifest) -> Iterator[Requirement]:
    """Yield `escalate` and `bind` by name, so that no other role can be written or granted."""
    if manifest.group != RBAC:
        return
    if plural := _ROLES.get(manifest.kind):
        yield Requirement(RBAC, plural, frozenset({"escalate"}), frozenset({manifest.name}))
    elif manifest.kind in _BINDINGS:
        reference = orjson.loads(manifest.body).get("roleRef")
        if isinstance(reference, dict) and (plural := _ROLES.get(str(reference.get("kind")))):
            yield Requirement(RBAC, plural, frozenset({"bind"}), frozenset({str(reference.get("name"))}))


def defined_kinds(manifests: Iterable[Manifest]) -> dict[GroupKind, Resource]:
    """Return the resources that CustomResourceDefinitions among the manifests define."""
    return {
        kind: Resource(kind.group, plural, namespaced=namespaced) for kind, plural, namespaced in definitions(manifests)
    }


def guessed(kind: GroupKind) -> Resource:
    """Guess the resource by apimachinery's `meta.UnsafeGuessKindToResource`, which is right for all built-in kinds."""
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
