"""`driftwatch validate`: reports all errors in configuration, Git and manifests before they are merged."""

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from driftwatch.cli import options
from driftwatch.cli.terminal import progress, wants_colour

if TYPE_CHECKING:
    from driftwatch.config import Config, Source
    from driftwatch.oneshot.validate.results import Problem, Results
    from driftwatch.oneshot.validate.validate import Check

_CONFIG_LINE = re.compile(r"(?P<file>.*?):(?:(?P<line>\d+):)? (?P<message>.*)")


@click.command()
@options.existing_config
@click.option("--source", "patterns", multiple=True, metavar="GLOB", help="Only these sources. Repeatable.")
@options.clone
@options.revision
@click.option(
    "--cluster/--no-cluster",
    default=False,
    show_default=True,
    help="Ask the configured cluster: render for it, with its variables, and try each object by a dry run.",
)
@options.text_or_json
@click.option(
    "--verbose", "-v", is_flag=True, help="Also name the files that are passed over because they are no manifests."
)
@options.colour
def command(
    config_file: Path,
    patterns: tuple[str, ...],
    repository: Path | None,
    revision: str | None,
    output: str,
    color: str,
    *,
    cluster: bool,
    verbose: bool,
) -> None:
    """Check configuration, Git, rendering and manifests; every error at once, with file and line.

    Sources are read as the daemon reads them, at a commit: what is not committed is not checked. With --cluster, the
    API server is asked by a dry run whether it would take each object; nothing is written, and Secret values are never
    shown. What it says of an object counts for the cluster as it is now.

    Exit status: 0 all is valid, 1 something is wrong with configuration or manifests, 2 something could not be checked,
    as when Git or the cluster cannot be reached, whatever else was found.
    """
    from driftwatch.config import ConfigError, load_with_lines
    from driftwatch.log import configure
    from driftwatch.oneshot.validate.results import UNCHECKED, Results
    from driftwatch.oneshot.validate.selection import SelectionError, select
    from driftwatch.oneshot.validate.validate import Check

    configure("text", "error")
    try:
        config, lines = load_with_lines(config_file)
        sources = select(config, patterns, repository, revision)
    except ConfigError as error:
        results = Results(problems=[_of_configuration(line) for line in str(error).splitlines()])
    except SelectionError as error:
        click.echo(f"driftwatch: {error}", err=True)
        sys.exit(UNCHECKED)
    else:
        check = Check(sources, config_file, lines)
        results = asyncio.run(_checked(check, config, sources, cluster=cluster))
    results.sort()
    _print(results, output, color, verbose=verbose)
    sys.exit(results.status)


def _of_configuration(line: str) -> "Problem":
    """Convert one line of a `ConfigError`."""
    from driftwatch.oneshot.validate.results import Problem

    found = _CONFIG_LINE.fullmatch(line)
    if found is None:
        return Problem(line)
    return Problem(found["message"], "", found["file"], int(found["line"] or 1))


async def _checked(check: "Check", config: "Config", sources: list["Source"], *, cluster: bool) -> "Results":
    from driftwatch.cluster.errors import ClusterError
    from driftwatch.oneshot.validate.cluster import opened, read_render_inputs
    from driftwatch.oneshot.validate.dry_run import DryRuns
    from driftwatch.oneshot.validate.results import Problem

    if not cluster:
        await check.read()
        return check.results
    has_read = False
    try:
        async with opened(config) as session:
            found = await read_render_inputs(session, sources)
            await check.read(found)
            has_read = True
            with progress("trying") as advance:
                await DryRuns(check, session, config.policies(), advance).run()
    except ClusterError as error:  # reported as one unchecked problem; the rest is still checked
        if not has_read:
            await check.read()
        check.results.problems.append(Problem(f"the cluster cannot be used: {error}", unchecked=True))
    return check.results


def _print(results: "Results", output: str, color: str, *, verbose: bool) -> None:
    from driftwatch.oneshot.validate.presentation import Text, as_json

    if output == "json":
        click.echo(as_json(results))
        return
    colour = wants_colour(color)
    text = Text(colour=colour)
    for source in results.sources if verbose else ():
        for line in text.passed_over(source):
            click.echo(line, color=colour)
    for problem in results.problems:
        click.echo(text.problem(problem), color=colour)
    for line in text.summary(results):
        click.echo(line, err=True, color=colour)
