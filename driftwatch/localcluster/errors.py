"""What can go wrong with a local control plane. Every message says what to do next.

LocalClusterError
├── BinariesError     the programs are not there and cannot be compiled
├── PortTakenError    another process listens on a port of this cluster
├── StartError        a component ended early, or was not ready in time
└── StateError        the folder is not a cluster's, or is in use
"""


class LocalClusterError(Exception):
    """A local control plane cannot do what was asked."""


class BinariesError(LocalClusterError):
    """The programs of the control plane are neither found nor can they be compiled."""


class PortTakenError(LocalClusterError):
    """A port that this cluster must listen on belongs to somebody else."""


class StartError(LocalClusterError):
    """A component ended while starting, or was not ready within the time allowed."""


class StateError(LocalClusterError):
    """The folder does not hold a cluster, holds something else, or is in use by another command."""
