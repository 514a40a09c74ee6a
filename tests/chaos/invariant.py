"""What must be so once it is quiet, whatever happened before.

Every declared object is there and in sync by the judgement of the API server, no person owns a field of it that Git
does not declare, nothing that a controller added is lost, nothing that Git has dropped is left, nothing else was
touched, the daemon says the same of itself, and then nothing is written any more.
"""

import time
from collections.abc import Iterator
from typing import Any

import urllib3

from tests.chaos.load import NAMESPACE, Turmoil
from tests.chaos.stage import Stage
from tests.property import oracle
from tests.support.live import Manifest
from tests.support.manifests import config_map, namespace_of

QUIET = 180.0  # seconds: the longest backoff is a minute, and a watch that nobody ends is given up after 75 s
CALM = 1.0  # seconds in which nothing may be written any more
OTHERS = "chaos-bystanders"


class Bystanders:
    """Objects that Git does not declare, and that nobody tampers with."""

    def __init__(self, stage: Stage) -> None:
        self._live = stage.live
        self._manifests = [namespace_of(OTHERS), *(config_map(f"bystander-{number}", OTHERS) for number in range(3))]
        for manifest in self._manifests:
            self._live.patch(manifest, manifest, manager="tests", kind="apply")
        self._before = [self._identity(manifest) for manifest in self._manifests]

    def amiss(self) -> Iterator[str]:
        """Which of them are not what they were."""
        for manifest, before in zip(self._manifests, self._before, strict=True):
            if self._identity(manifest) != before:
                yield f"bystander {manifest['metadata']['name']} was touched"

    def _identity(self, manifest: Manifest) -> Any:
        found = self._live.get(manifest)
        return found and (found["metadata"]["uid"], found["metadata"]["resourceVersion"])


class Invariant:
    """Looks at everything; `wait` is for when it has been quiet for long enough."""

    def __init__(self, stage: Stage, turmoil: Turmoil) -> None:
        self._stage = stage
        self.turmoil = turmoil
        self._bystanders = Bystanders(stage)
        self.objects = 0  # how many judgements of an object it has asked the API server for, at the ends of waits

    def wait(self) -> tuple[float, list[str]]:
        """Wait until all is as it must be. Returns the seconds that it took, and what is still amiss after `QUIET`."""
        began = time.monotonic()
        while True:
            wrong = self._amiss()
            took = time.monotonic() - began
            if not wrong or took > QUIET:
                break
            time.sleep(0.1)
        self.objects += len(self.turmoil.declared)
        return took, wrong + ([] if wrong else self._restless())

    def _amiss(self) -> list[str]:
        try:
            return [*self._of_objects(), *self._of_others(), *self._of_daemon()]
        except (urllib3.exceptions.HTTPError, AssertionError, OSError, LookupError) as error:
            return [f"no answer: {error!r}"]

    def _of_objects(self) -> Iterator[str]:
        live, source = self._stage.live, self._stage.daemon.source
        for manifest in self.turmoil.declared:
            if wrong := oracle.amiss(live, manifest, source):
                yield self.turmoil.evidence(wrong, manifest)
        for manifest, wrong in self.turmoil.lost_additions():
            yield self.turmoil.evidence(wrong, manifest)

    def _of_others(self) -> Iterator[str]:
        yield from self._bystanders.amiss()
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector=driftwatch.io/source%3D"
        _, found = self._stage.live.request("GET", path + self._stage.daemon.source)
        names = {manifest["metadata"]["name"] for manifest in self.turmoil.declared}
        for item in found["items"]:
            if item["metadata"]["name"] not in names:
                yield f"ConfigMap {item['metadata']['name']} has left Git, and is there"

    def _of_daemon(self) -> Iterator[str]:
        """It says of itself that all is well, too."""
        daemon = self._stage.daemon
        code, words = daemon.get("/readyz")
        if code != 200:
            yield f"the daemon is not ready: {words}"
        for name in ("driftwatch_drifted_objects", "driftwatch_refused_objects", "driftwatch_queue_keys"):
            if value := daemon.metric(name):
                yield f"{name} is {value:g}"

    def _restless(self) -> list[str]:
        """What is written although nothing is to be done any more."""
        before = self._identities()
        time.sleep(CALM)
        after = self._identities()
        return [f"{name} is written to, though all is in order" for name in before if before[name] != after[name]]

    def _identities(self) -> dict[str, Any]:
        """Every object, without what controllers report all the time."""
        found = {}
        for manifest in self.turmoil.declared:
            live = self._stage.live.get(manifest) or {"metadata": {}}
            metadata = {key: value for key, value in live["metadata"].items() if key != "resourceVersion"}
            entries = metadata.pop("managedFields", [])
            metadata["owners"] = [entry for entry in entries if entry.get("subresource") != "status"]
            rest = {key: value for key, value in live.items() if key not in ("metadata", "status")}
            found[f"{manifest['kind']} {manifest['metadata']['name']}"] = (metadata, rest)
        return found
