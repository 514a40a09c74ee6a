"""What is known of kinds without a cluster is what the cluster says."""

from driftwatch.model import GroupKind
from driftwatch.oneshot.validate.scopes import is_namespaced

from tests.support.kubectl import Kubectl


def test_d06_the_kinds_without_namespaces_are_those_of_the_api_server(kubectl: Kubectl) -> None:
    """Of every kind that the API server serves and that can be applied, the table says whether it has namespaces."""
    for namespaced in (True, False):
        rows = kubectl(
            "api-resources", f"--namespaced={namespaced}".lower(), "--verbs=patch,list", "--no-headers"
        ).stdout
        kinds = [(line.split()[-3].rpartition("/")[0], line.split()[-1]) for line in rows.splitlines()]
        built_in = [kind for kind in kinds if GroupKind(*kind).built_in]
        assert len(built_in) > 20
        assert [kind for kind in built_in if is_namespaced(GroupKind(*kind), {}) is not namespaced] == []
