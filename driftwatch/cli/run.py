"""`driftwatch run`: the daemon."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import click

from driftwatch.config import Config, ConfigError, load


@click.command()
@click.option("--config", "config_file", required=True, type=click.Path(path_type=Path), help="The configuration file.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the log lines.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Least level.",
)
def command(config_file: Path, log_format: str, log_level: str) -> None:
    """Heal a cluster from Git until SIGTERM or Ctrl-C.

    config/driftwatch.example.yaml explains every key of the configuration file. Exit status: 0 after a clean stop,
    1 when the daemon cannot begin, 2 when the configuration cannot be used.
    """
    from driftwatch.observe.log import configure

    configure(log_format, log_level)
    try:
        config = load(config_file)
    except ConfigError as error:
        click.echo(f"driftwatch: configuration:\n{error}", err=True)
        sys.exit(2)
    sys.exit(serve(config))


def serve(config: Config) -> int:
    """Run the daemon in this process until it is told to stop. Returns the exit status."""
    import uvloop

    return uvloop.run(_serve(config))


async def _serve(config: Config) -> int:
    from driftwatch.cluster.errors import CredentialsError
    from driftwatch.cluster.session import Session
    from driftwatch.daemon import CannotStart, Daemon, cluster_identity

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        session = await Session.open(config.cluster.kubeconfig, config.cluster.context)
    except CredentialsError as error:
        click.echo(f"driftwatch: cannot start: {error}", err=True)
        return 1
    state = state_directory(config) / await cluster_identity(session)
    daemon = Daemon(config, session, state)
    try:
        await daemon.run(stop)
    except CannotStart as error:
        click.echo(f"driftwatch: cannot start: {error}", err=True)
        return 1
    return 0


def state_directory(config: Config) -> Path:
    """The folder for the state of all clusters."""
    if config.state.directory:
        return Path(config.state.directory).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "driftwatch"
