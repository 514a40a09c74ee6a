"""Selects the sources of a command, and replaces the repository of one source by a checkout.

A pull request is checked before it is in the configured repository. The pipeline has a clone, often shallow with a
detached HEAD. `--repository . --revision HEAD` reads that clone instead of the configured repository.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from driftwatch.config import Config, Source


class SelectionError(Exception):
    """The options select no usable sources. The message lists the sources of the configuration."""


def select(
    config: Config, patterns: Sequence[str], repository: Path | None = None, revision: str | None = None
) -> list[Source]:
    """Return the sources whose names match a glob pattern, all without patterns, in the order of the configuration.

    `repository` and `revision` replace those of the source, which must then be the only one. Raises `SelectionError`.
    """
    names = ", ".join(source.name for source in config.sources)
    for pattern in patterns:
        if not any(fnmatchcase(source.name, pattern) for source in config.sources):
            raise SelectionError(f"--source {pattern}: the configuration has no such source; it has {names}")
    chosen = [
        source
        for source in config.sources
        if not patterns or any(fnmatchcase(source.name, pattern) for pattern in patterns)
    ]
    if repository is None and revision is None:
        return chosen
    if len(chosen) > 1:
        raise SelectionError(f"--repository and --revision are for one source; choose it with --source: {names}")
    changes: dict[str, str] = {"revision": revision or "HEAD"} if repository else {"revision": revision or ""}
    if repository is not None:
        changes["repository"] = str(repository.absolute())
    return [source.model_copy(update=changes) for source in chosen]
