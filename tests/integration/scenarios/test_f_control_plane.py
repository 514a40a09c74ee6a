"""The control plane goes away and comes back, forgets its history, and goes back in time."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
from driftwatch.localcluster import Component, LocalCluster
from tests.support.daemon import Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.meanwhile import meanwhile
from tests.support.own_cluster import own_cluster
from tests.support.scene import NewDaemon
from tests.support.store import Store
from tests.support.waits import SAVING, WATCH_BACKOFF

pytestmark = pytest.mark.waits({**WATCH_BACKOFF, **SAVING})

HEALED = 60.0  # seconds; a watch that could not be opened for a while is tried again after 30 s at most
SAVED = 0.5  # seconds between two looks at whether what is known must be saved, by SAVING
EDIT_PAUSE = 0.03  # seconds between two edits: some of them fall into any moment


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane of this module's own."""
    with own_cluster(tmp_path_factory.mktemp("hurt") / "cluster") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def live(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Its objects."""
    live = Live(cluster.kubeconfig, tmp_path_factory.mktemp("credentials"))
    yield live
    live.close()


@pytest.fixture
def store(cluster: LocalCluster) -> Store:
    """Its etcd."""
    return Store(cluster)


def delete(live: Live, manifest: Manifest) -> None:
    """Delete an object."""
    live.request("DELETE", live.path(manifest))


def edit(live: Live, manifest: Manifest) -> None:
    """Change a field that Git declares, and add one that it does not."""
    path = f"{live.path(manifest)}?fieldManager=kubectl-edit"
    patch = {"data": {"colour": f"{time.monotonic_ns()}", "added": "x"}}
    live.request("PATCH", path, patch, media_type="application/merge-patch+json")


@contextmanager
def tampering(live: Live, manifests: list[Manifest]) -> Iterator[Callable[[], int]]:
    """Edit and delete these objects all the time; what the API server does not take is not asked again.

    Gives how often it has answered so far.
    """
    answers = itertools.count()
    done = [0]
    chance = random.Random(2)

    def tamper() -> None:
        try:
            chance.choice((delete, edit))(live, chance.choice(manifests))
            done[0] = next(answers) + 1
        except urllib3.exceptions.HTTPError:
            pass

    with meanwhile(tamper, EDIT_PAUSE):
        yield lambda: done[0]


class Untouched:
    """Objects that nobody tampers with: whatever is said of them, or written to them, is invented."""

    def __init__(self, daemon: Daemon, live: Live, manifests: list[Manifest]) -> None:
        self._daemon = daemon
        self._live = live
        self.manifests = manifests
        self._before = [live.get(manifest) for manifest in manifests]
        assert None not in self._before

    def check(self) -> None:
        """Nothing was written to them, and nothing was said of them."""
        assert [self._live.get(manifest) for manifest in self.manifests] == self._before
        names = {manifest["metadata"]["name"] for manifest in self.manifests}
        namespace = self.manifests[0]["metadata"]["namespace"]
        said = [line for line in self._daemon.drifts(namespace=namespace) if line["name"] in names]
        assert said == []


@pytest.fixture
def begin(new_daemon: NewDaemon, live: Live, namespace: str) -> Callable[[], tuple[Daemon, list[Manifest], Untouched]]:
    """Have a daemon keep forty objects; the first twenty of them are to be tampered with."""

    def begun() -> tuple[Daemon, list[Manifest], Untouched]:
        objects = [config_map(f"n{number}", namespace) for number in range(40)]
        daemon = new_daemon()
        daemon.commit({"all.yaml": [namespace_of(namespace), *objects]})
        daemon.start()
        daemon.wait_in_sync(*objects)
        return daemon, objects[:20], Untouched(daemon, live, objects[20:])

    return begun


@pytest.fixture
def healed(live: Live, cluster: LocalCluster) -> Callable[..., None]:
    """Wait until everything is as Git declares it, as long as that may take after an outage."""

    def wait(daemon: Daemon, manifests: list[Manifest]) -> None:
        daemon.wait(lambda: cluster.status().running, "the control plane is ready", timeout=HEALED)
        for manifest in manifests:
            daemon.wait(
                lambda manifest=manifest: not live.difference(manifest, daemon.source),
                f"{manifest['metadata']['name']} is in sync",
                timeout=HEALED,
            )

    return wait


Begin = Callable[[], tuple[Daemon, list[Manifest], Untouched]]
Healed = Callable[[Daemon, list[Manifest]], None]


@pytest.mark.parametrize("component", [Component.APISERVER, Component.ETCD])
def test_f02_killed_and_restarted_under_load(
    begin: Begin, healed: Healed, live: Live, cluster: LocalCluster, component: Component
) -> None:
    """Killed three times while objects are edited and deleted: all that happened is healed, and nothing else."""
    daemon, objects, untouched = begin()
    with tampering(live, objects) as answers:
        for outage in (0.0, 0.5, 3.0):
            before = answers()
            daemon.wait(lambda before=before: answers() > before + 20, "objects are tampered with")
            cluster.kill(component)
            time.sleep(outage)
            cluster.start(component)
    healed(daemon, objects)
    untouched.check()


@pytest.mark.parametrize("component", [Component.APISERVER, Component.ETCD])
def test_f02_started_while_it_is_away(
    begin: Begin, healed: Healed, live: Live, cluster: LocalCluster, component: Component
) -> None:
    """The daemon waits for it, and finds what it knew: what was edited while it was down is drift, by whom it was."""
    daemon, objects, untouched = begin()
    time.sleep(2 * SAVED)
    daemon.stop()
    edit(live, objects[0])
    cluster.kill(component)

    daemon.start(ready=False)
    line = daemon.wait(lambda: daemon.events("the API server cannot be reached"), "it is waited for", timeout=HEALED)[0]
    code, words = daemon.get("/readyz")
    cluster.start(component)

    assert line["next"].startswith("tried again in")
    assert (code, daemon.get("/healthz")[0]) == (503, 200)
    assert "API server: " in words
    healed(daemon, objects)
    daemon.wait(lambda: daemon.get("/readyz")[0] == 200, "the daemon is ready")
    drifts = daemon.drifts(namespace=objects[0]["metadata"]["namespace"])
    assert {(line["name"], line["manager"]) for line in drifts} == {(objects[0]["metadata"]["name"], "kubectl-edit")}
    untouched.check()


def test_f02_history_that_is_compacted_away(
    begin: Begin, healed: Healed, live: Live, cluster: LocalCluster, store: Store
) -> None:
    """What happened in a gap that the API server cannot tell of any more is found by listing, each drift once."""
    daemon, objects, untouched = begin()
    deleted, edited = objects[:5], objects[5:10]

    def restart() -> None:
        cluster.kill(Component.APISERVER)
        cluster.start(Component.APISERVER)

    with daemon.suspended():
        restart()  # its watches end here
        for manifest in deleted:
            delete(live, manifest)
        for manifest in edited:
            edit(live, manifest)
        store.compact()
        restart()  # so that nothing of it is remembered anywhere
    healed(daemon, objects)

    assert daemon.metric("driftwatch_watch_restarts_total", kind="ConfigMap", reason="gone") == 1
    assert named(daemon, "deleted", objects) == sorted(manifest["metadata"]["name"] for manifest in deleted)
    assert named(daemon, "modified", objects) == sorted(manifest["metadata"]["name"] for manifest in edited)
    untouched.check()


def named(daemon: Daemon, drift_type: str, manifests: list[Manifest]) -> list[str]:
    """Names of the objects of which drift of this type was healed, as often as it was said."""
    namespace = manifests[0]["metadata"]["namespace"]
    return sorted(line["name"] for line in daemon.events("drift healed", type=drift_type, namespace=namespace))


@pytest.mark.parametrize("meanwhile", ["running", "down"])
def test_f02_store_restored_from_an_older_backup(
    begin: Begin, healed: Healed, live: Live, store: Store, tmp_path: Path, meanwhile: str
) -> None:
    """The cluster is an older one, and its versions are lower than those that were seen: Git's newest state comes back.

    What is tampered with from then on is healed at once, although it looks older than what the daemon has written.
    """
    daemon, objects, untouched = begin()
    namespace = objects[0]["metadata"]["namespace"]
    store.backup(tmp_path / "backup")
    before = store.revision()

    changed, new = config_map("n0", namespace, colour="blue"), config_map("new", namespace)
    rest = objects[1:]
    everything = [changed, new, *rest]
    commit = daemon.commit({"all.yaml": [namespace_of(namespace), *everything, *untouched.manifests]})
    daemon.wait(lambda: daemon.events("snapshot", commit=commit[:12]), "the commit is read")
    daemon.wait_in_sync(*everything)
    for manifest in rest[:10]:
        for _ in range(10):
            edit(live, manifest)
        daemon.wait_in_sync(manifest)
    after = store.revision()
    if meanwhile == "down":
        daemon.stop()
    store.restore(tmp_path / "backup")
    assert store.revision() < after
    if meanwhile == "down":
        daemon.start()
    healed(daemon, everything)
    untouched.check()

    daemon.wait(daemon.is_ready, "the daemon is ready")
    assert store.revision() < after, "the versions have caught up: the test says nothing"
    for manifest in (changed, new, rest[0]):
        delete(live, manifest)
        edit(live, rest[1])
    healed(daemon, everything)
    assert before < after
