"""A configuration that changes while the daemon starts, or after one that could not be used (h06)."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.api_request import Request
from tests.support.daemon import Daemon
from tests.support.fault_proxy import Door, FaultProxy
from tests.support.faults import Answer, Fault
from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon

RELOADED = "configuration reloaded"
UNUSABLE = "configuration cannot be used"


def _rewrite(daemon: Daemon, content: str, said: str) -> None:
    """Change the file, and wait until the daemon says so much of it."""
    before = len(daemon.events(said))
    (daemon.folder / "driftwatch.yaml").write_text(content)
    daemon.wait(lambda: len(daemon.events(said)) > before, said)


def _sources(daemon: Daemon, *repositories: Repository) -> str:
    """The file with other repositories instead of the source that it has."""
    [source] = daemon.configuration["sources"]
    entries = [
        {**source, "name": f"{daemon.source}-{each.folder.name}", "repository": str(each.folder)}
        for each in repositories
    ]
    return yaml.safe_dump({**daemon.configuration, "sources": entries})


@pytest.mark.parametrize("mistake", ["cluster: {namespace: !!bool maybe}", "drift: {audit: !!timestamp soon}"])
def test_h06_reload_after_a_file_that_cannot_be_read(
    new_daemon: NewDaemon, live: Live, namespace: str, mistake: str
) -> None:
    """The mistake is named with its line and counted; then SIGHUP and a mended file work, and healing never stopped."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"app.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    section, _, rest = mistake.partition(": ")
    content = {key: value for key, value in daemon.configuration.items() if key != section}
    text = yaml.safe_dump(content)

    _rewrite(daemon, f"{text}{section}: {rest}\n", UNUSABLE)
    line = len(text.splitlines()) + 1
    assert f"driftwatch.yaml:{line}: " in daemon.events(UNUSABLE)[-1]["error"]
    assert daemon.metric("driftwatch_config_reloads_total", result="failure") == 1
    live.request("DELETE", live.path(settings))
    daemon.wait_in_sync(settings)

    _rewrite(daemon, yaml.safe_dump(daemon.configuration), RELOADED)
    daemon.signal(signal.SIGHUP)
    daemon.wait(lambda: len(daemon.events(RELOADED)) == 2, "SIGHUP is taken in")
    assert daemon.metric("driftwatch_config_reloads_total", result="success") == 2


@pytest.fixture
def proxy(cluster: LocalCluster, tmp_path: Path) -> Iterator[FaultProxy]:
    """A proxy to the shared control plane."""
    proxy = FaultProxy(cluster.kubeconfig, tmp_path / "proxy")
    yield proxy
    proxy.close()


class Held(Fault):
    """A request waits until the fault is lifted."""

    async def on_request(self, request: Request) -> Answer | None:  # noqa: ARG002  every request waits alike
        """Wait."""
        await self.lifted.wait()


def _asks_for_the_version(request: Request) -> bool:
    return " /version" in request.head.start


@pytest.mark.parametrize("obstacle", ["unreachable", "slow"])
def test_h06_reload_during_a_slow_start(
    proxy: FaultProxy,
    new_daemon: NewDaemon,
    live: Live,
    new_namespace: Callable[[], str],
    tmp_path: Path,
    obstacle: str,
) -> None:
    """Sources that the file names while the start waits for the API server are followed, and no others."""
    old, new = Repository(tmp_path / "old"), Repository(tmp_path / "new")
    objects = []
    for repository in (old, new):
        namespace = new_namespace()
        objects.append(config_map("settings", namespace))
        repository.commit({"app.yaml": [namespace_of(namespace), objects[-1]]})
    daemon = new_daemon(kubeconfig=proxy.kubeconfig)
    daemon.configuration = yaml.safe_load(_sources(daemon, old))
    held = proxy.inject(Held(), _asks_for_the_version) if obstacle == "slow" else None
    if held is None:
        proxy.door = Door.REFUSED
    daemon.start(ready=False)
    if held is None:
        daemon.wait(lambda: daemon.events("the API server cannot be reached"), "it waits for the API server")
    else:
        daemon.wait(lambda: held.hits, "it waits for the version")

    (daemon.folder / "driftwatch.yaml").write_text(_sources(daemon, new))
    daemon.wait(lambda: daemon.get("/readyz")[0] == 503, "it is not ready")
    if held is None:
        daemon.wait(lambda: daemon.events(RELOADED), RELOADED)
        proxy.door = Door.OPEN
    else:
        daemon.wait(lambda: f"{daemon.source}-new" in daemon.get("/metrics")[1], "the file is read")
        proxy.lift(held)

    daemon.wait(daemon.is_ready, "it is ready")
    daemon.wait_in_sync(objects[1], source=f"{daemon.source}-new")
    assert not live.uid(objects[0])
    assert {line["source"] for line in daemon.events("snapshot")} == {f"{daemon.source}-new"}
