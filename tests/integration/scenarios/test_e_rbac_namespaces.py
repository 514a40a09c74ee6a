"""Under roles in some namespaces only, the daemon watches one by one what it may not watch as a whole."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.support.account import Account, printed_roles
from tests.support.audit import AuditTrail
from tests.support.daemon import Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest
from tests.support.scene import NewDaemon
from tests.support.waits import FIRST_LIST, WATCH_BACKOFF

pytestmark = pytest.mark.waits(WATCH_BACKOFF)

RBAC = "rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch", "update", "list", "watch"]}
]
LONG = 90.0  # seconds; a watch that is refused is tried again every 30 s at most


class Tenant:
    """An account that gets its rights one namespace at a time."""

    def __init__(self, kubectl: Kubectl, account: Account, stem: str) -> None:
        self._kubectl = kubectl
        self.account = account
        self._stem = stem

    def namespace(self, letter: str) -> str:
        """A namespace that is there."""
        name = f"{self._stem}-{letter}"
        self._kubectl("create", "namespace", name)
        return name

    def grant(self, namespace: str = "") -> None:
        """Allow the account to keep ConfigMaps of a namespace, or of all."""
        kind = "Role" if namespace else "ClusterRole"
        name = self._stem
        role = manifest(RBAC, kind, name, namespace, rules=RULES)
        subject = {"kind": "ServiceAccount", "name": self.account.name, "namespace": self.account.namespace}
        binding = manifest(
            RBAC,
            f"{kind}Binding",
            name,
            namespace,
            roleRef={"apiGroup": GROUP, "kind": kind, "name": name},
            subjects=[subject],
        )
        self.account.grant([role, binding])


@pytest.fixture
def tenant(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory, namespace: str, live: Live) -> Iterator[Tenant]:
    """A service account that may do nothing yet."""
    kubectl("create", "namespace", namespace)
    kubectl("create", "serviceaccount", "driftwatch", "-n", namespace)
    yield Tenant(kubectl, Account(kubectl, tmp_path_factory.mktemp("account"), namespace), namespace)
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        live.request("DELETE", live.path(manifest(RBAC, kind, namespace)))
    for letter in ("", "-a", "-b", "-c", "-d"):
        kubectl("delete", "namespace", namespace + letter, "--wait=false", "--ignore-not-found")


def _delete(live: Live, daemon: Daemon, declared: Manifest) -> None:
    """Delete an object, and see that it comes back and is told once."""
    namespace = declared["metadata"]["namespace"]
    before = len(daemon.drifts(namespace=namespace))
    live.request("DELETE", live.path(declared))
    daemon.wait(lambda: len(daemon.drifts(namespace=namespace)) > before, f"healed in {namespace}")
    daemon.wait_in_sync(declared)


def _series(daemon: Daemon, kind: str) -> list[tuple[str, dict[str, str]]]:
    """The series about watches of a kind."""
    _, text = daemon.get("/metrics")
    return [
        (sample.name, sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "driftwatch_watch_up" and sample.labels["kind"] == kind
    ]


@pytest.mark.waits(FIRST_LIST)
def test_e06_watched_by_namespace_where_all_are_forbidden(
    new_daemon: NewDaemon, tenant: Tenant, live: Live, audit: AuditTrail
) -> None:
    """Two of three namespaces are kept at once, the third as soon as it may be, a new one, too; then all as one."""
    a, b, c, d = (tenant.namespace(letter) for letter in "abcd")
    tenant.grant(a)
    tenant.grant(b)
    daemon: Daemon = new_daemon(kubeconfig=tenant.account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": ""}
    in_a, in_b, in_c, in_d = (config_map("settings", namespace) for namespace in (a, b, c, d))
    daemon.commit({"all.yaml": [in_a, in_b, in_c]})

    daemon.start(ready=False)
    daemon.wait_in_sync(in_a, in_b)
    for declared in (in_a, in_b):
        _delete(live, daemon, declared)
    (said,) = daemon.wait(lambda: daemon.events("watch is down"), "one namespace is refused")
    assert (said["kind"], f'in the namespace "{c}"' in said["error"]) == ("ConfigMap", True)
    code, text = daemon.get("/readyz")
    assert (code, text.count("\n- "), f'in the namespace "{c}"' in text) == (503, 1, True)
    assert live.get(in_c) is None

    tenant.grant(c)
    daemon.wait(daemon.is_ready, "it goes on in the third as soon as it may", timeout=LONG)
    daemon.wait_in_sync(in_c)
    _delete(live, daemon, in_c)

    tenant.grant(d)
    daemon.declare(in_d, file="more.yaml")
    daemon.wait(daemon.is_ready, "the new namespace is watched", timeout=LONG)
    _delete(live, daemon, in_d)
    assert _series(daemon, "ConfigMap") == [("driftwatch_watch_up", {"kind": "ConfigMap"})]
    assert len(daemon.events("watched by namespace")) == len(daemon.events("watch is down")) == 1

    audit.mark()
    tenant.grant()
    daemon.wait(lambda: daemon.events("watched over all namespaces again"), "all are watched as one", timeout=LONG)
    ended = audit.wait(4, user=tenant.account.user, verb="watch", timeout=20)
    assert {event["objectRef"].get("namespace") for event in ended} >= {a, b, c, d}
    for declared in (in_a, in_b, in_c, in_d):
        _delete(live, daemon, declared)
    told = sorted((line["namespace"], line["event"], line["type"]) for line in daemon.drifts())
    expected = {a: 2, b: 2, c: 2, d: 2}
    # The third was not there at first: nobody had deleted it, it was created as Git had said.
    assert told == sorted((name, "drift healed", "deleted") for name, count in expected.items() for _ in range(count))


def test_h12_the_watch_of_a_namespace_that_left_git_is_closed(
    new_daemon: NewDaemon, tenant: Tenant, live: Live, audit: AuditTrail
) -> None:
    """It ends once nothing of the source is left there, is not opened again, and the other namespace is healed."""
    a, b = (tenant.namespace(letter) for letter in "ab")
    tenant.grant(a)
    tenant.grant(b)
    daemon: Daemon = new_daemon(kubeconfig=tenant.account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": ""}
    in_a, in_b = (config_map("settings", namespace) for namespace in (a, b))
    daemon.commit({"all.yaml": [in_a, in_b]})
    daemon.start()
    daemon.wait_in_sync(in_a, in_b)

    audit.mark()
    daemon.commit({"all.yaml": [in_a]})
    daemon.wait(lambda: daemon.metric("driftwatch_orphaned_objects", namespace=b) == 1, "it is left in the cluster")
    live.request("DELETE", live.path(in_b))

    user = tenant.account.user
    audit.wait(1, user=user, verb="watch", namespace=b, timeout=40)
    _delete(live, daemon, in_a)
    assert not audit.events(user=user, verb="list", namespace=b)
    assert daemon.is_ready()


def test_e06_what_is_printed_by_namespace_is_enough(new_daemon: NewDaemon, tenant: Tenant, live: Live) -> None:
    """Objects of two namespaces and one of none are kept under Roles there, and nothing else of a kind is allowed."""
    a, b = (tenant.namespace(letter) for letter in "ab")
    daemon: Daemon = new_daemon(kubeconfig=tenant.account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": tenant.account.namespace}
    reader = manifest(RBAC, "ClusterRole", f"{a}-reader", rules=RULES)
    objects = [config_map("settings", a), deployment("web", b), reader]
    daemon.commit({"all.yaml": objects})
    account = tenant.account
    roles = printed_roles(daemon.configuration, daemon.folder, account, account.namespace, "--by-namespace")
    account.grant(roles)

    daemon.start()

    daemon.wait_in_sync(*objects)
    for declared in objects[:2]:
        _delete(live, daemon, declared)
    account.wait_can("list", "configmaps", a)
    account.wait_can("list", "configmaps", b, answer=False)
    account.wait_can("list", "deployments.apps", a, answer=False)
    live.request("DELETE", live.path(reader))
    daemon.wait_in_sync(reader)
    daemon.commit({"all.yaml": objects[:2]})
    live.request("DELETE", live.path(reader))


def test_e06_forbidden_everywhere_is_told_as_one(new_daemon: NewDaemon, tenant: Tenant) -> None:
    """Where no namespace is allowed either, what the API server says of all of them is told, and once."""
    a, b = (tenant.namespace(letter) for letter in "ab")
    daemon: Daemon = new_daemon(kubeconfig=tenant.account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": ""}
    daemon.commit({"all.yaml": [config_map("settings", a), config_map("settings", b)]})

    daemon.start(ready=False)

    (said,) = daemon.wait(lambda: daemon.events("watch is down"), "the refusal is told")
    assert "at the cluster scope" in said["error"]
    daemon.wait(lambda: daemon.metric("driftwatch_watch_restarts_total", reason="refused") >= 6, "it is tried again")
    assert len(daemon.events("watch is down")) == 1
