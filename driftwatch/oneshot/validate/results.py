"""Results of a check of sources, which are printed as text or as JSON. They contain no values of Secrets."""

import msgspec

from driftwatch.model import InvalidManifest, ObjectKey

VALID, INVALID, UNCHECKED = 0, 1, 2
"""Exit statuses."""


class Problem(msgspec.Struct, frozen=True):
    """An error and its location. `unchecked` means that the check could not be made, not that it failed.

    `source` is "" for an error in the configuration. `key` is None if the error concerns no identifiable object.
    """

    message: str
    source: str = ""
    file: str = ""
    line: int = 0
    key: ObjectKey | None = None
    unchecked: bool = False


class Checked(msgspec.Struct, frozen=True):
    """A source that was read: its commit, the number of declared objects, and the files that are not manifests."""

    name: str
    commit: str
    objects: int
    passed_over: tuple[InvalidManifest, ...] = ()


class DryRunSummary(msgspec.Struct):
    """Summary of the dry runs: the number of accepted objects, and of those that wait for a definition in Git."""

    server: str
    accepted: int = 0
    waiting: int = 0


class Results(msgspec.Struct):
    """Results of a whole check. The dry-run summary is None if no cluster was used."""

    sources: list[Checked] = []
    problems: list[Problem] = []
    dry_run: DryRunSummary | None = None

    @property
    def status(self) -> int:
        """Exit status: 2 if something could not be checked, else 1 if something is invalid, else 0."""
        if any(problem.unchecked for problem in self.problems):
            return UNCHECKED
        return INVALID if self.problems else VALID

    def sort(self) -> None:
        """Sort problems for display. The order is deterministic."""
        self.problems.sort(key=lambda found: (found.source, found.file, found.line, found.message))
