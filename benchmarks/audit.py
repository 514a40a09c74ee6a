"""Counts requests to the API server in its audit log."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

AGENT = "driftwatch/"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def requests(log: Path, since: float, until: float, agent: str = AGENT, namespace: str | None = None) -> Counter[str]:
    """Number of requests of a user agent received between two times (seconds since the epoch), by verb.

    With `namespace` only requests for that namespace or for objects in it. A GET of no object (discovery, /version)
    counts as `discovery`. The log has a watch only when the watch has ended.
    """
    counts: Counter[str] = Counter()
    with log.open("rb") as lines:
        for line in lines:
            event = orjson.loads(line)
            if not event.get("userAgent", "").startswith(agent):
                continue
            received = datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()
            if since <= received <= until and namespace in (None, event.get("objectRef", {}).get("namespace")):
                counts[_what(event)] += 1
    return counts


def told(counts: Counter[str]) -> str:
    """The counts as text."""
    return ", ".join(f"{count:,} {verb}" for verb, count in sorted(counts.items())) or "none"


def _what(event: dict[str, Any]) -> str:
    """The verb of a request. A dry run is counted separately, because it writes nothing."""
    if "objectRef" not in event:
        return "discovery"
    return "dry run" if "dryRun=All" in event["requestURI"] else str(event["verb"])
