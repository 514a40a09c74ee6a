"""Measures the cost of polling a repository without changes. A source with a short interval pays it all the time."""

import resource
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from driftwatch.git.repository import Repository as Mirror
from driftwatch.source_spec import SourceSpec

from benchmarks import objects
from benchmarks.figures import Check, Results
from benchmarks.plan import Plan
from benchmarks.repository import Repository

POLL_BUDGET = 0.020  # seconds of CPU: at an interval of five seconds, 0.4 % of one core
HOST = "127.0.0.1"
FIRST = 3  # polls that do not count
START_SECONDS = 10.0


def polls(folder: Path, plan: Plan, results: Results) -> None:
    """Measure polls over a path and over the git protocol, for which git starts a helper process."""
    repository = Repository(folder / "polled")
    file = PurePosixPath("settings.yaml")
    repository.commit({file: objects.as_yaml(objects.configmap("polled", "settings", objects.PROBED))}, "Begin")
    with _git_daemon(folder) as address:
        for way, url in (("a path", str(repository.folder)), ("the git protocol", f"{address}/polled")):
            results.checks.append(_looks(way, url, folder, plan.polls))


def _looks(way: str, url: str, folder: Path, count: int) -> Check:
    mirror = Mirror(
        SourceSpec(
            name="polled",
            repository=url,
            revision="HEAD",
            path="",
            interval=1.0,
            timeout=30.0,
            namespace="default",
            mirror=str(folder / "mirrors" / way.replace(" ", "-")),
        )
    )
    cpu, wall = [], []
    for _ in range(FIRST):
        mirror.sync()
    for _ in range(count):
        before, began = _cpu(), time.monotonic()
        mirror.sync()
        cpu.append(_cpu() - before)
        wall.append(time.monotonic() - began)
    median = statistics.median(cpu)
    return Check(
        f"A look at a repository without news, over {way}",
        f"median {median * 1000:.1f} ms of CPU, {statistics.median(wall) * 1000:.1f} ms until the answer, of {count}",
        f"{POLL_BUDGET * 1000:.0f} ms of CPU",
        median <= POLL_BUDGET,
    )


def _cpu() -> float:
    """CPU time of this process and of its finished git processes, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def _git_daemon(root: Path) -> Iterator[str]:
    """Serve the folder's repositories. Yields the address."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    command = ["git", "daemon", "--reuseaddr", f"--listen={HOST}", f"--port={port}", "--export-all"]
    command += [f"--base-path={root}", str(root)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            _wait_for(port)
            yield f"git://{HOST}:{port}"
        finally:
            daemon.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
