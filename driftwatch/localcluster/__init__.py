"""A real local control plane: etcd, kube-apiserver, kube-controller-manager, kubectl.

The demo and the tests need an API server that behaves like one in production. driftwatch depends on field ownership,
admission, the watch cache, RBAC and garbage collection, and none of them can be imitated faithfully.
"""

from driftwatch.localcluster.binaries import Binaries, ensure_binaries
from driftwatch.localcluster.control_plane import ClusterStatus, ComponentStatus, LocalCluster
from driftwatch.localcluster.errors import (
    BinariesError,
    LocalClusterError,
    PortTakenError,
    StartError,
    StateError,
)
from driftwatch.localcluster.layout import Component
from driftwatch.tools.progress import Progress, Silent, console_progress

__all__ = [
    "Binaries",
    "BinariesError",
    "ClusterStatus",
    "Component",
    "ComponentStatus",
    "LocalCluster",
    "LocalClusterError",
    "PortTakenError",
    "Progress",
    "Silent",
    "StartError",
    "StateError",
    "console_progress",
    "ensure_binaries",
]
