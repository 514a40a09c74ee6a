"""Watches one kind with one cluster-wide reflector, or with one reflector per namespace if RBAC allows no more.

Many operators may not grant a cluster-wide permission. If the API server forbids the cluster-wide watch, each
namespace in which Git declares objects of the kind is watched separately. A namespace that is forbidden too fails by
itself. The cluster-wide watch is retried with the usual backoff. It replaces the others as soon as it is allowed.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import msgspec
import structlog

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.reflector import Reflector, ResourceEventHandler, WatchEndReason
from driftwatch.cluster.session import Session
from driftwatch.model import SECRET

ALL = ""  # key of the cluster-wide watch, in place of a namespace's name

log = structlog.get_logger()


class WatchHandler(ResourceEventHandler, Protocol):
    """Also handles the end of one of a kind's watches, while the kind is still watched."""

    def on_unwatched(self, resource: Resource) -> None:
        """The collection is not watched any more: a LIST that has begun does not end."""


class KindWatch:
    """Watches a kind and presents its reflectors to the handler as one watch. Call `stop` at the end.

    `settled` is set once every object of the kind that the API server allows to list is listed.
    """

    def __init__(
        self,
        session: Session,
        resource: Resource,
        handler: WatchHandler,
        selector: str,
        namespaces: Iterable[str],
    ) -> None:
        self._session = session
        self._resource = resource
        self._handler = handler
        self._selector = selector
        self._wanted = frozenset(namespaces)
        self._reflectors: dict[str, Reflector] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, str] = {}  # namespace -> why its watch is down, "" if it is up
        self._ended: Counter[WatchEndReason] = Counter()
        self.settled = asyncio.Event()
        # Frequent calls bypass this object.
        self.on_page = handler.on_page
        self.on_event = handler.on_event
        self.on_listed = handler.on_listed
        self.on_restored = handler.on_restored
        self.on_kind_gone = handler.on_kind_gone
        self._start(ALL)

    def is_of(self, resource: Resource, selector: str) -> bool:
        """Whether it watches this resource with this selector."""
        return (self._resource, self._selector) == (resource, selector)

    def want(self, namespaces: Iterable[str]) -> None:
        """Set the namespaces in which Git declares objects of the kind.

        An empty set keeps the previous namespaces: objects that Git no longer declares are still pruned there.
        """
        self._wanted = frozenset(namespaces) or self._wanted
        if self._by_namespace:
            self._start_per_namespace()
            self._settle()

    @property
    def namespaces(self) -> frozenset[str]:
        """Namespaces with a watch of their own. Empty while there is only the cluster-wide watch."""
        return frozenset(self._reflectors.keys() - {ALL})

    def leave(self, namespaces: Iterable[str]) -> list[asyncio.Task[None]]:
        """Stop watching these namespaces, except those in which Git declares objects. Returns the ending tasks."""
        ending = []
        for namespace in self.namespaces & (frozenset(namespaces) - self._wanted):
            ending.append(self._tasks[namespace])
            self._stop_reflector(namespace)
        if ending:
            self._settle()
            self._report_state()
        return ending

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop every watch. Returns the ending tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        return tasks

    def retry_now(self) -> None:
        """Skip the backoff of every reflector."""
        for reflector in self._reflectors.values():
            reflector.retry_now()

    @property
    def is_synced(self) -> bool:
        """Whether every object of the kind is listed and no watch is refused."""
        return all(reflector.synced.is_set() and reflector.watching.is_set() for reflector in self._serving)

    @property
    def endings(self) -> Counter[WatchEndReason]:
        """Number of watches that have ended, by reason."""
        return sum((reflector.endings for reflector in self._reflectors.values()), self._ended)

    @property
    def last_event(self) -> float:
        """Time of the last event, in Unix seconds."""
        return max(reflector.last_event for reflector in self._reflectors.values())

    @property
    def last_bookmark(self) -> float:
        """Time of the last bookmark, in Unix seconds."""
        return max(reflector.last_bookmark for reflector in self._reflectors.values())

    # --- Calls from the reflectors ---

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """Handle a reflector's watch that came up, or went down for `reason`."""
        namespace = ALL if resource == self._resource else resource.confined
        self._errors[namespace] = "" if up else reason
        whole = self._reflectors[ALL]
        if namespace == ALL and up and self._by_namespace:
            self._end_per_namespace()
        elif namespace == ALL and whole.refused is not None and not self._by_namespace and self._can_split:
            log.warning(
                "watched by namespace",
                kind=str(self._resource.group_kind),
                namespaces=len(self._wanted),
                error=str(whole.refused),
                next="the watch of all namespaces is tried again",
            )
            self._start_per_namespace()
        self._settle()
        self._report_state()

    def _settle(self) -> None:
        if all(reflector.synced.is_set() or reflector.refused is not None for reflector in self._serving):
            self.settled.set()

    def _report_state(self) -> None:
        """Report the state of the kind as a whole, once every watch has reported its state."""
        if not self._by_namespace:
            error = self._errors[ALL]
        else:
            errors = [self._errors.get(namespace) for namespace in sorted(self._wanted)]
            if any(error is None for error in errors):
                return
            down = [error for error in errors if error]
            error = self._errors[ALL] if len(down) == len(errors) else down[0] if down else ""
        self._handler.on_state(self._resource, up=not error, reason=error or "")

    # --- The set of reflectors ---

    @property
    def _can_split(self) -> bool:
        return self._resource.namespaced and not self._resource.confined and bool(self._wanted)

    @property
    def _by_namespace(self) -> bool:
        return len(self._reflectors) > 1

    @property
    def _serving(self) -> list[Reflector]:
        """The reflectors that together cover the kind."""
        if self._by_namespace:
            return [self._reflectors[namespace] for namespace in self._wanted]
        return [self._reflectors[ALL]]

    def _start_per_namespace(self) -> None:
        for namespace in self._wanted - self._reflectors.keys():
            self._start(namespace)

    def _start(self, namespace: str) -> None:
        resource = msgspec.structs.replace(self._resource, confined=namespace) if namespace else self._resource
        kind = resource.group_kind
        # For Secrets, metadata is enough: managedFields has the field owners. A watch never reads a Secret's values.
        reflector = Reflector(self._session, resource, self, selector=self._selector, metadata_only=kind == SECRET)
        self._reflectors[namespace] = reflector
        name = f"watch {kind} {namespace}".rstrip()
        self._tasks[namespace] = asyncio.get_running_loop().create_task(reflector.run(), name=name)

    def _end_per_namespace(self) -> None:
        """End the per-namespace watches: the cluster-wide watch is open."""
        for namespace in self.namespaces:
            self._stop_reflector(namespace)
        log.info("watched over all namespaces again", kind=str(self._resource.group_kind))

    def _stop_reflector(self, namespace: str) -> None:
        self._ended += self._reflectors.pop(namespace).endings
        self._tasks.pop(namespace).cancel()
        self._handler.on_unwatched(msgspec.structs.replace(self._resource, confined=namespace))
        self._errors.pop(namespace, None)
