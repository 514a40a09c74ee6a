"""How one kind is watched: with one reflector, or one a namespace where the cluster allows no more.

Many operators may not grant a right over all namespaces. Where the API server forbids the watch of all of them, those
in which Git declares objects of the kind are watched one by one; each that is forbidden, too, is its own failure. The
watch of all is tried again with the backoff of any watch, and takes over as soon as it is allowed.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import msgspec
import structlog

from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.reflector import Listener, Reflector, WatchEndReason
from driftwatch.cluster.session import Session
from driftwatch.model import SECRET

ALL = ""  # where a namespace's name stands for all of them

log = structlog.get_logger()


class WatchListener(Listener, Protocol):
    """A listener that is also told of the watches that are closed while the kind is watched further."""

    def on_unwatched(self, resource: Resource) -> None:
        """The collection is not watched any more: a LIST that has begun does not end."""


class KindWatch:
    """Watches a kind for a listener, to which it is one watch however many there are; `stop` it at the end.

    `settled` is set once everything of the kind is listed, or as much of it as the API server allows.
    """

    def __init__(
        self, session: Session, resource: Resource, listener: WatchListener, selector: str, namespaces: Iterable[str]
    ) -> None:
        self._session = session
        self._resource = resource
        self._listener = listener
        self._selector = selector
        self._wanted = frozenset(namespaces)
        self._reflectors: dict[str, Reflector] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, str] = {}  # by namespace: why its watch is down, "" while it is up
        self._ended: Counter[WatchEndReason] = Counter()
        self.settled = asyncio.Event()
        # What comes often goes straight on.
        self.on_page = listener.on_page
        self.on_event = listener.on_event
        self.on_listed = listener.on_listed
        self.on_restored = listener.on_restored
        self.on_kind_gone = listener.on_kind_gone
        self._start(ALL)

    def is_of(self, resource: Resource, selector: str) -> bool:
        """Whether it watches the kind as it is served there, by this selector."""
        return (self._resource, self._selector) == (resource, selector)

    def want(self, namespaces: Iterable[str]) -> None:
        """Git declares objects of the kind in these namespaces now; in none, and those that it left are looked for."""
        self._wanted = frozenset(namespaces) or self._wanted
        if self._by_namespace:
            self._start_parts()
            self._settle()

    @property
    def namespaces(self) -> frozenset[str]:
        """Namespaces that are watched one by one; none while all are watched at once."""
        return frozenset(self._reflectors.keys() - {ALL})

    def leave(self, namespaces: Iterable[str]) -> list[asyncio.Task[None]]:
        """Watch these namespaces no more, but for those in which Git declares objects. Returns what is about to end."""
        ending = []
        for namespace in self.namespaces & (frozenset(namespaces) - self._wanted):
            ending.append(self._tasks[namespace])
            self._end(namespace)
        if ending:
            self._settle()
            self._tell()
        return ending

    def stop(self) -> list[asyncio.Task[None]]:
        """Watch no more. Returns what is about to end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        return tasks

    def retry_now(self) -> None:
        """Sit out no backoff."""
        for reflector in self._reflectors.values():
            reflector.retry_now()

    @property
    def is_synced(self) -> bool:
        """Whether everything of the kind is listed, and nothing speaks against a watch."""
        return all(reflector.synced.is_set() and reflector.watching.is_set() for reflector in self._serving)

    @property
    def endings(self) -> Counter[WatchEndReason]:
        """How many watches have ended, by why."""
        return sum((reflector.endings for reflector in self._reflectors.values()), self._ended)

    @property
    def last_event(self) -> float:
        """When the last event came, in Unix seconds."""
        return max(reflector.last_event for reflector in self._reflectors.values())

    @property
    def last_bookmark(self) -> float:
        """When the last bookmark came, in Unix seconds."""
        return max(reflector.last_bookmark for reflector in self._reflectors.values())

    # --- What the reflectors say ---

    def on_state(self, resource: Resource, *, up: bool, reason: str) -> None:
        """A reflector's watch came up, or went down and why."""
        namespace = ALL if resource == self._resource else resource.confined
        self._troubles[namespace] = "" if up else reason
        whole = self._reflectors[ALL]
        if namespace == ALL and up and self._by_namespace:
            self._take_over()
        elif namespace == ALL and whole.refused is not None and not self._by_namespace and self._divisible:
            log.warning(
                "watched by namespace",
                kind=str(self._resource.group_kind),
                namespaces=len(self._wanted),
                error=str(whole.refused),
                next="the watch of all namespaces is tried again",
            )
            self._start_parts()
        self._settle()
        self._tell()

    def _settle(self) -> None:
        if all(reflector.synced.is_set() or reflector.refused is not None for reflector in self._serving):
            self.settled.set()

    def _tell(self) -> None:
        """Tell of the kind as a whole; nothing is said before every watch has had its say."""
        if not self._by_namespace:
            trouble = self._troubles[ALL]
        else:
            troubles = [self._troubles.get(namespace) for namespace in sorted(self._wanted)]
            if any(trouble is None for trouble in troubles):
                return
            down = [trouble for trouble in troubles if trouble]
            trouble = self._troubles[ALL] if len(down) == len(troubles) else down[0] if down else ""
        self._listener.on_state(self._resource, up=not trouble, reason=trouble or "")

    # --- Which reflectors there are ---

    @property
    def _divisible(self) -> bool:
        return self._resource.namespaced and not self._resource.confined and bool(self._wanted)

    @property
    def _by_namespace(self) -> bool:
        return len(self._reflectors) > 1

    @property
    def _serving(self) -> list[Reflector]:
        """The reflectors that it takes to see all of the kind."""
        if self._by_namespace:
            return [self._reflectors[namespace] for namespace in self._wanted]
        return [self._reflectors[ALL]]

    def _start_parts(self) -> None:
        for namespace in self._wanted - self._reflectors.keys():
            self._start(namespace)

    def _start(self, namespace: str) -> None:
        resource = msgspec.structs.replace(self._resource, confined=namespace) if namespace else self._resource
        kind = resource.group_kind
        # Who owns the fields of a Secret says enough; its values never enter the process through a watch.
        reflector = Reflector(self._session, resource, self, selector=self._selector, metadata_only=kind == SECRET)
        self._reflectors[namespace] = reflector
        name = f"watch {kind} {namespace}".rstrip()
        self._tasks[namespace] = asyncio.get_running_loop().create_task(reflector.run(), name=name)

    def _take_over(self) -> None:
        """The watch of all namespaces is open: those of single ones end."""
        for namespace in self.namespaces:
            self._end(namespace)
        log.info("watched over all namespaces again", kind=str(self._resource.group_kind))

    def _end(self, namespace: str) -> None:
        self._ended += self._reflectors.pop(namespace).endings
        self._tasks.pop(namespace).cancel()
        self._listener.on_unwatched(msgspec.structs.replace(self._resource, confined=namespace))
        self._troubles.pop(namespace, None)
