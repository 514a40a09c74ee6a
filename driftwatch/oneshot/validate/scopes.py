"""Decides without a cluster whether a kind is namespaced, from built-in kinds and CustomResourceDefinitions in Git.

An unknown kind counts as namespaced, as most kinds are.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

from driftwatch.model import CRD, GroupKind, Manifest

_CLUSTER_SCOPED = {
    "": {"ComponentStatus", "Namespace", "Node", "PersistentVolume"},
    "admissionregistration.k8s.io": {
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
    },
    "apiextensions.k8s.io": {"CustomResourceDefinition"},
    "apiregistration.k8s.io": {"APIService"},
    "certificates.k8s.io": {"CertificateSigningRequest", "ClusterTrustBundle"},
    "flowcontrol.apiserver.k8s.io": {"FlowSchema", "PriorityLevelConfiguration"},
    "networking.k8s.io": {"IPAddress", "IngressClass", "ServiceCIDR"},
    "node.k8s.io": {"RuntimeClass"},
    "rbac.authorization.k8s.io": {"ClusterRole", "ClusterRoleBinding"},
    "resource.k8s.io": {"DeviceClass", "ResourceSlice"},
    "scheduling.k8s.io": {"PriorityClass"},
    "storage.k8s.io": {"CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"},
}


class Definition(NamedTuple):
    """A kind as a CustomResourceDefinition defines it: its plural name, and whether it is namespaced."""

    kind: GroupKind
    plural: str
    namespaced: bool


def defined_kinds(manifests: Iterable[Manifest]) -> dict[GroupKind, bool]:
    """Return the kinds that CustomResourceDefinitions among the manifests define, and whether they are namespaced."""
    return {definition.kind: definition.namespaced for definition in definitions(manifests)}


def definitions(manifests: Iterable[Manifest]) -> Iterator[Definition]:
    """Yield the definitions of the CustomResourceDefinitions among the manifests."""
    for manifest in manifests:
        if manifest.group_kind == CRD:
            spec = orjson.loads(manifest.body).get("spec")
            names = spec.get("names") if isinstance(spec, dict) else None
            if isinstance(names, dict):
                kind = GroupKind(str(spec.get("group")), str(names.get("kind")))
                yield Definition(kind, str(names.get("plural")), spec.get("scope") != "Cluster")


def is_namespaced(kind: GroupKind, defined: dict[GroupKind, bool]) -> bool:
    """Whether the kind is namespaced, as far as known without a cluster."""
    if kind in defined:
        return defined[kind]
    return kind.kind not in _CLUSTER_SCOPED.get(kind.group, ())
