"""What a request to the API server asks for, as seen on the wire; and which requests a fault is for."""

from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from tests.support.http_wire import Head

_VERBS = {"PATCH": "patch", "POST": "create", "PUT": "update", "DELETE": "delete"}


@dataclass(frozen=True)
class Request:
    """What is asked for, in Kubernetes' words. `initial`: a watch that begins with all that there is."""

    verb: str
    resource: str
    namespace: str
    name: str
    initial: bool
    head: Head
    body: bytes

    @classmethod
    def of(cls, head: Head, body: bytes) -> "Request":
        """Tell verb, resource, namespace and name from the first line."""
        method, target, _ = head.start.split(" ")
        address = urlsplit(target)
        query = parse_qs(address.query)
        match address.path.split("/")[1:]:
            case ["api", _, *rest] | ["apis", _, _, *rest]:
                pass
            case _:
                rest = []
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            _, namespace, *rest = rest
        resource, name = (*rest[:2], "", "")[:2]
        watch = query.get("watch", [""])[0] in ("true", "1")
        collection = "list" if resource and not name else "get"
        verb = "watch" if watch else _VERBS.get(method, collection)
        initial = query.get("sendInitialEvents", [""])[0] == "true"
        return cls(verb, resource, namespace, name, initial, head, body)


@dataclass(frozen=True)
class Where:
    """Which requests a fault is for; what is not named is not asked for."""

    verbs: Collection[str] = ()
    resources: Collection[str] = ()
    namespaces: Collection[str] = ()
    names: Collection[str] = ()

    def __call__(self, request: Request) -> bool:
        """Whether the fault is for this request."""
        return all(
            not wanted or found in wanted
            for wanted, found in (
                (self.verbs, request.verb),
                (self.resources, request.resource),
                (self.namespaces, request.namespace),
                (self.names, request.name),
            )
        )


def watches(*resources: str) -> Where:
    """Watches of these resources, of all without any."""
    return Where(("watch",), resources)


def lists(*resources: str) -> Where:
    """LISTs of these resources, of all without any."""
    return Where(("list",), resources)


def writes(*resources: str) -> Where:
    """Whatever writes these resources, or any without one."""
    return Where(("patch", "create", "update", "delete"), resources)


EVERYTHING = Where()
