"""Which kinds the API server serves, under which path, with or without namespaces.

One aggregated request (KEP-3352) instead of one a group version; its ETag makes asking again cost next to nothing, so
that a parked kind can be looked for every second.
"""

import asyncio
from urllib.parse import quote

import msgspec

from driftwatch.cluster.errors import ClusterError
from driftwatch.cluster.session import Session
from driftwatch.model import GroupKind

_ACCEPT = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)


class Resource(msgspec.Struct, frozen=True):
    """A kind as the API server serves it at one version: how its path is made.

    `confined` is the one namespace of which its collection is wanted, "" for all of them.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    prefix: str
    confined: str = ""

    @property
    def group_kind(self) -> GroupKind:
        """The kind without its version."""
        return GroupKind(self.group, self.kind)

    @property
    def collection(self) -> str:
        """Path of the collection, over all namespaces unless it is confined to one."""
        if self.namespaced and self.confined:
            return f"{self.prefix}/namespaces/{quote(self.confined, '')}/{self.plural}"
        return f"{self.prefix}/{self.plural}"

    def holds(self, namespace: str) -> bool:
        """Whether its collection has the objects of this namespace; "" is for kinds without any."""
        return not self.namespaced or self.confined in ("", namespace)

    def path(self, namespace: str, name: str) -> str:
        """Path of one object, percent-encoded."""
        if self.namespaced:
            return f"{self.prefix}/namespaces/{quote(namespace, '')}/{self.plural}/{quote(name, '')}"
        return f"{self.prefix}/{self.plural}/{quote(name, '')}"


class _Name(msgspec.Struct):
    kind: str = ""


class _ResourceDiscovery(msgspec.Struct):
    resource: str
    scope: str
    responseKind: _Name = msgspec.field(default_factory=_Name)  # noqa: N815  the API's name
    verbs: list[str] = []


class _VersionDiscovery(msgspec.Struct):
    version: str
    resources: list[_ResourceDiscovery] = []


class _Metadata(msgspec.Struct):
    name: str = ""


class _GroupDiscovery(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    versions: list[_VersionDiscovery] = []


class _GroupList(msgspec.Struct):
    kind: str
    items: list[_GroupDiscovery] = []


_decode = msgspec.json.Decoder(_GroupList).decode


class Discovery:
    """What the API server serves, as of the last `refresh`; collections are those of `namespace` if it is given."""

    def __init__(self, session: Session, namespace: str = "") -> None:
        self._session = session
        self._namespace = namespace
        self._etags: dict[str, str] = {}
        self._found: dict[str, dict[GroupKind, dict[str, Resource]]] = {}
        self._kinds: dict[GroupKind, dict[str, Resource]] = {}
        self._refreshing = asyncio.Lock()  # several parts ask: an older answer must not replace a newer one

    async def refresh(self) -> bool:
        """Ask what is served now. Returns whether that changed; raises `ClusterError` and keeps what was known."""
        async with self._refreshing:
            changed = [await self._refresh(root) for root in ("/api", "/apis")]
        return any(changed)

    async def _refresh(self, root: str) -> bool:
        headers = {"Accept": _ACCEPT}
        if etag := self._etags.get(root):
            headers["If-None-Match"] = etag
        answer = await self._session.request("GET", self._session.url(root), headers=headers)
        if answer.code == 304:  # noqa: PLR2004
            return False
        try:
            groups = _decode(answer.body)
        except msgspec.MsgspecError as error:
            raise ClusterError(f"{self._session.server}{root}: no API discovery document: {error}") from error
        if groups.kind != "APIGroupDiscoveryList":
            raise ClusterError(
                f"{self._session.server} serves no aggregated discovery; driftwatch needs Kubernetes 1.27 or newer"
            )
        self._found[root] = _index(root, groups, self._namespace)
        self._etags[root] = answer.headers.get("ETag", "")
        # At once, for the next answer may be a failure, and the next one to this request a 304.
        self._kinds = {kind: versions for found in self._found.values() for kind, versions in found.items()}
        return True

    def resource(self, group: str, version: str, kind: str) -> Resource | None:
        """How this kind is served at this version, or None where it is not."""
        return self._kinds.get(GroupKind(group, kind), {}).get(version)

    def versions(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served, the server's preference first; empty for an unknown kind."""
        return list(self._kinds.get(kind, ()))

    def api_versions(self) -> list[str]:
        """Every `GROUP/VERSION` and `GROUP/VERSION/KIND` that is served, sorted, as templates ask for them."""
        found = set()
        for kind, versions in self._kinds.items():
            for version in versions:
                api = f"{kind.group}/{version}" if kind.group else version
                found |= {api, f"{api}/{kind.kind}"}
        return sorted(found)


def _index(root: str, groups: _GroupList, namespace: str) -> dict[GroupKind, dict[str, Resource]]:
    kinds: dict[GroupKind, dict[str, Resource]] = {}
    for group in groups.items:
        name = group.metadata.name
        for version in group.versions:
            prefix = "/".join([root, *(quote(segment, "") for segment in (name, version.version) if segment)])
            for found in version.resources:
                kind = GroupKind(name, found.responseKind.kind)
                # Review and token kinds can only be created: there is nothing of them to keep.
                if not {"patch", "list", "watch"} <= set(found.verbs):
                    continue
                kinds.setdefault(kind, {})[version.version] = Resource(
                    group=name,
                    version=version.version,
                    kind=kind.kind,
                    plural=quote(found.resource, ""),
                    namespaced=found.scope == "Namespaced",
                    prefix=prefix,
                    confined=namespace,
                )
    return kinds
