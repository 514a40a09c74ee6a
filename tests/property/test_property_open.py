"""Random edits after which Git's state does not come back yet, or did not once a restart was in between."""

import pytest

from tests.property.edits import Edit, Verb
from tests.property.kinds import KINDS, WIDGET
from tests.property.world import World
from tests.support.manifests import manifest
from tests.support.strategies import GONE, Change

BUDGET = next(kind for kind in KINDS if kind.kind == "PodDisruptionBudget")


def test_a_map_that_was_emptied_while_we_are_down_is_found(world: World) -> None:
    """Somebody removes the only key of a map of a custom resource while the daemon is down: found at its start."""
    spec = {"port": 80, "extra": {"unknown": {"b": True}}}
    widget = manifest("property.example.com/v1", "Widget", "web", world.begin(), spec=spec)
    world.declare([WIDGET], [widget])
    world.pause(by_force=False)

    path = ("spec", "extra", "unknown", "b")
    assert world.do(Edit(0, Verb.MERGE, "kubectl-edit", (Change(path, GONE),))).code == 200
    world.resume()

    world.wait_quiet(within=3.0)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="what controllers add is never taken over")
def test_a_budget_with_the_other_limit_by_a_controller_is_mended(world: World) -> None:
    """A controller replaces minAvailable by maxUnavailable, which exclude one another: Git's comes back."""
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    world.declare([BUDGET], [manifest("policy/v1", "PodDisruptionBudget", "web", world.begin(), spec=spec)])
    swap = (Change(("spec", "minAvailable"), GONE), Change(("spec", "maxUnavailable"), 1))

    assert world.do(Edit(0, Verb.MERGE, "injector", swap)).code == 200

    world.wait_quiet(within=3.0)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="the API server makes null of a map that loses its last")
def test_a_map_of_a_custom_resource_may_become_empty_in_git(world: World) -> None:
    """Git empties a map of a custom resource, which stays declared: the cluster's becomes empty as well."""
    spec = {"port": 80, "extra": {"known": "a"}}
    widget = manifest("property.example.com/v1", "Widget", "web", world.begin(), spec=spec)
    world.declare([WIDGET], [widget])

    world.redeclare(0, {**widget, "spec": {"port": 80, "extra": {}}})

    world.commit(within=3.0)
