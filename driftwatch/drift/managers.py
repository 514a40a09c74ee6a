"""Field managers: the names under which people write."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from driftwatch.drift.builtin_rules import BUILT_IN_RULES
from driftwatch.drift.rules import Rule

INTERACTIVE_MANAGERS = {
    "kubectl": "`kubectl scale` and `kubectl apply --server-side`",
    "kubectl-*": "every other command of kubectl (`kubectl-edit`, `kubectl-set`), and its plugins",
    "oc": "OpenShift's `oc`, for its own commands; those that it has from kubectl write as `kubectl-*`",
    "oc-*": "plugins of `oc`",
    "k9s": "k9s: scaling, setting an image; what is edited in it comes by `kubectl-edit`",
    "node-fetch": "Lens and its relatives; also a program in Node.js that gives itself no name",
    "Lens*": "Lens, where it names itself",
    "OpenLens*": "OpenLens, where it names itself",
    "freelens*": "Freelens, where it names itself",
    "Mozilla": "a browser: OpenShift's console, Headlamp and others pass its name on",
    "headlamp*": "Headlamp's server, for what the browser does not do itself",
    "dashboard": "the Kubernetes Dashboard up to version 2",
    "dashboard-api": "the Kubernetes Dashboard from version 3 on",
    "kubernetes-dashboard*": "the Kubernetes Dashboard, as some distributions rename it",
    "octant*": "Octant",
    "GoogleCloudConsole": "the console of Google Cloud",
    "ACK-Console*": "the console of Alibaba Cloud",
    "curl": "a request by hand",
    "PostmanRuntime": "a request by hand, with Postman",
    "python-requests": "a script",
}
"""Name patterns of interactive managers, each with the tool that uses it."""


def _any_glob(patterns: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Managers:
    """The interactive field managers, by name patterns, and the additions of theirs that are kept.

    A manager that matches a pattern in `trusted` or an owner of a `kept` rule is not interactive.
    """

    def __init__(
        self, interactive: Sequence[str] = (), trusted: Sequence[str] = (), rules: Sequence[Rule] = BUILT_IN_RULES
    ) -> None:
        kept = [rule for rule in rules if rule.kept]
        self.interactive = (*INTERACTIVE_MANAGERS, *interactive)
        self.trusted = (*(owner.manager for rule in kept for owner in rule.owners), *trusted)
        self.is_interactive = lru_cache(maxsize=1024)(self._is_interactive)
        pointers = [pointer for rule in kept for pointer in rule.pointers]
        self._annotations = {pointer[-1] for pointer in pointers if pointer[-2:-1] == ("annotations",)}
        self._fields = {tuple(f"f:{step}" for step in pointer) for pointer in pointers}

    def _is_interactive(self, manager: str) -> bool:
        return not _any_glob(self.trusted, manager) and _any_glob(self.interactive, manager)

    def keeps(self, path: tuple[str, ...]) -> bool:
        """Whether an added field stays regardless of its manager. An annotation matches anywhere in the object."""
        if path[-2:-1] == ("f:annotations",):
            return path[-1][2:] in self._annotations
        return path in self._fields
