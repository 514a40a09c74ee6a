"""Status noise over many kinds: writes the statuses of custom resources in turn over many connections, at a fixed rate.

It is a separate process. At the end it prints the number of writes. A number below the rate shows the limit of the API
server.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import uvloop
import yarl

from benchmarks import objects
from benchmarks.api import Api

WRITERS = 24  # connections


async def main(kubeconfig: Path, namespace: str, kinds: int, rate: float, seconds: float) -> None:
    async with Api(kubeconfig, "bench-rain") as api:
        urls = [
            api.url(f"{objects.noisy_path(namespace, number)}/status", fieldManager="bench-controller")
            for number in range(kinds)
        ]
        began = time.monotonic()
        turns = itertools.count()
        await asyncio.gather(*(_write(api, urls, turns, began, rate, seconds) for _ in range(WRITERS)))
        print(orjson.dumps({"writes": next(turns), "seconds": time.monotonic() - began}).decode(), flush=True)


async def _write(
    api: Api, urls: list[yarl.URL], turns: Iterator[int], began: float, rate: float, seconds: float
) -> None:
    while time.monotonic() - began < seconds:
        number = next(turns)
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        patch = orjson.dumps({"status": {"message": f"message {number}", "observed": number}})
        await api.request("PATCH", urls[number % len(urls)], patch, "application/merge-patch+json")


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5])))
