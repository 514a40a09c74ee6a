"""What healing asks about the kinds that the API server serves; `cluster.kinds` answers it."""

from typing import Protocol

from driftwatch.cluster.discovery import Resource
from driftwatch.model import GroupKind, Manifest


class Kinds(Protocol):
    """What healing asks of and tells to whoever keeps up with the API server's kinds."""

    def resource(self, manifest: Manifest) -> Resource | None:
        """How the manifest's kind is served, None where it is not."""

    def preferred(self, kind: GroupKind) -> Resource | None:
        """How the kind is served at the version that the API server prefers, None where it is not."""

    def served(self, kind: GroupKind) -> list[str]:
        """Versions at which the kind is served."""

    async def serves(self, kind: GroupKind, version: str) -> bool:
        """Ask the API server whether it serves the kind at this version. Raises `ClusterError`."""

    def missing(self, kind: GroupKind, version: str) -> None:
        """The API server answered as if it did not serve the kind at this version: look for it."""

    def expected(self) -> None:
        """A CRD was applied: its kind is about to be served."""
