"""What a check of sources finds: the values that are printed, as text or as JSON. No value of a Secret is in them."""

import msgspec

from driftwatch.model import InvalidManifest, ObjectKey

VALID, INVALID, UNCHECKED = 0, 1, 2
"""Exit statuses."""


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, and where. `unchecked`: nothing is known to be wrong, but it could not be looked at.

    `source` is "" for a mistake in the configuration, `key` None where it is about no object that can be named.
    """

    message: str
    source: str = ""
    file: str = ""
    line: int = 0
    key: ObjectKey | None = None
    unchecked: bool = False


class Checked(msgspec.Struct, frozen=True):
    """A source that was read: its commit, how many objects it declares, and what was passed over as no manifest."""

    name: str
    commit: str
    objects: int
    passed_over: tuple[InvalidManifest, ...] = ()


class Trial(msgspec.Struct):
    """The dry runs on a cluster: how many objects it would take, and which wait for what Git brings along."""

    server: str
    accepted: int = 0
    waiting: int = 0


class Findings(msgspec.Struct):
    """All that a check found. `trial` is None where no cluster was asked."""

    sources: list[Checked] = []
    problems: list[Problem] = []
    trial: Trial | None = None

    @property
    def status(self) -> int:
        """Exit status: 2 where something could not be checked, else 1 where something is wrong, else 0."""
        if any(problem.unchecked for problem in self.problems):
            return UNCHECKED
        return INVALID if self.problems else VALID

    def sort(self) -> None:
        """Put problems in the order in which they are shown, the same each time."""
        self.problems.sort(key=lambda found: (found.source, found.file, found.line, found.message))
