"""`driftwatch diff`: shows how the cluster differs from Git, without a daemon and without writes."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from driftwatch.cli import options
from driftwatch.cli.terminal import progress, wants_colour

if TYPE_CHECKING:
    from driftwatch.config import Config
    from driftwatch.oneshot.diff.comparison import Filter
    from driftwatch.oneshot.diff.results import Results

IN_SYNC, DIFFERS, ERROR = 0, 1, 2


@click.command()
@click.option("--config", "config_file", required=True, type=click.Path(path_type=Path), help="The configuration file.")
@click.option(
    "--source", "sources", multiple=True, metavar="GLOB", help="Only these sources. Repeatable, as are all of these."
)
@click.option(
    "--kind", "kinds", multiple=True, metavar="GLOB", help="Only these kinds, as Deployment or *.cert-manager.io."
)
@click.option("--namespace", "-n", "namespaces", multiple=True, metavar="GLOB", help="Only these namespaces.")
@click.option("--name", "names", multiple=True, metavar="GLOB", help="Only objects of these names.")
@click.option("--all", "everything", is_flag=True, help="Also objects whose mode is paused or ignore.")
@options.text_or_json
@options.colour
def command(
    config_file: Path,
    sources: tuple[str, ...],
    kinds: tuple[str, ...],
    namespaces: tuple[str, ...],
    names: tuple[str, ...],
    output: str,
    color: str,
    *,
    everything: bool,
) -> None:
    """Show how the cluster differs from Git, and who did it.

    For each object that differs: its fields, with their authors, and a unified diff from what is live to what healing
    would make of it. Nothing is written to the cluster; no daemon has to run. Values of Secrets are never shown.

    Exit status: 0 in sync, 1 drift, 2 when something could not be compared, whatever else was found.
    """
    from driftwatch.config import ConfigError, load
    from driftwatch.log import configure
    from driftwatch.oneshot.diff.comparison import Filter
    from driftwatch.oneshot.validate.selection import SelectionError, select

    configure("text", "error")
    try:
        config = load(config_file)
        select(config, sources)
    except ConfigError as error:
        click.echo(f"driftwatch: configuration:\n{error}", err=True)
        sys.exit(ERROR)
    except SelectionError as error:
        click.echo(f"driftwatch: {error}", err=True)
        sys.exit(ERROR)
    results = asyncio.run(_find(config, Filter(sources, kinds, namespaces, names), everything=everything))
    if output == "json":
        from driftwatch.oneshot.diff.presentation import as_json

        click.echo(as_json(results))
    else:
        _print(results, colour=wants_colour(color))
    sys.exit(ERROR if results.troubles else DIFFERS if results.differences else IN_SYNC)


async def _find(config: "Config", chosen: "Filter", *, everything: bool) -> "Results":
    """Compare. If Git or the cluster cannot be used, the only result is that error."""
    from driftwatch.cluster.errors import ClusterError
    from driftwatch.cluster.session import Session
    from driftwatch.git.version import git_trouble
    from driftwatch.oneshot.diff.comparison import Comparer
    from driftwatch.oneshot.diff.results import Results, Trouble

    if trouble := git_trouble():
        return Results(troubles=[Trouble(f"no source can be read: {trouble}", "")])
    try:
        session = await Session.open(config.cluster.kubeconfig, config.cluster.context)
        try:
            with progress("comparing") as advance:
                return await Comparer(config, session, chosen, everything=everything, advance=advance).run()
        finally:
            await session.close()
    except ClusterError as error:
        return Results(troubles=[Trouble(f"the cluster cannot be used: {error}", "")])


def _print(results: "Results", *, colour: bool) -> None:
    from driftwatch.oneshot.diff.presentation import Text

    text = Text(colour=colour)
    for number, found in enumerate(results.differences):
        click.echo(("\n" if number else "") + text.difference(found), nl=False, color=colour)
    on_terminal = Text(colour=colour and sys.stderr.isatty())
    for trouble in results.troubles:
        click.echo(on_terminal.trouble(trouble), err=True, color=True)
    click.echo(text.summary(results), err=True)
