"""Options shared by several commands, so that they have the same meaning everywhere."""

from pathlib import Path

import click

colour = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colours; auto: on a terminal, unless $NO_COLOR is set.",
)
text_or_json = click.option(
    "--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)
existing_config = click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The configuration file.",
)
clone = click.option(
    "--repository",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Read the one chosen source from this clone instead, as of a pull request.",
)
revision = click.option(
    "--revision", metavar="REV", help="At this branch, tag or commit. With --repository, HEAD if it is not given."
)
