"""Status noise: writes one object's status repeatedly at a steady rate, like a misbehaving controller."""

import asyncio
import sys
import time
from pathlib import Path

import orjson
import uvloop

from benchmarks.api import Api


async def main(kubeconfig: Path, path: str, count: int, rate: float) -> None:
    async with Api(kubeconfig, "bench-noise") as api:
        url = api.url(f"{path}/status", fieldManager="bench-controller")
        began = time.monotonic()
        for number in range(count):
            condition = {
                "type": "bench.example/Noise",
                "status": "True",
                "reason": "Noise",
                "message": f"message {number} of {count}",
            }
            patch = orjson.dumps({"status": {"conditions": [condition]}})
            await api.request("PATCH", url, patch, "application/strategic-merge-patch+json")
            await asyncio.sleep(max(0.0, began + (number + 1) / rate - time.monotonic()))
        print(orjson.dumps({"seconds": time.monotonic() - began}).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
