"""API discovery: which kinds the API server serves, their paths, and whether they are namespaced.

Uses aggregated discovery (KEP-3352): one request instead of one request per group version. The ETag makes a repeated
request cheap, so an unserved kind can be searched for every second.
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
    """A kind as the API server serves it at one version, with the parts of its path.

    `confined` is the namespace that its collection is limited to, "" for all namespaces.
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
        """Group and kind, without the version."""
        return GroupKind(self.group, self.kind)

    @property
    def collection(self) -> str:
        """Path of the collection: of one namespace if `confined` is set, else of all namespaces."""
        if self.namespaced and self.confined:
            return f"{self.prefix}/namespaces/{quote(self.confined, '')}/{self.plural}"
        return f"{self.prefix}/{self.plural}"

    def holds(self, namespace: str) -> bool:
        """Whether the collection contains objects of this namespace, "" for a cluster-scoped kind."""
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
    """The kinds that the API server served at the last `refresh`.

    If `namespace` is given, the collections of namespaced kinds are limited to it.
    """

    def __init__(self, session: Session, namespace: str = "") -> None:
        self._session = session
        self._namespace = namespace
        self._etags: dict[str, str] = {}
        self._found: dict[str, dict[GroupKind, dict[str, Resource]]] = {}
        self._kinds: dict[GroupKind, dict[str, Resource]] = {}
        self._refreshing = asyncio.Lock()  # several parts ask: an older answer must not replace a newer one

    async def refresh(self) -> bool:
        """Fetch the discovery documents. Returns whether they changed.

        Raises `ClusterError`. The previous documents then stay in use.
        """
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
        """Return the kind's resource at this version, None if it is not served."""
        return self._kinds.get(GroupKind(group, kind), {}).get(version)

    def versions(self, kind: GroupKind) -> list[str]:
        """Return the served versions of the kind, the server's preferred version first. Empty for an unknown kind."""
        return list(self._kinds.get(kind, ()))

    def api_versions(self) -> list[str]:
        """Return every served `GROUP/VERSION` and `GROUP/VERSION/KIND`, sorted (Helm's `.Capabilities.APIVersions`)."""
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
                # Review and token kinds can only be created. They have no stored objects.
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
