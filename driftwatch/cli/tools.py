"""`driftwatch tools`: finds or compiles the programs that render sources, before their first use."""

import click

from driftwatch.tools import TOOLS, ToolError, ensure
from driftwatch.tools.progress import console_progress


@click.group()
def command() -> None:
    """Find or compile the tools that sources are rendered with.

    A daemon compiles what it needs and does not find; where it has no Go or no time for that, as in an image, build
    them ahead or install them.
    """


@command.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(TOOLS)))
def build(names: tuple[str, ...]) -> None:
    """Find these tools, or all, compile what is not on PATH, and print where they are."""
    with console_progress() as progress:
        for name in names or TOOLS:
            try:
                found = ensure(TOOLS[name], progress)
            except ToolError as error:
                raise click.ClickException(str(error)) from error
            click.echo(f"{found.path}\t{found.version}")
