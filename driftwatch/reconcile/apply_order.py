"""In which order objects of a first sync or a new commit are applied. A deleted object never waits for an order."""

from enum import IntEnum

from driftwatch.model import CRD, NAMESPACE, GroupKind


class Rank(IntEnum):
    """What must be there first: each rank is tried as a whole before the next one begins."""

    FOUNDATIONS = 0  # namespaces, and what defines kinds and classes
    POLICIES = 1  # who may do what, and how much of it
    INPUTS = 2  # what workloads refer to
    WORKLOADS = 3
    CUSTOM = 4  # custom resources, whose controllers are workloads
    WEBHOOKS = 5  # a webhook whose Pods do not run yet would refuse everything else


_RANKS = {
    Rank.FOUNDATIONS: {
        ("", "Namespace"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("storage.k8s.io", "StorageClass"),
        ("storage.k8s.io", "CSIDriver"),
        ("node.k8s.io", "RuntimeClass"),
        ("networking.k8s.io", "IngressClass"),
    },
    Rank.POLICIES: {
        ("", "ServiceAccount"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
    },
    Rank.INPUTS: {
        ("", "Secret"),
        ("", "ConfigMap"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("", "Service"),
    },
    Rank.WEBHOOKS: {
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("apiregistration.k8s.io", "APIService"),
    },
}
_RANK_OF = {GroupKind(*kind): rank for rank, kinds in _RANKS.items() for kind in kinds}


def prune_step(kind: GroupKind) -> int:
    """When a kind is pruned, the lowest first: the order of an apply reversed, then definitions, namespaces last.

    So a webhook goes before the Pods that answer it, and a controller after the objects whose finalizers it serves.
    """
    if kind == NAMESPACE:
        return len(Rank) + 1
    return len(Rank) if kind == CRD else Rank.WEBHOOKS - rank(kind)


def rank(kind: GroupKind) -> Rank:
    """The rank of a kind; a kind of a group that Kubernetes itself does not own is a custom resource."""
    known = _RANK_OF.get(kind)
    if known is not None:
        return known
    return Rank.WORKLOADS if kind.built_in else Rank.CUSTOM
