"""Describes the machine of a run: only what its speed depends on, no name of the machine."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from driftwatch.localcluster import Binaries

LIBRARIES = ("driftwatch", "aiohttp", "uvloop", "msgspec", "orjson", "structlog", "prometheus-client", "kubernetes")


def facts(binaries: Binaries) -> dict[str, str]:
    """Machine and versions, by name."""
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Kubernetes": binaries.kubernetes_version,
        "etcd": f"{binaries.etcd_version}, without fsync",
        "Python": platform.python_version(),
        "Libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
