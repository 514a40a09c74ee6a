"""Under its own least-privilege role the daemon does all of its work; what the role lacks, fails alone and loudly."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.account import Account, printed_roles
from tests.support.audit import AuditTrail
from tests.support.daemon import Daemon
from tests.support.every_kind import every_kind
from tests.support.fault_proxy import fault_proxy
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.scene import NewDaemon, daemons
from tests.support.waits import FIRST_LIST, WATCH_BACKOFF

pytestmark = pytest.mark.waits(WATCH_BACKOFF)

NAMESPACE = "e06-kinds"
GROUP = "e06.example.com"
LABELLED = "tier"
TERMINATING = "create not allowed while custom resource definition is terminating"
NewAccount = Callable[[], Account]


def _labelled(declared: Manifest) -> Manifest:
    declared = copy.deepcopy(declared)
    declared["metadata"].setdefault("labels", {})[LABELLED] = "web"
    return declared


OBJECTS = [_labelled(declared) for declared in every_kind(NAMESPACE, "e06", GROUP)]


@pytest.fixture(scope="module")
def new_account(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewAccount]:
    """Make service accounts that may do nothing yet, each in a namespace of its own."""
    made: list[str] = []

    def new() -> Account:
        namespace = f"e06-system-{len(made)}"
        made.append(namespace)
        kubectl("create", "namespace", namespace)
        kubectl("create", "serviceaccount", "driftwatch", "-n", namespace)
        return Account(kubectl, tmp_path_factory.mktemp("account"), namespace)

    yield new
    for namespace in made:
        kubectl("delete", "namespace", namespace, "--wait=false")
        for kind in ("clusterrole", "clusterrolebinding"):
            kubectl("delete", kind, namespace, "--ignore-not-found")


def _daemon_of(account: Account, new_daemon: NewDaemon, **settings: Any) -> Daemon:
    """A daemon under the account, with its inventory in the account's namespace."""
    daemon: Daemon = new_daemon(kubeconfig=account.kubeconfig, **settings)
    daemon.configuration["inventory"] = {"namespace": account.namespace}
    return daemon


class Keeper:
    """A daemon under an account of its own, which keeps one object of each kind."""

    def __init__(self, daemon: Daemon, account: Account, audit: AuditTrail) -> None:
        self.daemon = daemon
        self.account = account
        self.audit = audit


@pytest.fixture(scope="module")
def keeper(
    cluster: LocalCluster, live: Live, new_account: NewAccount, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keeper]:
    """A daemon under the role that `driftwatch rbac` has printed for what it keeps, and under no other."""
    account = new_account()
    audit = AuditTrail(cluster.audit_log)
    with daemons(cluster, live, tmp_path_factory) as new:
        daemon = _daemon_of(account, new, options={"interval": "1h"})
        daemon.commit({"all.yaml": [namespace_of(NAMESPACE), *OBJECTS]})
        account.grant(printed_roles(daemon.configuration, daemon.folder, account, account.namespace))
        daemon.start()
        daemon.wait_in_sync(*OBJECTS)
        yield Keeper(daemon, account, audit)


@pytest.mark.parametrize("declared", OBJECTS, ids=lambda declared: declared["kind"])
def test_e06_each_kind_is_healed_under_the_printed_role(
    keeper: Keeper, live: Live, kubectl: Kubectl, declared: Manifest
) -> None:
    """A changed label, an added label and a deletion are put back, whatever the kind."""
    kind, name = declared["kind"], declared["metadata"]["name"]
    namespace = declared["metadata"].get("namespace", "")
    where = ["-n", namespace] if namespace else []
    group = declared["apiVersion"].rpartition("/")[0]
    resource = f"{kind}.{group}" if group else kind

    kubectl("label", resource, name, *where, f"{LABELLED}=db", "extra=yes", "--overwrite")
    keeper.daemon.wait_in_sync(declared)
    keeper.daemon.wait(
        lambda: "extra" not in live.get(declared)["metadata"]["labels"], f"the {kind}'s added label is gone"
    )

    uid = live.uid(declared)
    kubectl("delete", resource, name, *where, "--wait=false")
    keeper.daemon.wait(lambda: live.uid(declared) not in ("", uid), f"the {kind} is back")
    keeper.daemon.wait_in_sync(declared)


def test_e06_what_happened_while_it_was_down_is_healed_under_the_printed_role(
    keeper: Keeper, live: Live, kubectl: Kubectl
) -> None:
    """Deleted and edited while it was down, and its token replaced: all is healed after the start."""
    settings, service = OBJECTS[0], OBJECTS[2]
    keeper.daemon.stop()
    kubectl("delete", "configmap", settings["metadata"]["name"], "-n", NAMESPACE)
    live.patch(service, {"metadata": {"labels": {LABELLED: "db"}}}, manager="kubectl-edit")
    keeper.account.rotate()

    keeper.daemon.start()

    keeper.daemon.wait_in_sync(settings, service)
    keeper.daemon.wait_drift(kind="ConfigMap", type="deleted")
    keeper.daemon.wait_drift(kind="Service", type="modified")


def test_e06_nothing_was_refused_and_nothing_else_was_used(keeper: Keeper) -> None:
    """In all of that the API server has refused nothing, and the account had no permission but those of its role."""
    asked = keeper.audit.wait(len(OBJECTS), user=keeper.account.user)

    statuses = [event["responseStatus"] for event in asked if event["responseStatus"]["code"] in (401, 403)]
    # The custom resource may be tried while its deleted definition is not quite gone: that is no lack of permission.
    assert [each for each in statuses if TERMINATING not in each["message"]] == []
    assert {event["verb"] for event in asked if "objectRef" in event} <= {"get", "list", "watch", "patch", "update"}


def _without(objects: list[dict[str, Any]], resource: str, verb: str) -> list[dict[str, Any]]:
    """The same roles, but for one verb on one resource."""
    objects = copy.deepcopy(objects)
    for rule in objects[0]["rules"]:
        if resource in rule.get("resources", []):
            rule["resources"].remove(resource)
            lesser = {**rule, "resources": [resource], "verbs": [each for each in rule["verbs"] if each != verb]}
            objects[0]["rules"].append(lesser)
            break
    objects[0]["rules"] = [rule for rule in objects[0]["rules"] if rule.get("resources") != []]
    return objects


@pytest.mark.waits(FIRST_LIST)
@pytest.mark.parametrize("verb", ["watch", "patch", "create"])
def test_e06_one_missing_permission_fails_for_that_kind_alone(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, namespace: str, verb: str
) -> None:
    """The log, and /readyz or the failed heals, name the kind and the verb once; other kinds are healed as ever."""
    account = new_account()
    daemon = _daemon_of(account, new_daemon)
    settings, web = config_map("settings", namespace), deployment("web", namespace)
    service = manifest("v1", "Service", "web", namespace, spec={"ports": [{"port": 80, "protocol": "TCP"}]})
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, web, service]})
    roles = printed_roles(daemon.configuration, daemon.folder, account, account.namespace)
    account.grant(_without(roles, "services", verb))

    daemon.start(ready=False)

    daemon.wait(lambda: daemon.events("first pass done"), "all but one kind is applied", timeout=60)
    daemon.wait_in_sync(settings, web)
    event = "watch is down" if verb == "watch" else "not applied"
    (said,) = daemon.wait(lambda: daemon.events(event), f"{verb} is refused")
    assert said["kind"] == "Service"
    assert f'cannot {verb} resource "services"' in said["error"]
    for declared in (settings, web):
        live.request("DELETE", live.path(declared))
        daemon.wait_drift(name=declared["metadata"]["name"], type="deleted")
    if event == "watch is down":
        code, text = daemon.get("/readyz")
        assert (code, text.count("\n- ")) == (503, 1)
        assert f'watch of Service: services is forbidden: User "{account.user}" cannot {verb} resource' in text
        assert daemon.metric("driftwatch_watch_up", kind="Service") == 0
    else:
        daemon.wait(daemon.is_ready, "it is ready all the same")
        assert daemon.metric("driftwatch_heals_total", kind="Service", result="failed") == 1
    assert daemon.metric("driftwatch_heals_total", kind="ConfigMap", result="failed") == 0
    assert len(daemon.events(event)) == 1

    if event == "watch is down":
        account.grant(roles)
        daemon.wait(daemon.is_ready, "it goes on as soon as it may", timeout=60)
        live.request("DELETE", live.path(service))
        daemon.wait_in_sync(service)


def test_e06_without_list_the_watch_is_enough(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, cluster: LocalCluster, namespace: str
) -> None:
    """What there is comes with the watch, at first and after each time that it was interrupted."""
    account = new_account()
    with fault_proxy(account.kubeconfig, account.token_file.parent / "proxy") as proxy:
        daemon = new_daemon(kubeconfig=proxy.kubeconfig)
        daemon.configuration["inventory"] = {"namespace": account.namespace}
        service = manifest("v1", "Service", "web", namespace, spec={"ports": [{"port": 80, "protocol": "TCP"}]})
        daemon.commit({"all.yaml": [namespace_of(namespace), service]})
        configuration = {**daemon.configuration, "cluster": {"kubeconfig": str(cluster.kubeconfig)}}
        roles = printed_roles(configuration, daemon.folder, account, account.namespace)
        account.grant(_without(roles, "services", "list"))
        daemon.start()
        daemon.wait_in_sync(service)

        for times in (1, 2):
            proxy.cut()
            live.request("DELETE", live.path(service))
            daemon.wait(lambda times=times: len(daemon.drifts(name="web")) == times, "the deletion is healed")
            daemon.wait_in_sync(service)
        daemon.stop()
    assert [line["type"] for line in daemon.drifts(name="web")] == ["deleted", "deleted"]


def test_e06_role_that_grants_no_more_than_a_named_role(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, namespace: str
) -> None:
    """It may write the roles and give the bindings that Git declared when its role was printed, and no others."""
    account = new_account()
    daemon = _daemon_of(account, new_daemon)
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    role = manifest("rbac.authorization.k8s.io/v1", "Role", "reader", namespace, rules=rules)
    other = manifest("rbac.authorization.k8s.io/v1", "Role", "other", namespace, rules=rules)
    daemon.commit({"all.yaml": [namespace_of(namespace), role]})
    account.grant(printed_roles(daemon.configuration, daemon.folder, account, account.namespace))
    daemon.start()
    daemon.wait_in_sync(role)

    daemon.commit({"more.yaml": other})

    (said,) = daemon.wait(lambda: daemon.events("not applied", name="other"), "the other role is refused")
    assert "attempting to grant RBAC permissions not currently held" in said["error"]
    live.request("DELETE", live.path(role))
    daemon.wait_in_sync(role)
    assert live.get(other) is None


def test_e06_confined_to_a_namespace_it_needs_no_cluster_role(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """With cluster.namespace a Role there is enough; what Git declares elsewhere is refused, and said once."""
    account = new_account()
    kubectl("create", "namespace", namespace)
    daemon = _daemon_of(account, new_daemon, options={"namespace": namespace})
    daemon.configuration["cluster"]["namespace"] = namespace
    settings, elsewhere = config_map("settings", namespace), config_map("settings", "default")
    web = deployment("web", namespace)
    daemon.commit({"all.yaml": [settings, web]})
    roles = printed_roles(daemon.configuration, daemon.folder, account, account.namespace)
    assert [role["kind"] for role in roles] == ["Role", "RoleBinding", "Role", "RoleBinding"]
    account.grant(roles)
    daemon.start()
    daemon.wait_in_sync(settings, web)

    daemon.commit({"elsewhere.yaml": elsewhere})

    (said,) = daemon.wait(lambda: daemon.events("outside of cluster.namespace"), "the other namespace is refused")
    assert (said["namespace"], said["file"]) == ("default", "elsewhere.yaml:1")
    for declared in (settings, web):
        live.request("DELETE", live.path(declared))
        daemon.wait_in_sync(declared)
    assert live.get(elsewhere) is None
    assert daemon.events("not applied") == []


def test_e06_prunes_under_the_printed_role_and_nothing_that_needs_consent(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, namespace: str
) -> None:
    """A source that prunes may delete its kinds, but no kind that it has no consent for."""
    account = new_account()
    options = {"prune": True, "pruneDelay": "100ms"}
    daemon = _daemon_of(account, new_daemon, options=options)
    kept, dropped = config_map("kept", namespace), config_map("dropped", namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), kept], "more.yaml": dropped})
    roles = printed_roles(daemon.configuration, daemon.folder, account, account.namespace)
    deletable = {
        resource for rule in roles[0]["rules"] if "delete" in rule["verbs"] for resource in rule.get("resources", [])
    }
    assert deletable == {"configmaps"}
    account.grant(roles)
    daemon.start()
    daemon.wait_in_sync(kept, dropped)

    daemon.commit({"more.yaml": None})

    daemon.wait(lambda: live.get(dropped) is None, "what left Git is deleted")
    inventory = config_map(f"driftwatch-inventory-{daemon.source}", account.namespace)
    daemon.wait(lambda: live.get(inventory), "the inventory is in the cluster")
    assert daemon.events("not applied") == []


def test_e06_story_of_the_demo_under_the_printed_role(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """Scaled, another image, a label gone, a variable added, the namespace deleted: all is healed without a refusal."""
    account = new_account()
    daemon = _daemon_of(account, new_daemon)
    settings, web = config_map("settings", namespace), deployment("web", namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, web]})
    account.grant(printed_roles(daemon.configuration, daemon.folder, account, account.namespace))
    daemon.start()
    daemon.wait_in_sync(settings, web)

    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    daemon.wait_drift(name="web", type="modified", manager="kubectl")
    kubectl("set", "image", "deploy/web", "app=registry.example.com/app:latest", "-n", namespace)
    daemon.wait_drift(name="web", type="modified", manager="kubectl-set")
    kubectl("label", "deploy/web", "tier-", "-n", namespace)
    daemon.wait_in_sync(web)
    kubectl("set", "env", "deploy/web", "DEBUG=true", "-n", namespace)
    daemon.wait_drift(name="web", type="added", manager="kubectl-set")
    daemon.wait_in_sync(web)
    uid = live.uid(web)
    kubectl("delete", "namespace", namespace, "--wait=false")
    daemon.wait(lambda: live.uid(web) not in ("", uid), "the Deployment is back with its namespace", timeout=60)
    daemon.wait_in_sync(namespace_of(namespace), settings, web)
    refused = [line for line in daemon.events("not applied") if "cannot" in line["error"]]
    assert refused == []


def test_e06_variables_of_the_cluster_are_followed_by_name(
    new_daemon: NewDaemon, new_account: NewAccount, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """What varsFrom names may be read, and no other ConfigMap of its namespace."""
    account = new_account()
    kubectl("create", "configmap", "colours", "-n", account.namespace, "--from-literal=COLOUR=green")
    reference = {"configMap": "colours", "namespace": account.namespace}
    daemon = _daemon_of(account, new_daemon, options={"varsFrom": [reference]})
    service = manifest("v1", "Service", "${COLOUR}", namespace, spec={"ports": [{"port": 80}]})
    daemon.commit({"all.yaml": [namespace_of(namespace), service]})
    # Without the inventory, which is a ConfigMap as well.
    daemon.configuration["inventory"] = {"namespace": ""}
    # The variables are read to know what is declared: whoever prints the role has to be allowed to.
    configuration = {**daemon.configuration, "cluster": {"kubeconfig": str(kubectl.kubeconfig)}}
    account.grant(printed_roles(configuration, daemon.folder, account, account.namespace))

    daemon.start()

    green = manifest("v1", "Service", "green", namespace)
    daemon.wait(lambda: live.get(green), "the variable has its value")
    account.wait_can("get", "configmaps/colours", account.namespace, answer=False)
    account.wait_can("list", "configmaps", account.namespace, answer=False)
