"""Block F of the scenarios: what happens to a watch on its way, between the real API server and the daemon.

While a fault lasts there is drift of every sort. After it everything is as Git says, and what the daemon has told is
what was done: nothing is missed, nothing is told twice, nothing is made up.
"""

from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support import faults
from tests.support.api_request import EVERYTHING, Request, Where, lists, watches, writes
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.fault_proxy import Door, FaultProxy, fault_proxy
from tests.support.faults import Fault
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest
from tests.support.scene import Scene, daemons
from tests.support.waiting import until
from tests.support.waits import WATCH_BACKOFF

LONG = 90.0  # seconds; a backoff is up to thirty
MAPS = "configmaps"


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """What lies between the daemon and the API server."""
    with fault_proxy(cluster.kubeconfig, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def shared_daemon(
    cluster: LocalCluster, live: Live, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    """A daemon behind the proxy, which all tests of the module share."""
    with daemons(cluster, live, tmp_path_factory, waits=WATCH_BACKOFF) as new:
        daemon = new(kubeconfig=proxy.kubeconfig)
        daemon.commit({"README.md": "Nothing is declared yet."})
        yield daemon.start()


class Trouble:
    """Objects of a scene, what is done to them behind the daemon's back, and what is to be told of it afterwards."""

    def __init__(self, scene: Scene, proxy: FaultProxy) -> None:
        self.scene = scene
        self.proxy = proxy
        self._live = scene.live
        space = scene.namespace
        self._deleted, self._edited, self._twice = (config_map(name, space) for name in ("deleted", "edited", "twice"))
        self._labelled = config_map("labelled", space)
        self._labelled["metadata"]["labels"] = {"tier": "web"}
        self._secret = manifest("v1", "Secret", "secret", space, stringData={"password": "hunter2"})
        self._calm = config_map("calm", space)
        self.declared = [self._deleted, self._edited, self._twice, self._labelled, self._secret, self._calm]
        scene.declare(*self.declared)
        self._calm_uid = self._live.uid(self._calm)

    def drift(self) -> None:
        """Delete, edit, take a label away, do it twice; have something with our label come and go."""
        for declared in (self._deleted, self._secret):
            self._live.request("DELETE", self._live.path(declared))
        self._live.patch(self._edited, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        self._live.patch(self._labelled, {"metadata": {"labels": {"tier": None}}}, manager="kubectl-label")
        for colour in ("green", "black"):
            self._live.patch(self._twice, {"data": {"colour": colour}}, manager="kubectl-patch")
        stray = config_map("stray", self.scene.namespace)
        stray["metadata"]["labels"] = {"driftwatch.io/source": self.scene.daemon.source}
        self._live.patch(stray, stray, manager="kubectl-create", kind="apply")
        self._live.request("DELETE", self._live.path(stray))

    def told(self) -> list[tuple[str, str, str]]:
        """Name, event and drift type of all that the daemon has said of drift in the namespace.

        What was edited twice may have been healed in between, and is then told twice.
        """
        found = [(line["name"], line["event"], line["type"]) for line in self.scene.drifts()]
        twice = ("twice", "drift healed", "modified")
        if found.count(twice) == 2:
            found.remove(twice)
        return sorted(found)

    def wait_healed(self) -> None:
        """Wait until everything is in sync, and the watches bring what is new."""
        daemon = self.scene.daemon
        daemon.wait(lambda: self.scene.drifts(name="deleted"), "the deleted ConfigMap is back", timeout=LONG)
        daemon.wait(lambda: self.scene.drifts(name="secret"), "the deleted Secret is back", timeout=LONG)
        daemon.wait_in_sync(*self.declared)
        self.scene.settle()

    def assert_told_exactly(self) -> None:
        """Each drift is told once, healed; the label looks like any edit; what was calm was let alone."""
        assert self.told() == [
            ("deleted", "drift healed", "deleted"),
            ("edited", "drift healed", "modified"),
            ("labelled", "drift healed", "modified"),
            ("secret", "drift healed", "deleted"),
            ("twice", "drift healed", "modified"),
        ], self.scene.daemon.last_lines()
        assert self._live.uid(self._calm) == self._calm_uid
        assert self.writes("calm") == []

    def writes(self, name: str) -> list[str]:
        """What the daemon has written of an object since it was declared."""
        return [line for line in self.scene.requests(name=name) if line.startswith(("patch", "create", "update"))]


@pytest.fixture
def trouble(scene: Scene, proxy: FaultProxy) -> Iterator[Trouble]:
    """Objects that the daemon keeps behind the proxy, which is in order before and after."""
    trouble = Trouble(scene, proxy)
    yield trouble
    proxy.door = Door.OPEN


OF_WATCHES = {
    "ends cleanly": faults.End,
    "is cut": faults.Cut,
    "410 as event": lambda: faults.ErrorEvent(410),
    "500 as event": lambda: faults.ErrorEvent(500),
    "garbage in place of an event": lambda: faults.Garbage(b'{"type":"MODIFIED","object":"\xff"}\n'),
    "garbage in place of a chunk": lambda: faults.Garbage(framed=False),
}


@pytest.mark.parametrize("fault", OF_WATCHES)
def test_f01_watch_again_and_again(trouble: Trouble, fault: str) -> None:
    """Every watch that opens meets the same fault at once, until it is over."""
    with trouble.proxy.fault(OF_WATCHES[fault](), watches(MAPS, "secrets")) as injection:
        trouble.drift()
        trouble.proxy.wait_hits(injection, 4)

    trouble.wait_healed()
    trouble.assert_told_exactly()


OF_LINES = {
    "half a line, then cut": faults.HalfLine,
    "half a line, then a clean end": lambda: faults.HalfLine(clean=True),
}


@pytest.mark.parametrize("fault", OF_LINES)
def test_f01_half_a_line(trouble: Trouble, fault: str) -> None:
    """Of every third or so event only half arrives, three times; the rest comes with the next watch."""
    with trouble.proxy.fault(OF_LINES[fault](), watches(MAPS), times=3) as injection:
        trouble.drift()
        trouble.proxy.wait_hits(injection, 3)
        trouble.wait_healed()

    trouble.assert_told_exactly()


@pytest.mark.parametrize("fault", [faults.Duplicate, faults.Reorder])
def test_f01_events_twice_and_out_of_order(trouble: Trouble, fault: type[Fault]) -> None:
    """An event that comes again, or after a newer one, is no drift of its own."""
    with trouble.proxy.fault(fault(), watches(MAPS)):
        trouble.drift()
        trouble.scene.daemon.wait_in_sync(*trouble.declared)

    trouble.wait_healed()
    trouble.assert_told_exactly()


def test_f01_events_that_come_again_when_all_is_healed(trouble: Trouble) -> None:
    """The deletion and the edits come a second time, as from a stale cache: nothing is asked for, nothing is told."""
    fault = faults.Duplicate(later=1.0)
    with trouble.proxy.fault(fault, watches(MAPS)):
        trouble.drift()
        trouble.scene.daemon.wait_in_sync(*trouble.declared)
    until(lambda: not fault.pending, "all have come again")

    trouble.wait_healed()
    trouble.assert_told_exactly()
    assert [len(trouble.writes(name)) for name in ("deleted", "edited", "labelled")] == [1, 1, 1]


@pytest.mark.parametrize(("code", "retry_after"), [(410, None), (429, 1), (500, None), (503, 1), (401, None)])
def test_f01_refusals(trouble: Trouble, code: int, retry_after: int | None) -> None:
    """Watches are cut, and whoever opens one again or lists is refused five times before it is well again."""
    where = Where(("watch", "list"), (MAPS, "secrets"))
    with trouble.proxy.fault(faults.Refuse(code, retry_after), where, times=5) as injection:
        trouble.proxy.cut()
        trouble.drift()
        trouble.proxy.wait_hits(injection, 5)

    trouble.wait_healed()
    trouble.assert_told_exactly()


@pytest.mark.parametrize("door", [Door.REFUSED, Door.NO_HANDSHAKE, Door.WRONG_CERTIFICATE])
def test_f01_no_connection(trouble: Trouble, door: Door) -> None:
    """All connections are cut, and new ones fail: nobody listens, no TLS, a certificate of somebody else."""
    trouble.proxy.door = door
    trouble.proxy.cut()
    trouble.drift()
    trouble.scene.daemon.wait(
        lambda: trouble.scene.daemon.metric("driftwatch_watch_up", kind="ConfigMap") == 0, "the watch is down"
    )
    trouble.proxy.door = Door.OPEN

    trouble.wait_healed()
    trouble.assert_told_exactly()


@pytest.mark.parametrize("fault", [faults.CutAnswer, faults.TruncateAnswer, faults.LoseAnswer])
def test_f01_broken_list(trouble: Trouble, fault: type[Fault]) -> None:
    """A list that is cut in the middle, or ends too soon, deletes nothing."""
    with (
        trouble.proxy.fault(faults.Refuse(422), lambda request: request.initial),
        trouble.proxy.fault(fault(), lists(MAPS, "secrets"), times=6) as injection,
    ):
        trouble.proxy.inject(faults.ErrorEvent(410), watches(MAPS, "secrets"), times=2)
        trouble.drift()
        trouble.proxy.wait_hits(injection, 6)
        trouble.wait_healed()

    trouble.assert_told_exactly()


def test_f01_stalled_for_a_while(trouble: Trouble) -> None:
    """What a stalled stream held is healed when it comes."""
    with trouble.proxy.fault(faults.Stall(), watches()):
        trouble.drift()

    trouble.wait_healed()
    trouble.assert_told_exactly()


def test_f01_slow_network(trouble: Trouble) -> None:
    """Everything takes a fifth of a second longer: it is healed later, and told once."""
    with trouble.proxy.fault(faults.Latency(0.2), EVERYTHING):
        trouble.drift()
        trouble.scene.daemon.wait_in_sync(*trouble.declared)

    trouble.wait_healed()
    trouble.assert_told_exactly()


@pytest.mark.parametrize("fault", [faults.LoseAnswer, faults.LoseRequest])
def test_f01_answer_to_a_heal_is_lost(trouble: Trouble, audit: AuditTrail, fault: type[Fault]) -> None:
    """Whether or not the API server has done what was asked: it is created once, and no drift is told twice."""
    with trouble.proxy.fault(fault(), writes(MAPS, "secrets"), times=4) as injection:
        trouble.drift()
        trouble.proxy.wait_hits(injection, 4)

    trouble.wait_healed()
    told = trouble.told()
    assert len(told) == len(set(told))
    assert {name for name, _, drift_type in told if drift_type == "deleted"} == {"deleted", "secret"}
    healed = {name for name, event, _ in told if event == "drift healed"}
    if fault is faults.LoseRequest:
        assert healed == {"deleted", "edited", "labelled", "secret", "twice"}
    else:  # what was deleted is in order when it is looked at again, and was told when its heal had no answer
        assert healed - {"deleted", "secret"} == {"edited", "labelled", "twice"}
    created = audit.events(agent=AGENT, namespace=trouble.scene.namespace, name="deleted", code=201)
    assert len(created) == 1


@pytest.mark.parametrize("fault", [faults.LoseAnswer, faults.LoseRequest])
def test_f01_the_second_write_of_a_heal_is_lost(trouble: Trouble, live: Live, fault: type[Fault]) -> None:
    """An apply leaves what was added under our name, and the write that takes it over fails: the addition goes."""
    edited = trouble.declared[1]
    where = writes(MAPS)

    def takes_over(request: Request) -> bool:
        return where(request) and b"/metadata/managedFields" in request.body

    with trouble.proxy.fault(fault(), takes_over, times=1) as injection:
        live.patch(edited, {"data": {"extra": "yes"}}, manager="driftwatch")
        trouble.proxy.wait_hits(injection, 1)

    daemon = trouble.scene.daemon
    daemon.wait(lambda: "extra" not in live.get(edited)["data"], "what was added is gone")
    daemon.wait_in_sync(edited)


def test_f06_lost_events_are_found_by_no_watch(trouble: Trouble, live: Live) -> None:
    """An event that never comes is the one fault that a watch cannot know of; the next one of the object mends it."""
    with trouble.proxy.fault(faults.DropEvents(), watches(MAPS)) as injection:
        lost: Manifest = trouble.declared[1]
        live.patch(lost, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        trouble.proxy.wait_hits(injection)
    trouble.scene.settle()
    assert trouble.told() == []

    trouble.proxy.inject(faults.ErrorEvent(410), watches(MAPS), times=1)
    trouble.scene.wait_drift("edited", type="modified")
