"""Keeps what others choose from making series without end: field managers are named by whoever writes.

Kinds, namespaces and sources are those that Git and the configuration name, and their series go with them. A manager's
name is what a client says of itself: a Pod's name, a version or a random part in it would make a series each.
"""

import re

UNKNOWN = "unknown"
OTHER = "other"
LONGEST = 64
"""Characters of a manager's name; the API server allows 128."""

MOST = 50
"""Managers that have a name of their own in metrics, beside the well-known ones."""

WELL_KNOWN = frozenset(
    {
        "kubectl",
        "kubectl-annotate",
        "kubectl-client-side-apply",
        "kubectl-create",
        "kubectl-edit",
        "kubectl-label",
        "kubectl-last-applied",
        "kubectl-patch",
        "kubectl-replace",
        "kubectl-rollout",
        "kubectl-scale",
        "kubectl-set",
        "kubectl-taint",
        "k9s",
        "helm",
        "kube-controller-manager",
        "argocd-controller",
        "kustomize-controller",
        "helm-controller",
        UNKNOWN,
        OTHER,
    }
)

# What Kubernetes makes random names of: no vowels and nothing that looks like one (apimachinery, util/rand).
_SAFE = "bcdfghjklmnpqrstvwxz2456789"
_RANDOM = re.compile(
    rf"""
      [-_.:/]v?\d+(?:\.\d+)+\S*$                                         # a version
    | [-_.:/][0-9a-f]{{8}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{4}}-[0-9a-f]{{12}}$   # a UUID
    | -[{_SAFE}]{{6,10}}-[{_SAFE}]{{5}}$                                 # a Pod of a Deployment
    | [-_.:/](?=\w*\d)[0-9a-f]{{7,}}$                                    # a digest
    | [-_.:/]\d+$                                                        # a number, as of a StatefulSet's Pod
    """,
    re.VERBOSE,
)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class ManagerLabels:
    """Field managers as label values: the first fifty by name, all later ones as `other`."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, manager: str) -> str:
        """The label value for a manager, `unknown` for ""."""
        name = normalised(manager)
        if name in WELL_KNOWN or name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


def normalised(manager: str) -> str:
    """A manager's name without version, number, digest or random part, in printable ASCII, not too long."""
    name = _RANDOM.sub("", _UNPRINTABLE.sub("_", manager[:256]).strip())
    return name[:LONGEST] or UNKNOWN
