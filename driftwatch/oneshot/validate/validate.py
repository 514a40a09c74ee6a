"""Reads sources and collects all of their errors, so that one run is enough to fix them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from driftwatch.config import Source
from driftwatch.desired import read_once
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.object_state import Declaration
from driftwatch.model import GroupKind, ObjectKey
from driftwatch.oneshot.validate.results import Checked, Problem, Results
from driftwatch.oneshot.validate.scopes import defined_kinds, is_namespaced
from driftwatch.source_spec import ClusterCapabilities


class Check:
    """A check of sources. Call `read` first; `declared` then has the objects for dry runs.

    `config_file` and `lines` locate the configuration of each source, by name.
    """

    def __init__(self, sources: Sequence[Source], config_file: Path, lines: Mapping[str, int]) -> None:
        self._sources = sources
        self._config_file = config_file
        self._lines = lines
        self._reading = read_once.Reading()
        self.results = Results()
        self.defined: dict[GroupKind, bool] = {}
        self.declared = Declared((source.name for source in sources), self._is_namespaced)

    async def read(self, render_inputs: ClusterCapabilities | None = None) -> None:
        """Read every source: Git, rendering (with the cluster's render inputs, if given) and YAML."""
        reading = await read_once.read(self._sources, render_inputs)
        found = self.results
        for source, failure in reading.failures.items():
            # An error without a file in the repository is located at the source's configuration.
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
        """Return every object with its effective manifest, in the order of sources, files and lines."""
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
