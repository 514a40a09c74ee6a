"""Handles the reflectors' events: the detector judges each object, and the controller reconciles it if needed.

The first LIST of a kind is different. Its objects are applied in order, together with all other new objects. Their keys
are kept until `take_first_list`.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import structlog

from driftwatch.cluster.discovery import Resource
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.drift.metadata import Content, ObjectHead, object_of
from driftwatch.drift.object_state import Verdict
from driftwatch.model import GroupKind, ObjectKey, named
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.interfaces import Kinds
from driftwatch.state.orphan_index import OrphanIndex

log = structlog.get_logger()


class WatchReporter(Protocol):
    """Receives the state of the watches."""

    def watch_state(self, kind: GroupKind, *, up: bool, reason: str) -> None:
        """The watch of a kind has opened, or has ended for `reason`."""

    def restored(self, kind: GroupKind) -> None:
        """The cluster's resourceVersions went back, as after a restore of etcd."""


class WatchEventHandler:
    """The handler of the reflectors' events (`cluster.reflector.ResourceEventHandler`)."""

    def __init__(
        self,
        declared: Declared,
        detector: Detector,
        controller: Controller,
        orphans: OrphanIndex,
        kinds: Kinds,
        reporter: WatchReporter,
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._controller = controller
        self._orphans = orphans
        self._kinds = kinds
        self._reporter = reporter
        self._first_list_taken: set[GroupKind] = set()
        self._found: set[ObjectKey] = set()
        self._seen: dict[tuple[GroupKind, str], set[ObjectKey]] = {}  # by kind, and namespace if limited to one
        self._others: dict[tuple[GroupKind, str], dict[ObjectKey, tuple[ObjectHead, Content]]] = {}  # as `_seen`
        self.verdicts: dict[GroupKind, Counter[Verdict]] = {}
        """Number of events by kind and verdict."""

    def take_first_list(self, kinds: set[GroupKind]) -> set[ObjectKey]:
        """Keys from the first LISTs of these kinds that need work. Later LISTs are reconciled at once."""
        self._first_list_taken |= kinds
        taken = {key for key in self._found if key.group_kind in kinds}
        self._found -= taken
        return taken

    def forget(self, kind: GroupKind) -> None:
        """Forget a kind that is no longer watched."""
        self._first_list_taken.discard(kind)
        self._found -= {key for key in self._found if key.group_kind == kind}
        self.verdicts.pop(kind, None)
        for place in [place for place in self._seen if place[0] == kind]:
            del self._seen[place], self._others[place]
        self._orphans.on_unwatched(kind)

    def on_unwatched(self, resource: Resource) -> None:
        """The collection is no longer watched. A LIST that has begun will not end."""
        place = resource.group_kind, resource.confined
        self._seen.pop(place, None)
        self._others.pop(place, None)

    def on_restored(self, resource: Resource) -> None:
        """Reset the states of the kind. They are not valid after a restore of etcd."""
        self._reporter.restored(resource.group_kind)
        self._detector.reset(self._declared_in(resource))
        self._orphans.on_restored(resource)

    def on_page(self, resource: Resource, items: list[tuple[ObjectHead, Content]], *, first: bool) -> None:
        """Judge one page of a LIST."""
        place = resource.group_kind, resource.confined
        if first:
            self._seen[place], self._others[place] = set(), {}
        seen, others = self._seen[place], self._others[place]
        for head, content in items:
            key = _key_of(resource, head)
            seen.add(key)
            if self._declared.get(key) is None:
                self._orphans.on_seen(key, "LISTED", head, content)
                continue
            verdict = self._judge(self._detector.on_listed, key, head, content)
            if verdict is Verdict.STALE and self._detector.is_another(key, head):
                others[key] = head, content
            else:
                others.pop(key, None)
            self._on_finding(key, verdict)
            self._controller.on_seen(key, head.metadata)

    def on_listed(self, resource: Resource, version: int) -> None:
        """End a LIST. Declared objects that it lacks are deleted. Objects not newer than known are judged again."""
        place = resource.group_kind, resource.confined
        seen, others = self._seen.pop(place), self._others.pop(place)
        self._orphans.on_listed(resource, seen, version)
        for key in self._declared_in(resource):
            if key not in seen:
                self._on_finding(key, self._detector.on_absent(key, version))
            elif (other := others.get(key)) is not None:
                self._on_finding(key, self._judge(self._detector.on_another, key, *other, version))

    def _judge(self, judge: Callable[..., Verdict], key: ObjectKey, *seen: Any) -> Verdict:
        """The verdict on an object. After an unexpected exception, only this object is read again by a reconcile."""
        try:
            return judge(key, *seen)
        except Exception:  # it would end the watch, and the next LIST would fail again
            log.exception("an object cannot be judged by what the watch shows; it is looked at", **named(key))
            self._detector.states.of(key).accepted = None
            return Verdict.SUSPECT

    def _declared_in(self, resource: Resource) -> list[ObjectKey]:
        """Declared keys of a collection."""
        return [key for key in self._declared.keys(resource.group_kind) if resource.holds(key.namespace)]

    def _on_finding(self, key: ObjectKey, verdict: Verdict) -> None:
        if verdict.needs_work and key.group_kind not in self._first_list_taken:
            self._found.add(key)
        else:
            self._controller.on_finding(key, verdict)

    def on_event(self, resource: Resource, change: str, head: ObjectHead, line: bytes) -> None:
        """Judge an event. The controller gets the verdict at once."""
        key = _key_of(resource, head)
        if self._declared.get(key) is None:
            self._count(resource.group_kind, Verdict.UNMANAGED)
            self._orphans.on_seen(key, change, head, lambda: object_of(line))
            return
        verdict = self._judge(self._detector.on_event, key, change, head, lambda: object_of(line))
        self._count(resource.group_kind, verdict)
        self._controller.on_finding(key, verdict)
        if change != "DELETED":
            self._controller.on_seen(key, head.metadata)

    def _count(self, kind: GroupKind, verdict: Verdict) -> None:
        outcomes = self.verdicts.get(kind)
        if outcomes is None:
            outcomes = self.verdicts[kind] = Counter()
        outcomes[verdict] += 1

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """Report whether the watch is open."""
        self._reporter.watch_state(resource.group_kind, up=up, reason=reason)

    def on_kind_gone(self, resource: Resource) -> None:
        """The watched version of the kind is no longer served. Start discovery if Git declares objects of the kind."""
        kind = resource.group_kind
        if not self._declared.keys(kind):
            self._orphans.on_kind_gone(resource)
            return
        for version in {resource.version} | {
            declaration.manifest.version for declaration in self._declared.declarations(kind)
        }:
            self._kinds.missing(kind, version)


def _key_of(resource: Resource, head: ObjectHead) -> ObjectKey:
    return ObjectKey(resource.group, resource.kind, head.metadata.namespace, head.metadata.name)
