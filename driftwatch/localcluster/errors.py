"""Errors of a local control plane. Every message says what to do next.

LocalClusterError
├── BinariesError     the programs are not installed and cannot be compiled
├── PortTakenError    another process listens on a port of this cluster
├── StartError        a component ended early, or was not ready in time
└── StateError        the directory holds no cluster, or is in use
"""


class LocalClusterError(Exception):
    """An operation on a local control plane failed."""


class BinariesError(LocalClusterError):
    """The control plane's programs are neither installed nor can they be compiled."""


class PortTakenError(LocalClusterError):
    """Another process listens on a port that this cluster needs."""


class StartError(LocalClusterError):
    """A component ended during the start, or was not ready within the timeout."""


class StateError(LocalClusterError):
    """The directory holds no cluster, holds unrelated files, or is in use by another command."""
