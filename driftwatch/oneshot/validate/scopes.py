"""Which kinds have namespaces, where no cluster is asked: Kubernetes' own are known, and Git defines others.

A kind that neither knows counts as one with namespaces, as most are.
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
    """A kind as a CustomResourceDefinition defines it: its name in paths, and whether it has namespaces."""

    kind: GroupKind
    plural: str
    namespaced: bool


def defined_kinds(manifests: Iterable[Manifest]) -> dict[GroupKind, bool]:
    """The kinds that the CustomResourceDefinitions among the manifests define, and whether they have namespaces."""
    return {definition.kind: definition.namespaced for definition in definitions(manifests)}


def definitions(manifests: Iterable[Manifest]) -> Iterator[Definition]:
    """What the CustomResourceDefinitions among the manifests define."""
    for manifest in manifests:
        if manifest.group_kind == CRD:
            spec = orjson.loads(manifest.body).get("spec")
            names = spec.get("names") if isinstance(spec, dict) else None
            if isinstance(names, dict):
                kind = GroupKind(str(spec.get("group")), str(names.get("kind")))
                yield Definition(kind, str(names.get("plural")), spec.get("scope") != "Cluster")


def is_namespaced(kind: GroupKind, defined: dict[GroupKind, bool]) -> bool:
    """Whether objects of the kind are in namespaces, as far as can be known without a cluster."""
    if kind in defined:
        return defined[kind]
    return kind.kind not in _CLUSTER_SCOPED.get(kind.group, ())
