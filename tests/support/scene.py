"""What a scenario is played with: daemons that end with it, and a namespace that one of them keeps."""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driftwatch.localcluster import LocalCluster

from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.waits import Waits

NewDaemon = Callable[..., Daemon]
WITNESS = "witness"


@contextmanager
def daemons(
    cluster: LocalCluster,
    live: Live,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    forked: bool = True,
    waits: Waits | None = None,
) -> Iterator[NewDaemon]:
    """Make daemons, and stop them at the end. Without `forked` they are started by their command."""
    made: list[Daemon] = []

    def new(**settings: Any) -> Daemon:
        kubeconfig = settings.pop("kubeconfig", cluster.kubeconfig)
        made.append(Daemon(tmp_path_factory.mktemp("daemon"), live, kubeconfig, **settings))
        made[-1].forked = forked
        made[-1].waits = waits or {}
        return made[-1]

    try:
        yield new
        for daemon in made:
            daemon.stop()
    finally:
        for daemon in made:
            daemon.kill()


class Scene:
    """A namespace with objects that the shared daemon keeps."""

    def __init__(self, daemon: Daemon, live: Live, audit: AuditTrail, namespace: str) -> None:
        self.daemon = daemon
        self.live = live
        self.audit = audit
        self.namespace = namespace
        self._witness = config_map(WITNESS, namespace)

    def declare(self, *manifests: Manifest) -> None:
        """Declare objects in the namespace, and wait until they are there; what went before is no evidence.

        A copy of the first one is declared as well, the witness.
        """
        self._witness = copy.deepcopy(manifests[0])
        self._witness["metadata"]["name"] = WITNESS
        everything = (namespace_of(self.namespace), self._witness, *manifests)
        self.daemon.declare(*everything, file=f"{self.namespace}.yaml")
        self.settle()
        self.audit.mark()

    def settle(self) -> None:
        """Wait until the daemon has done with everything that happened before.

        A watch keeps the order: when a deletion of the witness is healed, all that happened before to objects of its
        kind was seen, and what it made the daemon do was begun. Two of them, so that a request which the first one
        overtook has ended, too.
        """
        for _ in range(2):
            uid = self.live.uid(self._witness)
            self.live.request("DELETE", self.live.path(self._witness))
            self.daemon.wait(lambda uid=uid: self.live.uid(self._witness) not in ("", uid), "the witness is back")

    @staticmethod
    def json(found: Manifest) -> str:
        """A manifest as kubectl reads it from its standard input."""
        return json.dumps(found)

    def requests(self, *, name: str | None = None) -> list[str]:
        """What the daemon has asked for in the namespace since `declare`, but for the witness."""
        return [
            f"{event['verb']} {event['objectRef']['resource']}/{event['objectRef'].get('name')} "
            f"→ {event['responseStatus']['code']}"
            for event in self.audit.events(agent=AGENT, namespace=self.namespace, name=name)
            if event["objectRef"].get("name") != WITNESS
        ]

    def drifts(self, **fields: str) -> list[dict[str, Any]]:
        """What the daemon has said of drift in the namespace, but for the witness."""
        return [line for line in self.daemon.drifts(namespace=self.namespace, **fields) if line["name"] != WITNESS]

    def wait_drift(self, name: str, **fields: str) -> dict[str, Any]:
        """Wait until drift of an object in the namespace is healed; return what is said of it."""
        return self.daemon.wait_drift(namespace=self.namespace, name=name, **fields)

    def drift_total(self, **labels: str) -> float:
        """How much drift was counted in the namespace; the deletions of the witness are among it."""
        return self.daemon.drift_total(namespace=self.namespace, **labels)


def failed_writes(audit: AuditTrail) -> list[str]:
    """Writes of the daemon that the API server refused since the mark."""
    return [
        f"{event['verb']} {event['objectRef']} → {event['responseStatus']}"
        for event in audit.events(agent=AGENT)
        if event["verb"] in WRITES and event["responseStatus"]["code"] >= 400
    ]
