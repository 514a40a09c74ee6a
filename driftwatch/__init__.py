"""driftwatch: heals drift between Git and a Kubernetes cluster as it happens, and says who caused it."""

__version__ = "0.2.0"
