"""A real control plane for all tests of a run, and what a test asks of it."""

import asyncio
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import uvloop
from driftwatch.localcluster import LocalCluster
from hypothesis import settings

from tests.support import hypothesis_profiles  # noqa: F401  it registers them
from tests.support.alone import Machine
from tests.support.audit import AuditTrail
from tests.support.drift_story import Story, played
from tests.support.kubectl import Kubectl
from tests.support.live import Live

settings.load_profile("short")  # unless pytest is told --hypothesis-profile=long

ROOT = Path(__file__).parents[1]
# Of what runs side by side, long files begin first and unit tests, which are short, fill the gaps at the end.
ORDER = ("tests/property", "tests/integration/scenarios", "tests/integration", "tests/chaos", "tests/unit")
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on asyncio's event loop, and on uvloop's, which the daemon has, where they ask for it by a mark."""
    mark = item.get_closest_marker("asyncio")
    if mark is not None and "loop_factories" in mark.kwargs:
        return LOOPS
    return {"asyncio": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first; tests that use the story are slow, because it has to be played for them."""
    for item in items:
        if "story" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.relative_to(ROOT).as_posix()
        return ORDER.index(folder) if folder in ORDER else len(ORDER)

    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that measures time has the machine for itself, also where several run side by side."""
    is_alone = item.get_closest_marker("alone") is not None
    with _machine(item.config).held(alone=is_alone) if hasattr(item.config, "workerinput") else nullcontext():
        return (yield)


def _machine(config: pytest.Config) -> Machine:
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return Machine(factory.getbasetemp().parent)  # the folder of the run, in which each worker has its own


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A control plane that is shared: a test uses namespaces of its own, and restores what it breaks."""
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster"))
    cluster.up()
    yield cluster
    cluster.down(delete=True)


@pytest.fixture(scope="session")
def kubectl(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """Call kubectl on the shared control plane, as its administrator."""
    return Kubectl(cluster.kubectl, cluster.kubeconfig, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def live(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The API server's objects."""
    live = Live(cluster.kubeconfig, tmp_path_factory.mktemp("credentials"))
    yield live
    live.close()


_numbers = itertools.count(1)


@pytest.fixture
def new_namespace(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Make up names for namespaces, which are in use nowhere else; the namespaces are not created."""
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    return lambda: f"{stem}-{next(_numbers)}"


@pytest.fixture
def namespace(new_namespace: Callable[[], str]) -> str:
    """Give a name for a namespace, which is in use nowhere else; the namespace is not created."""
    return new_namespace()


@pytest.fixture
def audit(cluster: LocalCluster) -> AuditTrail:
    """Tell what the shared control plane is asked for from here on."""
    return AuditTrail(cluster.audit_log)


@pytest.fixture(scope="session")
def story(
    cluster: LocalCluster, live: Live, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """A daemon that has lived through a story of drift, and the Prometheus that scraped it meanwhile."""
    with played(cluster, live, kubectl, tmp_path_factory.mktemp("story")) as story:
        yield story


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something to whoever runs the tests."""
    writer = request.config.get_terminal_writer()

    def said(text: str) -> None:
        with capsys.disabled():
            writer.line(f"\n{text}")

    return said
