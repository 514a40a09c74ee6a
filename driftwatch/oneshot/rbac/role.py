"""Builds the RBAC objects for the requirements: a role for the kinds, one for the inventory, and bindings."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from driftwatch.oneshot.rbac.requirements import RBAC, VERBS, Requirement
from driftwatch.source_spec import VariablesFrom

_Rule = dict[str, Any]

_LABELS = {"app.kubernetes.io/name": "driftwatch"}

# Granted to all authenticated users by default (system:discovery), but not in hardened clusters.
_DISCOVERY: _Rule = {"nonResourceURLs": ["/api", "/apis", "/livez", "/version"], "verbs": ["get"]}
_FOLLOWED = frozenset({"list", "watch"})  # with a field selector on metadata.name, which RBAC treats as the name
# To see whether a missing namespace exists again. The uid of kube-system also identifies the cluster.
_NAMESPACES = Requirement("", "namespaces", frozenset({"get"}))
_EVENTS = Requirement("events.k8s.io", "events", frozenset({"create", "patch"}))
_INVENTORY = Requirement("", "configmaps", frozenset({"get", "create", "patch"}))


class Account(msgspec.Struct, frozen=True):
    """Service account that the roles are bound to, and the name of the roles."""

    name: str = "driftwatch"
    namespace: str = "driftwatch-system"
    service_account: str = "driftwatch"


def rules(requirements: Iterable[Requirement], *, confined: bool = False) -> list[_Rule]:
    """Return the rules of the ClusterRole, or of the Role if confined: the daemon's own needs, then the kinds.

    A Role grants GET of its own namespace object and of no other: RBAC treats that request as one in the namespace.
    """
    found = _rules([_NAMESPACES, _EVENTS, *requirements])
    return found if confined else [_DISCOVERY, *found]


def manifests(
    requirements: Iterable[Requirement],
    account: Account,
    *,
    confined: str = "",
    inventory: str = "",
    variables: Iterable[VariablesFrom] = (),
    by_namespace: bool = False,
) -> list[dict[str, Any]]:
    """Return the roles and bindings to apply. `confined` and `inventory` are namespaces, "" for none.

    `variables` are ConfigMaps and Secrets that are watched by name, each in its own namespace. With `by_namespace`, a
    Role per namespace grants the namespaced kinds, and the ClusterRole grants the rest.
    """
    kinds = "Role" if confined else "ClusterRole"
    everywhere: list[Requirement] = []
    there: dict[str, list[Requirement]] = defaultdict(list)
    for requirement in requirements:
        apart = by_namespace and not confined and requirement.namespace
        (there[requirement.namespace] if apart else everywhere).append(requirement)
    found = [
        _object(kinds, account.name, confined, rules=rules(everywhere, confined=bool(confined))),
        _binding(kinds, account.name, account, confined),
    ]
    for namespace, needed in sorted(there.items()):
        found.append(_object("Role", account.name, namespace, rules=_rules(needed)))
        found.append(_binding("Role", account.name, account, namespace))
    if inventory:
        name = f"{account.name}-inventory"
        found.append(_object("Role", name, inventory, rules=_rules([_INVENTORY])))
        found.append(_binding("Role", name, account, inventory))
    followed: dict[str, list[Requirement]] = defaultdict(list)
    for each in variables:
        of_one = Requirement("", f"{each.kind.lower()}s", _FOLLOWED, frozenset({each.name}))
        followed[each.namespace].append(of_one)
    for namespace, of_all in sorted(followed.items()):
        name = f"{account.name}-variables"
        found.append(_object("Role", name, namespace, rules=_rules(of_all)))
        found.append(_binding("Role", name, account, namespace))
    return found


def _rules(requirements: Iterable[Requirement]) -> list[_Rule]:
    """Merge requirements into few rules: first whole kinds, grouped by API group and verbs, then single names."""
    kinds: dict[tuple[str, str], set[str]] = defaultdict(set)
    names: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for each in requirements:
        resource = (each.group, each.plural)
        if each.names:
            for verb in each.verbs:
                names[resource][verb] |= each.names
        else:
            kinds[resource] |= each.verbs
    together: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (group, plural), verbs in sorted(kinds.items()):
        together[group, _ordered(verbs)].append(plural)
    found: list[_Rule] = [
        {"apiGroups": [group], "resources": plurals, "verbs": list(verbs)}
        for (group, verbs), plurals in sorted(together.items())
    ]
    for (group, plural), by_verb in sorted(names.items()):
        found += [
            {"apiGroups": [group], "resources": [plural], "resourceNames": sorted(by_verb[verb]), "verbs": [verb]}
            for verb in _ordered(by_verb)
        ]
    return found


def _ordered(verbs: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(verbs, key=VERBS.index))


def _object(kind: str, name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(_LABELS)}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, **fields}


def _binding(kind: str, role: str, account: Account, namespace: str) -> dict[str, Any]:
    return _object(
        f"{kind}Binding",
        role,
        namespace,
        roleRef={"apiGroup": RBAC, "kind": kind, "name": role},
        subjects=[{"kind": "ServiceAccount", "name": account.service_account, "namespace": account.namespace}],
    )
