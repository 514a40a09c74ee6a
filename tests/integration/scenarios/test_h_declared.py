"""What Git declares and the cluster cannot have yet: kinds that are gone, namespaces that somebody else must create."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.account import Account
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.fork_server import run
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, manifest, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon
from tests.support.waiting import until


class Definition:
    """A CustomResourceDefinition that Git does not declare."""

    def __init__(self, kubectl: Kubectl, live: Live) -> None:
        self._kubectl = kubectl
        self._live = live
        self.group = f"h-{time.monotonic_ns() % 10**9}.example.com"
        self.manifest = crd("widgets", self.group, "Widget")

    @property
    def kind(self) -> str:
        """The kind as metrics and the log name it."""
        return f"Widget.{self.group}"

    def widget(self, name: str, namespace: str) -> Manifest:
        """An object of the kind."""
        return manifest(f"{self.group}/v1", "Widget", name, namespace, spec={"size": 1})

    def serve(self) -> None:
        """Create it, and wait until the API server serves the kind."""
        self._kubectl("apply", "--server-side", "-f", "-", input=yaml.safe_dump(self.manifest))
        until(self.is_served, "the kind is served")

    def drop(self) -> None:
        """Delete it with all of its objects, and wait until the kind is not served."""
        self._live.request("DELETE", self._live.path(self.manifest))
        until(lambda: not self.is_served(), "the kind is gone")

    def is_served(self) -> bool:
        """Whether the API server has the kind."""
        return self._live.request("GET", f"/apis/{self.group}/v1/widgets")[0] == 200


@pytest.fixture
def definition(kubectl: Kubectl, live: Live) -> Iterator[Definition]:
    """A definition, not served yet."""
    found = Definition(kubectl, live)
    yield found
    found.drop()


def _commit(daemon: Daemon, files: dict[str, object]) -> None:
    commit = daemon.commit(files)  # type: ignore[arg-type]
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")


def _writes(audit: AuditTrail, group: str) -> list[str]:
    return [
        event["objectRef"].get("name", "")
        for event in audit.events(agent=AGENT)
        if event["verb"] in WRITES and event["objectRef"].get("apiGroup") == group
    ]


def test_h01_what_git_drops_while_its_kind_is_gone_is_not_created_with_it(
    new_daemon: NewDaemon, definition: Definition, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """When the definition comes back only what Git still declares does, and pruning works as before."""
    definition.serve()
    kept, dropped = definition.widget("kept", namespace), definition.widget("dropped", namespace)
    settings, others = config_map("settings", namespace), [config_map(f"stays-{n}", namespace) for n in range(5)]
    daemon = new_daemon(options={"prune": True, "pruneDelay": "50ms", "pruneLimit": 100})
    daemon.commit({"base.yaml": [namespace_of(namespace), *others], "a.yaml": [kept, dropped], "b.yaml": settings})
    daemon.start()
    daemon.wait_in_sync(kept, dropped, settings)

    definition.drop()
    daemon.wait(lambda: daemon.metric("driftwatch_parked_objects", waits_for="kind") == 2, "both wait for the kind")
    _commit(daemon, {"a.yaml": kept, "b.yaml": None})
    daemon.wait(lambda: live.get(settings) is None, "what left Git is pruned meanwhile")
    audit.mark()
    definition.serve()

    daemon.wait_in_sync(kept)
    daemon.wait(lambda: daemon.metric("driftwatch_watch_up", kind=definition.kind) == 1, "the kind is watched")
    assert live.get(dropped) is None
    assert _writes(audit, definition.group) == ["kept"]
    _commit(daemon, {"a.yaml": None})
    daemon.wait(lambda: live.get(kept) is None, "what is left of the kind is pruned, too")


def test_h01_a_source_that_leaves_while_its_kind_is_gone_may_be_succeeded_by_another(
    new_daemon: NewDaemon, definition: Definition, namespace: str, tmp_path: Path
) -> None:
    """The daemon goes on, and the other source creates the object when the kind is back."""
    definition.serve()
    widget = definition.widget("one", namespace)
    first, second = Repository(tmp_path / "first"), Repository(tmp_path / "second")
    first.commit({"a.yaml": [namespace_of(namespace), widget]})
    second.commit({"b.yaml": config_map("settings", namespace)})
    sources = [
        {"name": f"{namespace}-{name}", "repository": str(repository.folder)}
        for name, repository in (("first", first), ("second", second))
    ]
    daemon = new_daemon(sources=sources)
    daemon.start()
    daemon.wait_in_sync(widget, source=sources[0]["name"])

    definition.drop()
    daemon.wait(lambda: daemon.metric("driftwatch_parked_objects", waits_for="kind") == 1, "it waits for the kind")
    daemon.configuration["sources"] = daemon.configuration["sources"][1:]
    (daemon.folder / "driftwatch.yaml").write_text(yaml.safe_dump(daemon.configuration))
    daemon.wait(lambda: daemon.events("configuration reloaded"), "the source is dropped")
    definition.serve()
    commit = second.commit({"c.yaml": widget})
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the other source declares it")
    daemon.wait_in_sync(widget, source=sources[1]["name"])


# --- h03: namespaces that somebody else must create ---

READ = ["get", "list", "watch"]
RULES = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": READ},
    {"apiGroups": [""], "resources": ["configmaps", "events"], "verbs": ["*"]},
]


@pytest.fixture
def bounded_account(kubectl: Kubectl, new_namespace: Callable[[], str], tmp_path: Path) -> Iterator[Account]:
    """An account that may write ConfigMaps everywhere, and no Namespaces."""
    namespace = new_namespace()
    kubectl("create", "namespace", namespace)
    kubectl("create", "serviceaccount", "driftwatch", "-n", namespace)
    account = Account(kubectl, tmp_path, namespace)
    role = manifest("rbac.authorization.k8s.io/v1", "ClusterRole", namespace, rules=RULES)
    binding = manifest(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        namespace,
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace},
        subjects=[{"kind": "ServiceAccount", "name": "driftwatch", "namespace": namespace}],
    )
    account.grant([role, binding])
    yield account
    kubectl("delete", "namespace", namespace, "--wait=false")
    for kind in ("clusterrole", "clusterrolebinding"):
        kubectl("delete", kind, namespace)


def _awaits_namespace(daemon: Daemon, objects: int) -> None:
    daemon.wait(
        lambda: daemon.metric("driftwatch_parked_objects", waits_for="namespace") == objects,
        f"{objects} objects wait for their namespace",
    )


def test_h03_objects_of_a_namespace_that_we_may_not_create_follow_whoever_does(
    new_daemon: NewDaemon, bounded_account: Account, kubectl: Kubectl, namespace: str
) -> None:
    """Those of the first commit and those of later ones, though no watch shows a namespace without our label."""
    first, second, third = (config_map(name, namespace) for name in ("first", "second", "third"))
    daemon = new_daemon(kubeconfig=bounded_account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": bounded_account.namespace}
    daemon.commit({"base.yaml": [namespace_of(namespace), first]})
    daemon.start()
    _awaits_namespace(daemon, 1)
    _commit(daemon, {"second.yaml": second})
    _awaits_namespace(daemon, 2)

    kubectl("create", "namespace", namespace)
    daemon.wait_in_sync(first, second)
    daemon.declare(third, file="third.yaml")
    _awaits_namespace(daemon, 0)


def test_h03_objects_of_a_namespace_whose_manifest_is_invalid_follow_whoever_creates_it(
    new_daemon: NewDaemon, kubectl: Kubectl, namespace: str
) -> None:
    """A refusal that no retry mends holds up the namespace alone."""
    invalid = namespace_of(namespace)
    invalid["metadata"]["labels"] = {"team": "no label value!"}
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"base.yaml": [invalid, settings]})
    daemon.start()
    _awaits_namespace(daemon, 1)

    kubectl("create", "namespace", namespace)
    daemon.wait_in_sync(settings)
    _awaits_namespace(daemon, 0)
    kubectl("delete", "namespace", namespace, "--wait=false")


# --- h09: what is declared and not in the cluster ---


def _status(daemon: Daemon) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON and text of `driftwatch status`."""
    address = f"--address={daemon.events('listening')[-1]['address']}"

    def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run("status", address, *arguments, warnings_are="default", timeout=60)

    shown, text = asked("--output=json"), asked()
    assert shown.returncode == text.returncode, (shown, text)
    return text.returncode, json.loads(shown.stdout), text.stdout


def _assert_absent(daemon: Daemon, *expected: tuple[str, str], source: str = "") -> None:
    """Wait until exactly these objects are absent, each with a reason, by metric, document, text and exit status."""
    source = source or daemon.source
    for reason in {reason for _, reason in expected}:
        count = sum(each == reason for _, each in expected)
        daemon.wait(
            lambda reason=reason, count=count: (
                daemon.metric("driftwatch_absent_objects", source=source, reason=reason) == count
            ),
            f"{count} are absent: {reason}",
        )
    assert daemon.metric("driftwatch_absent_objects") == len(expected)
    code, document, text = _status(daemon)
    assert code == 1
    assert {(each["name"], each["reason"]) for each in document["absent"]} == set(expected)
    assert document["counts"]["absent"] == len(expected)
    assert f"{len(expected)} absent" in text
    assert "all as Git declares them" not in text
    assert all(name in text for name, _ in expected)


def _assert_fine(daemon: Daemon) -> None:
    daemon.wait(lambda: daemon.metric("driftwatch_absent_objects") == 0, "nothing is absent")
    code, document, text = _status(daemon)
    assert (code, document["absent"]) == (0, []), text
    assert "all as Git declares them" in text


def test_h09_objects_of_a_kind_that_is_not_served_are_seen_as_absent(
    new_daemon: NewDaemon, definition: Definition, namespace: str
) -> None:
    """Never served, served and gone under the running daemon, and gone before a restart."""
    widgets = [definition.widget(name, namespace) for name in ("one", "two")]
    absent = [(widget["metadata"]["name"], "kind_not_served") for widget in widgets]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *widgets]})
    daemon.start()
    _assert_absent(daemon, *absent)
    definition.serve()
    daemon.wait_in_sync(*widgets)
    _assert_fine(daemon)

    definition.drop()
    _assert_absent(daemon, *absent)
    daemon.stop()
    daemon.start()
    _assert_absent(daemon, *absent)
    definition.serve()
    daemon.wait_in_sync(*widgets)
    _assert_fine(daemon)


def test_h09_the_second_source_of_an_object_is_seen(new_daemon: NewDaemon, namespace: str, tmp_path: Path) -> None:
    """Before and after a restart, until one of the two drops it; the owner is named."""
    settings = config_map("settings", namespace)
    first, second = Repository(tmp_path / "first"), Repository(tmp_path / "second")
    first.commit({"a.yaml": [namespace_of(namespace), settings]})
    second.commit({"b.yaml": settings})
    names = [f"{namespace}-{name}" for name in ("first", "second")]
    sources = [
        {"name": name, "repository": str(repository.folder)}
        for name, repository in zip(names, (first, second), strict=True)
    ]
    daemon = new_daemon(sources=sources)
    for _ in range(2):
        daemon.start()
        daemon.wait_in_sync(settings, source=names[0])
        _assert_absent(daemon, ("settings", "declared_twice"), source=names[1])
        _, document, text = _status(daemon)
        assert [(each["source"], each["owner"]) for each in document["absent"]] == [(names[1], names[0])]
        assert names[0] in text
        daemon.stop()
    daemon.start()
    second.commit({"b.yaml": None, "README.md": "Nothing is declared."})
    _assert_fine(daemon)


def test_h09_refused_and_parked_objects_are_seen_as_absent(
    new_daemon: NewDaemon, bounded_account: Account, kubectl: Kubectl, namespace: str
) -> None:
    """A namespace that may not be created is refused, and what is in it waits for it: before and after a restart."""
    objects = [config_map(name, namespace) for name in ("first", "second")]
    daemon = new_daemon(kubeconfig=bounded_account.kubeconfig)
    daemon.configuration["inventory"] = {"namespace": bounded_account.namespace}
    daemon.commit({"base.yaml": [namespace_of(namespace), *objects]})
    expected = [(namespace, "refused"), ("first", "namespace"), ("second", "namespace")]
    daemon.start()
    _assert_absent(daemon, *expected)
    daemon.stop()
    daemon.start()
    _assert_absent(daemon, *expected)
    kubectl("create", "namespace", namespace)
    daemon.wait_in_sync(*objects)
    _assert_absent(daemon, (namespace, "refused"))
    _commit(daemon, {"base.yaml": objects})
    _assert_fine(daemon)
    kubectl("delete", "namespace", namespace, "--wait=false")
