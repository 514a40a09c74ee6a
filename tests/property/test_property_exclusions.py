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
    healed = until(lambda: world.log.lines(verdict="added", manager="injector"), "what had to go is told")
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
