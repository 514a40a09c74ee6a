"""A source whose commits are turned into changes, as the desired-state process does it for the daemon."""

from pathlib import Path
from typing import Any

from driftwatch.desired.snapshot import SnapshotChange, Snapshots
from driftwatch.git.repository import Repository

from tests.support.desired_origin import Origin


class Followed:
    """An origin and the mirror of it; `changes` are settings of the source."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.origin = Origin(folder / "origin")
        self.spec = self.origin.spec(folder / "mirrors", **changes)
        self.restart()

    def restart(self) -> None:
        """Begin anew with what is on disk."""
        self.repository = Repository(self.spec)
        self.snapshots = Snapshots(self.spec, self.repository)

    def commit(self, files: dict[str, Any]) -> SnapshotChange:
        """Commit files, and look."""
        self.origin.commit(files)
        return self.look()

    def look(self) -> SnapshotChange:
        """Fetch what is new, and keep it."""
        commit = self.repository.sync()
        change = self.snapshots.at(commit)
        self.repository.keep(commit, self.snapshots.pins())
        self.repository.tidy()
        return change
