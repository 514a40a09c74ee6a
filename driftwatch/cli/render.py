"""`driftwatch render`: prints the manifests of the sources as they would be applied."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftwatch.cli import options

if TYPE_CHECKING:
    from driftwatch.config import Config, Source
    from driftwatch.oneshot.diff.comparison import Filter
    from driftwatch.oneshot.validate.manifests import Rendering
    from driftwatch.oneshot.validate.validate import Check


@click.command()
@options.existing_config
@click.option(
    "--source",
    "patterns",
    multiple=True,
    metavar="GLOB",
    help="Only these sources. Repeatable, as are kinds and names.",
)
@click.option("--kind", "kinds", multiple=True, metavar="GLOB", help="Only these kinds.")
@click.option("--namespace", "-n", "namespaces", multiple=True, metavar="GLOB", help="Only these namespaces.")
@click.option("--name", "names", multiple=True, metavar="GLOB", help="Only objects of these names.")
@options.clone
@options.revision
@click.option(
    "--output", "-o", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to print it."
)
@click.option(
    "--cluster/--no-cluster",
    default=False,
    show_default=True,
    help="Render for the configured cluster, with the variables that it has.",
)
@click.option(
    "--show-secrets", is_flag=True, help="Print the values of Secrets and of fields that a rule calls sensitive."
)
def command(
    config_file: Path,
    patterns: tuple[str, ...],
    kinds: tuple[str, ...],
    namespaces: tuple[str, ...],
    names: tuple[str, ...],
    repository: Path | None,
    revision: str | None,
    output: str,
    *,
    cluster: bool,
    show_secrets: bool,
) -> None:
    """Print the manifests as they would be applied, each with the file and line that it comes from.

    Sources are read as the daemon reads them; with --cluster, charts are rendered for the configured cluster, and
    variables are taken from it. Values of Secrets are masked; with --show-secrets the output can be piped into `kubectl
    apply --server-side` or `kubectl diff`. Errors go to standard error.

    Exit status: 0 everything is printed, 1 a manifest is invalid and left out, 2 a source could not be read.
    """
    from driftwatch.cluster.errors import ClusterError
    from driftwatch.config import ConfigError, load_with_lines
    from driftwatch.git.version import git_trouble
    from driftwatch.log import configure
    from driftwatch.oneshot.diff.comparison import Filter
    from driftwatch.oneshot.validate.manifests import Rendering
    from driftwatch.oneshot.validate.presentation import Text
    from driftwatch.oneshot.validate.results import UNCHECKED, Problem
    from driftwatch.oneshot.validate.selection import SelectionError, select
    from driftwatch.oneshot.validate.validate import Check

    configure("text", "error")
    try:
        config, lines = load_with_lines(config_file)
        sources = select(config, patterns, repository, revision)
    except ConfigError as error:
        click.echo(f"driftwatch: configuration:\n{error}", err=True)
        sys.exit(UNCHECKED)
    except SelectionError as error:
        click.echo(f"driftwatch: {error}", err=True)
        sys.exit(UNCHECKED)
    if trouble := git_trouble():  # before the cluster is asked for nothing
        click.echo(f"driftwatch: no source can be read: {trouble}", err=True)
        sys.exit(UNCHECKED)
    check = Check(sources, config_file, lines)
    try:
        asyncio.run(_read(check, config, sources, cluster=cluster))
    except ClusterError as error:
        click.echo(f"driftwatch: the cluster cannot be used: {error}", err=True)
        sys.exit(UNCHECKED)
    chosen = Filter((), kinds, namespaces, names)
    printed = _print(check, chosen, Rendering(config.policies(), show_secrets=show_secrets), output)
    if chosen.is_narrow and not printed:
        check.results.problems.append(Problem("nothing that Git declares matches the filters", unchecked=True))
    text = Text(colour=False)
    for problem in check.results.problems:
        click.echo(text.problem(problem), err=True)
    sys.exit(UNCHECKED if len(check.results.sources) < len(sources) else check.results.status)


async def _read(check: "Check", config: "Config", sources: list["Source"], *, cluster: bool) -> None:
    from driftwatch.oneshot.validate.cluster import opened, read_render_inputs

    found = None
    if cluster:
        async with opened(config) as session:
            found = await read_render_inputs(session, sources)
    await check.read(found)
    check.results.sort()


def _print(check: "Check", chosen: "Filter", rendering: "Rendering", output: str) -> int:
    """Print the declared objects in the order of sources, files and lines. Returns their number."""
    from driftwatch.oneshot.validate.manifests import json_list, yaml_document

    documents: list[dict[str, Any]] = []
    for key, declaration in check.declarations():
        if not chosen.takes(declaration.source, key.group_kind, key.namespace, key.name):
            continue
        document = rendering.document(declaration.source, key, declaration.manifest)
        documents.append(document)
        if output == "yaml":
            click.echo("\n".join(yaml_document(declaration.source, declaration.manifest, document)))
    if output == "json":
        click.echo(json_list(documents))
    return len(documents)
