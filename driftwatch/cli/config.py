"""`driftwatch config`: prints the example, reference and JSON schema of the configuration file."""

import click


@click.group()
def command() -> None:
    """Print an example configuration, its reference or its JSON schema."""


@command.command()
def example() -> None:
    """Print a configuration file with every key, its default and what it means."""
    from driftwatch.config.reference import example as text

    click.echo(text(), nl=False)


@command.command()
def reference() -> None:
    """Print the reference of all keys, in Markdown."""
    from driftwatch.config.reference import reference as text

    click.echo(text(), nl=False)


@command.command()
def schema() -> None:
    """Print the JSON schema, for editors."""
    from driftwatch.config.reference import schema_text

    click.echo(schema_text(), nl=False)
