"""Reads sources and collects everything that is wrong with them, all at read_once, so that one run mends all of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from driftwatch.config import Source
from driftwatch.desired import read_once
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.object_state import Declaration
from driftwatch.model import GroupKind, ObjectKey
from driftwatch.oneshot.validate.results import Checked, Findings, Problem
from driftwatch.oneshot.validate.scopes import defined_kinds, is_namespaced
from driftwatch.source_spec import ClusterCapabilities


class Check:
    """A check of sources: `read` first; what it leaves in `declared` can be tried on a cluster then.

    `config_file` and `lines` are where each source, by name, is configured.
    """

    def __init__(self, sources: Sequence[Source], config_file: Path, lines: Mapping[str, int]) -> None:
        self._sources = sources
        self._config_file = config_file
        self._lines = lines
        self._reading = read_once.Reading()
        self.findings = Findings()
        self.defined: dict[GroupKind, bool] = {}
        self.declared = Declared((source.name for source in sources), self._is_namespaced)

    async def read(self, surroundings: ClusterCapabilities | None = None) -> None:
        """Read every source: Git, rendering (with what the cluster gives to it, where it was asked) and YAML."""
        reading = await read_once.read(self._sources, surroundings)
        found = self.findings
        for source, failure in reading.failures.items():
            # What is said of no file of the repository is mended where the source is configured.
            configured = (str(self._config_file), self._lines[source])
            file, line = (failure.file, failure.line) if failure.file else configured
            found.problems.append(Problem(failure.message, source, file, line, unchecked=not failure.fatal))
        for snapshot in reading.snapshots.values():
            self.defined |= defined_kinds(snapshot.upserts)
        for source, snapshot in reading.snapshots.items():
            self.declared.replace(source, snapshot.upserts)
            found.sources.append(Checked(source, snapshot.commit, len(snapshot.upserts), tuple(snapshot.passed_over)))
            found.problems += [Problem(each.reason, source, each.file, each.line) for each in snapshot.invalid]
        for conflict in self.declared.conflicts():
            owner, refused = conflict.owner, conflict.refused
            place = f"{owner.manifest.file}:{owner.manifest.line}"
            words = f"is declared twice: source {owner.source} ({place}) stands first in the configuration and owns it"
            found.problems.append(
                Problem(words, refused.source, refused.manifest.file, refused.manifest.line, conflict.key)
            )

    def declarations(self) -> list[tuple[ObjectKey, Declaration]]:
        """Every object with the manifest in force for it, in the order of sources, files and lines."""
        declared = self.declared
        order = {source.name: position for position, source in enumerate(self._sources)}
        found = [
            (key, declaration)
            for kind in declared.kinds
            for key in declared.keys(kind)
            if (declaration := declared.get(key))
        ]
        return sorted(found, key=lambda one: (order[one[1].source], one[1].manifest.file, one[1].manifest.line))

    def _is_namespaced(self, kind: GroupKind) -> bool:
        return is_namespaced(kind, self.defined)
