"""Limits the cardinality of the `manager` label: clients choose their field manager's name.

Kinds, namespaces and sources come from Git and the configuration, and their series are removed with them. A client
chooses its manager name freely. A Pod name, a version or a random part in it would create a series each time.
"""

import re

UNKNOWN = "unknown"
OTHER = "other"
LONGEST = 64
"""Maximum characters of a manager's name in a label. The API server allows 128."""

MOST = 50
"""Managers with a label value of their own, in addition to the well-known ones."""

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

# Alphabet of Kubernetes' random names: no vowels and no characters that look like one (apimachinery, util/rand).
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
    """Label values of field managers: the name for the first fifty, `other` for all later ones."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, manager: str) -> str:
        """Return the label value for a manager, `unknown` for ""."""
        name = normalised(manager)
        if name in WELL_KNOWN or name in self._known:
            return name
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(name)
        return name


def normalised(manager: str) -> str:
    """Strip version, number, digest or random part from a manager's name. The result is short printable ASCII."""
    name = _RANDOM.sub("", _UNPRINTABLE.sub("_", manager[:256]).strip())
    return name[:LONGEST] or UNKNOWN
