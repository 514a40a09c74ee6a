"""Maps of a custom resource that lose their last key: the API server may make null of them."""

from tests.property.edits import Edit, Verb
from tests.property.kinds import WIDGET
from tests.property.world import World
from tests.support.manifests import manifest
from tests.support.strategies import GONE, Change


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


def test_a_map_of_a_custom_resource_may_become_empty_in_git(world: World) -> None:
    """Git empties a map of a custom resource, which stays declared: the cluster's becomes empty as well."""
    spec = {"port": 80, "extra": {"known": "a"}}
    widget = manifest("property.example.com/v1", "Widget", "web", world.begin(), spec=spec)
    world.declare([WIDGET], [widget])

    world.redeclare(0, {**widget, "spec": {"port": 80, "extra": {}}})

    world.commit()


def test_a_map_in_a_list_item_may_become_empty_in_git(world: World) -> None:
    """The same in an item of a keyed list, beside another map of which nothing is taken."""
    parts = [{"id": "a", "limits": {"x": 1}}, {"id": "b", "limits": {"cpus": 1}}]
    spec = {"parts": parts, "settings": {"kept": "a"}}
    widget = manifest("property.example.com/v1", "Widget", "web", world.begin(), spec=spec)
    world.declare([WIDGET], [widget])

    world.redeclare(0, {**widget, "spec": {**spec, "parts": [parts[0], {"id": "b", "limits": {}}]}})

    world.commit()
