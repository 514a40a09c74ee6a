"""Measures the cost of a scrape with many managed objects, and heals while clients scrape without a pause.

`python -m benchmarks.scrape ADDRESS CLIENTS` runs these clients in a separate process.
"""

import http
import statistics
import sys
import threading
import time

from benchmarks.figures import Results
from benchmarks.latency import single
from benchmarks.plan import Plan
from benchmarks.room import Daemon, Room, http_get

SCRAPES = 30
CLIENTS = 8
ACCEPT = "application/openmetrics-text;version=1.0.0"
SCRAPE_PAUSE = 0.3  # seconds


def scrapes(room: Room, daemon: Daemon, size: int, results: Results) -> None:
    """Measure time and size of a scrape."""
    room.settle()
    answers = []
    for _ in range(SCRAPES):
        # With pauses, like Prometheus: after a response the daemon pauses before it makes the next one.
        time.sleep(SCRAPE_PAUSE)
        answers.append(_scrape(daemon.address))
    seconds = [taken for taken, _ in answers]
    body = answers[-1][1]
    samples = sum(not line.startswith(b"#") for line in body.splitlines())
    results.grew(
        "A scrape",
        size,
        f"median {statistics.median(seconds) * 1e3:.1f} ms, longest {max(seconds) * 1e3:.1f} ms, "
        f"{len(body) / 1e3:.0f} kB, {samples:,} samples",
    )


def scrape_storm(room: Room, daemon: Daemon, namespace: str, size: int, plan: Plan, results: Results) -> None:
    """Measure deletions while eight clients scrape without a pause."""
    storm = room.python("scrape", daemon.address, str(CLIENTS))
    try:
        results.duels.append(
            single(
                room,
                "delete",
                "ConfigMap",
                namespace,
                plan.repetitions_beside,
                suffix=f", {size:,} objects managed, while {CLIENTS} clients scrape without a pause",
            )
        )
    finally:
        storm.stop()


def _scrape(address: str) -> tuple[float, bytes]:
    began = time.perf_counter()
    status, body = http_get(address, "/metrics", Accept=ACCEPT)
    assert status == http.HTTPStatus.OK, body
    return time.perf_counter() - began, body


def main(address: str, clients: int) -> None:
    """Scrape with `clients` threads until killed."""

    def client() -> None:
        while True:
            _scrape(address)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
