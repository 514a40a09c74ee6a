"""Edits after which an apply alone is refused: what people own excludes what Git declares, or lacks it."""

import copy

import pytest

from tests.property.edits import Edit, Verb
from tests.property.kinds import DEPLOYMENT, KINDS
from tests.property.world import World
from tests.support.manifests import manifest, pod_spec
from tests.support.strategies import GONE, Change
from tests.support.waiting import until

APP = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()}
SELECTOR = {"matchLabels": {"app": "web"}}
WIDGET = next(kind for kind in KINDS if kind.kind == "Widget")
BUDGET = next(kind for kind in KINDS if kind.kind == "PodDisruptionBudget")


def _web(namespace: str, **spec) -> dict:
    return manifest("apps/v1", "Deployment", "web", namespace, spec={"selector": SELECTOR, "template": APP, **spec})


@pytest.mark.parametrize("verb", [Verb.MERGE, Verb.JSON, Verb.REPLACE])
def test_a_budget_with_the_other_limit_is_mended(world: World, verb: Verb) -> None:
    """Somebody replaces minAvailable by maxUnavailable, which exclude one another: Git's comes back all the same."""
    spec = {"minAvailable": 1, "selector": SELECTOR}
    world.declare([BUDGET], [manifest("policy/v1", "PodDisruptionBudget", "web", world.begin(), spec=spec)])
    swap = (Change(("spec", "minAvailable"), GONE), Change(("spec", "maxUnavailable"), 1))

    assert world.do(Edit(0, verb, "kubectl-edit", swap)).code == 200

    world.wait_quiet()


@pytest.mark.parametrize("strip", [[{}], [{"manager": "kubectl", "operation": "Update", "apiVersion": "policy/v1"}]])
def test_what_has_no_owner_any_more_is_mended(world: World, strip: list[dict]) -> None:
    """Who swaps the limits of a budget strips the ownership, too: what excludes Git's goes, and only that."""
    spec = {"minAvailable": 1, "selector": SELECTOR}
    budget = manifest("policy/v1", "PodDisruptionBudget", "web", world.begin(), spec=spec)
    world.declare([BUDGET], [budget])
    world.pause(by_force=False)
    spared = Change(("spec", "unhealthyPodEvictionPolicy"), "AlwaysAllow")
    swap = (Change(("spec", "minAvailable"), GONE), Change(("spec", "maxUnavailable"), 1), spared)
    assert world.do(Edit(0, Verb.MERGE, "kubectl-edit", swap)).code == 200
    entry = {"fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:x": {}}}}}
    stripped = [{**one, **entry} if one else one for one in strip]
    world.live.patch(budget, {"metadata": {"managedFields": stripped}}, manager="kubectl-edit")
    owners = {one["manager"] for one in world.live.get(budget)["metadata"].get("managedFields", [])}
    assert not owners & {"driftwatch", "kubectl-edit"}

    world.resume()

    world.wait_quiet()
    assert world.live.get(budget)["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_an_item_that_has_no_owner_any_more_is_mended(world: World) -> None:
    """Somebody gives a variable another source, which excludes Git's value, and strips the ownership."""
    web = _web(world.begin())
    variables = [{"name": "HOST", "value": "a"}, {"name": "PORT", "value": "80"}]
    web["spec"]["template"] = copy.deepcopy(APP)
    web["spec"]["template"]["spec"]["containers"][0]["env"] = variables
    world.declare([DEPLOYMENT], [web])
    world.pause(by_force=False)
    found = world.live.get(web)
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    found["spec"]["template"]["spec"]["containers"][0]["env"][1] = {"name": "PORT", "valueFrom": field}
    found["metadata"]["managedFields"] = [{}]
    found["metadata"].pop("resourceVersion")
    assert world.live.request("PUT", world.live.path(web), found)[0] == 200

    world.resume()

    world.wait_quiet()


def test_a_deployment_with_the_other_strategy_is_mended(world: World) -> None:
    """Git says Recreate; somebody switches to RollingUpdate, whose settings Recreate forbids: Git's comes back."""
    world.declare([DEPLOYMENT], [_web(world.begin(), strategy={"type": "Recreate"})])

    assert world.do(Edit(0, Verb.MERGE, "k9s", (Change(("spec", "strategy", "type"), "RollingUpdate"),))).code == 200

    world.wait_quiet()


def test_a_container_that_a_person_owns_too_goes_when_git_drops_it(world: World) -> None:
    """A person applied what Git declares; when Git drops a container, no nameless half of it makes the rest invalid."""
    both = _web(world.begin())
    both["spec"]["template"] = copy.deepcopy(APP)
    both["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "registry.example.com/sidecar"})
    world.declare([DEPLOYMENT], [both])
    half = {"name": "sidecar", "imagePullPolicy": "Always"}
    body = {"spec": {"template": {"spec": {"containers": [half]}}}}
    world.live.patch(both, {"apiVersion": "apps/v1", "kind": "Deployment", **body}, manager="kubectl", kind="apply")

    world.redeclare(0, _web(both["metadata"]["namespace"]))
    world.commit()


def test_a_budget_with_the_other_limit_by_a_controller_is_mended(world: World) -> None:
    """A controller's maxUnavailable excludes Git's minAvailable, which comes back; what else it added stays."""
    spec = {"minAvailable": 1, "selector": SELECTOR}
    world.declare([BUDGET], [manifest("policy/v1", "PodDisruptionBudget", "web", world.begin(), spec=spec)])
    swap = (Change(("spec", "minAvailable"), GONE), Change(("spec", "maxUnavailable"), 1))
    spared = Change(("spec", "unhealthyPodEvictionPolicy"), "AlwaysAllow")
    assert world.do(Edit(0, Verb.MERGE, "injector", (spared,))).code == 200
    world.log.mark()

    assert world.do(Edit(0, Verb.MERGE, "injector", swap)).code == 200

    world.wait_quiet()
    healed = until(lambda: world.log.lines(type="added", manager="injector"), "what had to go is told")
    assert healed[0]["fields"] == "spec.maxUnavailable: <none> → 1"


def test_a_container_that_a_controller_owns_too_goes_when_git_drops_it(world: World) -> None:
    """A controller gave arguments to a container of Git's; when Git drops it, no nameless half of it stays."""
    both = _web(world.begin())
    both["spec"]["template"] = copy.deepcopy(APP)
    both["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "registry.example.com/sidecar"})
    world.declare([DEPLOYMENT], [both])
    half = {"name": "sidecar", "args": ["--verbose"]}
    body = {"spec": {"template": {"spec": {"containers": [half]}}}}
    world.live.patch(both, {"apiVersion": "apps/v1", "kind": "Deployment", **body}, manager="injector", kind="apply")

    world.redeclare(0, _web(both["metadata"]["namespace"]))
    world.commit()


def test_an_item_of_a_persons_goes_though_a_controller_has_written_in_it(world: World) -> None:
    """A person added an item to a custom resource's list, a controller a field to the item: no keyless half is left.

    The API server cannot compare such an object, and answers every apply by an internal error.
    """
    web = manifest(WIDGET.api_version, "Widget", "web", world.begin(), spec={"port": "80"})
    world.declare([WIDGET], [web])
    world.pause(by_force=False)
    for manager, number in (("kubectl-edit", 1), ("injector", 2)):
        item = {"id": "a", "size": 1, "limits": {"a": number}}
        world.live.patch(web, {"spec": {"parts": [item]}}, manager=manager)

    world.resume()

    world.wait_quiet()
    assert not world.live.get(web)["spec"].get("parts")


def test_a_manifest_that_is_invalid_by_itself_costs_no_controller_anything(world: World) -> None:
    """Git asks for what cannot be changed: refused, and a controller's container stays where it was put."""
    web = _web(world.begin())
    world.declare([DEPLOYMENT], [web])
    injected = {"name": "proxy", "image": "registry.example.com/proxy"}
    body = {"spec": {"template": {"spec": {"containers": [injected]}}}}
    world.live.patch(web, {"apiVersion": "apps/v1", "kind": "Deployment", **body}, manager="injector", kind="apply")
    world.log.mark()

    other = {"matchLabels": {"app": "other"}}
    pods = {"metadata": {"labels": {"app": "other"}}, "spec": pod_spec()}
    world.refuse(0, {**web, "spec": {"selector": other, "template": pods}})

    containers = world.live.get(web)["spec"]["template"]["spec"]["containers"]
    assert [one["name"] for one in containers] == ["app", "proxy"]
