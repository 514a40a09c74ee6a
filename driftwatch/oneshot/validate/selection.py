"""Which sources a command is about, and a checkout in place of the repository of one of them.

A pull request is checked before it is in the repository that the configuration names: the pipeline has a clone of it,
often a shallow one with a detached HEAD, and `--repository . --revision HEAD` reads that in place of the real one.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from driftwatch.config import Config, Source


class SelectionError(Exception):
    """The sources cannot be chosen as asked for; the message says what there is."""


def select(
    config: Config, patterns: Sequence[str], repository: Path | None = None, revision: str | None = None
) -> list[Source]:
    """The sources whose names match one of the patterns, all without any, in the order of the configuration.

    With `repository` or `revision` it must be one source, which is then read from there. Raises `SelectionError`.
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
