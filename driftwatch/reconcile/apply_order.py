"""The order in which a first sync or a new commit applies objects. The heal of a deletion does not wait for it."""

from enum import IntEnum

from driftwatch.model import CRD, NAMESPACE, GroupKind


class Rank(IntEnum):
    """Ranks of kinds. Every object of a rank is tried before the next rank begins."""

    FOUNDATIONS = 0  # namespaces, and the objects that define kinds and classes
    POLICIES = 1  # permissions, quotas and limits
    INPUTS = 2  # objects that workloads refer to
    WORKLOADS = 3
    CUSTOM = 4  # custom resources, whose controllers are workloads
    WEBHOOKS = 5  # a webhook whose Pods do not run yet would refuse all other objects


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
    """The prune step of a kind, lowest first: the reverse of the apply order, then CRDs, then namespaces.

    A webhook is deleted before the Pods that serve it. A controller is deleted after the objects whose finalizers it
    serves.
    """
    if kind == NAMESPACE:
        return len(Rank) + 1
    return len(Rank) if kind == CRD else Rank.WEBHOOKS - rank(kind)


def rank(kind: GroupKind) -> Rank:
    """The rank of a kind. A kind of a group that Kubernetes does not own is a custom resource."""
    known = _RANK_OF.get(kind)
    if known is not None:
        return known
    return Rank.WORKLOADS if kind.built_in else Rank.CUSTOM
