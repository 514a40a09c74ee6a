"""`driftwatch run`: runs the daemon."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftwatch import memory
from driftwatch.config import Config, ConfigError, load
from driftwatch.files import version_of
from driftwatch.git.version import git_trouble

if TYPE_CHECKING:
    from driftwatch.daemon import Daemon

CONFIG_LOOK = 1.0  # seconds between checks of the configuration file
UNUSABLE = "configuration cannot be used"
CANNOT_START = "cannot start"


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
    from driftwatch.log import configure

    configure(log_format, log_level)
    try:
        config = load(config_file)
    except ConfigError as error:
        _tell(UNUSABLE, f"configuration:\n{error}", error, log_format)
        sys.exit(2)
    sys.exit(serve(config, config_file, log_format))


def serve(config: Config, config_file: Path, log_format: str) -> int:
    """Run the daemon in this process until SIGTERM or SIGINT. Returns the exit status."""
    import uvloop

    memory.configure_malloc()
    return uvloop.run(_serve(config, config_file, log_format))


async def _serve(config: Config, config_file: Path, log_format: str) -> int:
    import structlog

    from driftwatch.cluster.errors import CredentialsError
    from driftwatch.cluster.session import Session
    from driftwatch.daemon import Daemon
    from driftwatch.metrics.registry import Metrics
    from driftwatch.startup import CannotStart

    if trouble := await asyncio.to_thread(git_trouble):
        _tell(CANNOT_START, f"{CANNOT_START}: {trouble}", CannotStart(trouble), log_format)
        return 1
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_error)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics = Metrics()
    opening = asyncio.ensure_future(Session.open(config.cluster.kubeconfig, config.cluster.context, metrics.api.asked))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not opening.done():  # stopped while a credential plugin still runs
        opening.cancel()
        await asyncio.wait([opening])
        return 0
    try:
        session = opening.result()
    except CredentialsError as error:
        _tell(CANNOT_START, f"{CANNOT_START}: {error}", error, log_format)
        return 1
    try:
        daemon = Daemon(config, session, state_directory(config), metrics)
        reloading = asyncio.ensure_future(_reload_on_change(daemon, config_file))
        try:
            await daemon.run(stop)
        finally:
            reloading.cancel()
    except CannotStart as error:
        _tell(CANNOT_START, f"{CANNOT_START}: {error}", error, log_format)
        return 1
    except Exception:  # noqa: BLE001  every crash is logged and gives exit status 1
        structlog.get_logger().exception("a part of the daemon crashed; it ends, to be started anew")
        return 1
    finally:
        await session.close()
    return 0


def _tell(event: str, words: str, error: Exception, log_format: str) -> None:
    """Report why the daemon does not start: as a log event with `--log-format json`, else as plain text."""
    import structlog

    if log_format == "json":
        structlog.get_logger().error(event, error=str(error))
    else:
        click.echo(f"driftwatch: {words}", err=True)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log unhandled errors of the event loop, except uvloop's attempt to end TLS on a closed connection."""
    error = context.get("exception")
    if isinstance(error, RuntimeError) and str(error).endswith("the handler is closed"):
        return
    loop.default_exception_handler(context)


async def _reload_on_change(daemon: "Daemon", config_file: Path) -> None:
    """Reload the configuration on SIGHUP and when the file changes. An invalid file changes nothing."""
    import structlog

    log = structlog.get_logger()
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    seen = version_of(config_file)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONFIG_LOOK):
                await asked.wait()
        now = version_of(config_file)
        if not asked.is_set() and now == seen:
            continue
        asked.clear()
        seen = now
        try:
            await daemon.reload(await asyncio.to_thread(load, config_file))
        except ConfigError as error:
            daemon.metrics.config_reloads.labels("failure").inc()
            log.error(  # noqa: TRY400  a traceback adds nothing
                UNUSABLE, error=str(error), next="the one in force stays in force"
            )
        except Exception:  # a bug in the reload must not end this task, or later changes would be ignored
            daemon.metrics.config_reloads.labels("failure").inc()
            log.exception(
                "configuration reload failed unexpectedly", next="the next change of the file, or SIGHUP, is taken in"
            )
        else:
            daemon.metrics.config_reloads.labels("success").inc()


def state_directory(config: Config) -> Path:
    """Return the state directory: `state.directory`, else `driftwatch` in $XDG_STATE_HOME or ~/.local/state."""
    if config.state.directory:
        return Path(config.state.directory).expanduser()
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(base) / "driftwatch"
