"""What must be so once it is quiet, whatever happened before.

Every declared object is there and in sync by the judgement of the API server, no person owns a field of it that Git
does not declare, nothing that a controller added is lost, nothing that Git has dropped is left, nothing else was
touched, the daemon says the same of itself, and then nothing is written any more.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import urllib3

from tests.chaos.load import NAMESPACE, Turmoil
from tests.chaos.stage import Stage
from tests.property import oracle
from tests.support.live import Manifest
from tests.support.manifests import config_map, namespace_of

QUIET = 180.0  # seconds: the longest backoff is a minute, and a watch that nobody ends is given up after 75 s
CALM = 1.0  # seconds in which nothing may be written any more
OTHERS = "chaos-bystanders"
CLUSTER_MANAGERS = ("kube-controller-manager", "kube-apiserver")  # their status comes when it comes


class Wrong(NamedTuple):
    """What is not as it must be, and the object that it is about, if it is about one."""

    words: str
    manifest: Manifest | None = None


class Bystanders:
    """Objects that Git does not declare, and that nobody tampers with."""

    def __init__(self, stage: Stage) -> None:
        self._live = stage.live
        self._manifests = [namespace_of(OTHERS), *(config_map(f"bystander-{number}", OTHERS) for number in range(3))]
        for manifest in self._manifests:
            self._live.patch(manifest, manifest, manager="tests", kind="apply")
        self._before = [self._identity(manifest) for manifest in self._manifests]

    def amiss(self) -> Iterator[Wrong]:
        """Which of them are not what they were."""
        for manifest, before in zip(self._manifests, self._before, strict=True):
            if self._identity(manifest) != before:
                yield Wrong(f"bystander {manifest['metadata']['name']} was touched")

    def _identity(self, manifest: Manifest) -> Any:
        found = self._live.get(manifest)
        return found and (found["metadata"]["uid"], found["metadata"]["resourceVersion"])


class Invariant:
    """Looks at everything; `wait` is for when it has been quiet for long enough."""

    def __init__(self, stage: Stage, turmoil: Turmoil) -> None:
        self._stage = stage
        self._turmoil = turmoil
        self._bystanders = Bystanders(stage)
        self.seconds: list[float] = []  # that each wait took
        self.objects = 0  # how many were in order, summed up over the waits

    def wait(self) -> list[str]:
        """Wait until all is as it must be. Returns what is still amiss after `QUIET` seconds, with evidence."""
        began = time.monotonic()
        while not (is_quiet := self._is_quiet()) and time.monotonic() - began < QUIET:
            time.sleep(0.1)
        self.seconds.append(time.monotonic() - began)
        wrong = self._restless() if is_quiet else self._everything_wrong()
        if not wrong:
            self.objects += len(self._turmoil.declared)
        return [
            self._turmoil.evidence(each.words, each.manifest) if each.manifest is not None else each.words
            for each in wrong
        ]

    def _is_quiet(self) -> bool:
        try:
            return next(self._amiss(), None) is None
        except (urllib3.exceptions.HTTPError, AssertionError, OSError, LookupError):  # nobody answers, or not yet
            return False

    def _everything_wrong(self) -> list[Wrong]:
        found: list[Wrong] = []
        try:
            found.extend(self._amiss())
        except (urllib3.exceptions.HTTPError, AssertionError, OSError, LookupError) as error:
            found.append(Wrong(f"no answer: {error!r}"))
        return found or [Wrong("it was not quiet in time, but is now")]

    def _amiss(self) -> Iterator[Wrong]:
        yield from self._of_objects()
        yield from self._bystanders.amiss()
        yield from self._of_what_left()
        yield from self._of_daemon()

    def _of_objects(self) -> Iterator[Wrong]:
        for manifest in self._turmoil.declared:
            if words := oracle.amiss(self._stage.live, manifest, self._stage.daemon.source):
                yield Wrong(words, manifest)
        for manifest, words in self._turmoil.lost_additions():
            yield Wrong(words, manifest)

    def _of_what_left(self) -> Iterator[Wrong]:
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps?labelSelector=driftwatch.io/source%3D"
        _, found = self._stage.live.request("GET", path + self._stage.daemon.source)
        names = {manifest["metadata"]["name"] for manifest in self._turmoil.declared}
        for item in found["items"]:
            if item["metadata"]["name"] not in names:
                yield Wrong(f"ConfigMap {item['metadata']['name']} has left Git, and is there")

    def _of_daemon(self) -> Iterator[Wrong]:
        """It says of itself that all is well, too."""
        daemon = self._stage.daemon
        code, words = daemon.get("/readyz")
        if code != 200:
            yield Wrong(f"the daemon is not ready: {words}")
        for name in ("driftwatch_drifted_objects", "driftwatch_refused_objects", "driftwatch_queue_keys"):
            if value := daemon.metric(name):
                yield Wrong(f"{name} is {value:g}")

    def _restless(self) -> list[Wrong]:
        """What is written although nothing is to be done any more."""
        before = self._objects()
        time.sleep(CALM)
        after = self._objects()
        return [
            Wrong(f"{name} is written to, though all is in order: {before[name]} became {after[name]}")
            for name in before
            if is_written(before[name], after[name])
        ]

    def _objects(self) -> dict[str, Manifest]:
        return {
            f"{manifest['kind']} {manifest['metadata']['name']}": self._stage.live.get(manifest) or {"metadata": {}}
            for manifest in self._turmoil.declared
        }


def is_written(before: Manifest, after: Manifest) -> bool:
    """Whether anybody has written to an object in between, but for a controller of the cluster that reports.

    One that has reported, at any time, may do so again, even twice within the second that its entry tells.
    """
    if _version(before) == _version(after):
        return False
    (others, controllers), (others_after, controllers_after) = _writers(before), _writers(after)
    return others != others_after or not (controllers or controllers_after)


def _version(live: Manifest) -> tuple[str | None, str | None]:
    return live["metadata"].get("uid"), live["metadata"].get("resourceVersion")


def _writers(live: Manifest) -> tuple[Any, list[Any]]:
    """What an object has of everybody but the cluster's controllers, and what it has of them."""
    metadata = live["metadata"]
    entries = metadata.get("managedFields", [])
    theirs = [entry for entry in entries if entry["manager"] in CLUSTER_MANAGERS]
    others = [entry for entry in entries if entry not in theirs]
    return (metadata.get("uid"), metadata.get("generation"), others), theirs
