"""The API server's audit log, as evidence of who asked it for what."""

import json
import time
from pathlib import Path


class AuditTrail:
    """Requests that the API server has completed since a mark; at first, since the trail was made.

    A watch is written down when it ends. Health probes and what the API server asks of itself are not.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._start = 0
        self.mark()

    def mark(self) -> None:
        """Forget all that is in the log by now."""
        self._start = self._log.stat().st_size if self._log.exists() else 0

    def events(
        self,
        *,
        agent: str | None = None,
        user: str | None = None,
        verb: str | None = None,
        resource: str | None = None,
        namespace: str | None = None,
        name: str | None = None,
        code: int | None = None,
    ) -> list[dict]:
        """Return audit events, oldest first. `agent` is the start of a user agent; all else is compared whole.

        Requests about Kubernetes Events come only when they are asked for, by `resource`: they follow from all others.
        """
        with self._log.open("rb") as stream:
            stream.seek(max(self._start - 1, 0))
            content = stream.read()
        if self._start:  # the mark may have been made while a line was being written
            content = content[content.find(b"\n") + 1 :]
        complete = content[: content.rfind(b"\n") + 1]
        return [
            event
            for event in map(json.loads, complete.splitlines())
            if (agent is None or event.get("userAgent", "").startswith(agent))
            and user in (None, event["user"].get("username"))
            and verb in (None, event["verb"])
            and _is_wanted(resource, event.get("objectRef", {}).get("resource"))
            and namespace in (None, event.get("objectRef", {}).get("namespace"))
            and name in (None, event.get("objectRef", {}).get("name"))
            and code in (None, event.get("responseStatus", {}).get("code"))
        ]

    def wait(self, count: int = 1, *, timeout: float = 10.0, **filters) -> list[dict]:
        """Return the events as soon as there are `count`: an event can come a moment after its response."""
        deadline = time.monotonic() + timeout
        while len(found := self.events(**filters)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} audit events like {filters} in {timeout} s"
            time.sleep(0.02)
        return found


def _is_wanted(resource: str | None, found: str | None) -> bool:
    return found != "events" if resource is None else found == resource
