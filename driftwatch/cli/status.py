"""`driftwatch status`: shows the status of a running daemon and of its cluster."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from driftwatch.cli import options

if TYPE_CHECKING:
    from driftwatch.oneshot.status.client import Connection
    from driftwatch.status.schema import Status

FINE, NOT_FINE, UNREACHABLE = 0, 1, 2
DEFAULT_ADDRESS = "127.0.0.1:9464"
PLUGIN = "kubectl driftwatch"  # program name as a kubectl plugin
WIDTH = 160  # characters of a line if the output is not a terminal


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The daemon's configuration file: where it listens.",
)
@click.option("--address", metavar="URL", help=f"Where the daemon listens. Default: {DEFAULT_ADDRESS}.")
@click.option("--in-cluster", is_flag=True, help="Ask the daemon in the cluster; the default as a kubectl plugin.")
@click.option(
    "--namespace", "-n", default="driftwatch-system", show_default=True, help="Namespace of the daemon's Pod."
)
@click.option(
    "--selector", "-l", default="app.kubernetes.io/name=driftwatch", show_default=True, help="Label of the Pod."
)
@click.option("--port", default=9464, show_default=True, help="Port on which the daemon listens in the Pod.")
@click.option("--https", is_flag=True, help="The daemon in the cluster speaks TLS.")
@click.option("--kubeconfig", metavar="FILE", help="Kubeconfig for --in-cluster. Default: as kubectl finds it.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the daemon's bearer token.")
@click.option("--ca-file", metavar="FILE", help="Certificate authorities of the daemon, instead of the system's.")
@click.option("--watch", "-w", is_flag=True, help="Go on showing it until Ctrl-C.")
@click.option("--interval", default="1s", show_default=True, help="How often --watch asks.")
@options.text_or_json
@click.pass_context
def command(ctx: click.Context, /, *, watch: bool, interval: str, output: str, **place: Any) -> None:
    """Show what a running daemon sees: sources, what drifts, fails, is absent or is snoozed, who drifted what, watches.

    docs/status.schema.json describes the JSON. Values of Secrets are never shown.

    Exit status: 0 all is fine, 1 something drifts, fails, is absent or is not ready, 2 no daemon can be reached. With
    --watch it is that of the last answer.
    """
    from driftwatch.config.values import parse_duration
    from driftwatch.oneshot.status.client import CannotReach

    try:
        seconds = parse_duration(interval)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--interval") from error
    if ctx.find_root().info_name == PLUGIN and not (place["address"] or place["config_file"]):
        place["in_cluster"] = True
    try:
        sys.exit(asyncio.run(_show(place, watch=watch, interval=seconds, output=output)))
    except CannotReach as error:
        click.echo(f"driftwatch: {error}", err=True)
        sys.exit(UNREACHABLE)


async def _show(place: dict[str, Any], *, watch: bool, interval: float, output: str) -> int:
    from driftwatch.oneshot.status.client import decoded

    connection, where = _connection(place)
    try:
        if watch:
            return await _watch(connection, where, interval, output)
        document = await connection.fetch()
        status = decoded(document, where)
        _print(status, document, output)
        return FINE if status.is_fine else NOT_FINE
    finally:
        await connection.close()


def _connection(place: dict[str, Any]) -> "tuple[Connection, str]":
    """Return the connection that the options select, and its name for messages."""
    from driftwatch.oneshot.status.client import Direct, InCluster, Pod

    token = _token(place["token_file"])
    if place["in_cluster"]:
        pod = Pod(
            place["namespace"],
            place["selector"],
            place["port"],
            place["https"],
            place["kubeconfig"],
            place["context"],
            token,
            place["ca_file"],
        )
        return InCluster(pod), f"{place['selector']} in namespace {place['namespace']}"
    address = place["address"] or _listens(place["config_file"]) or DEFAULT_ADDRESS
    url = address if "://" in address else f"http://{address}"
    return Direct(url, token, place["ca_file"]), url


def _token(file: Path | None) -> str:
    from driftwatch.oneshot.status.client import CannotReach
    from driftwatch.secret import SecretRef, SecretUnavailable

    try:
        return SecretRef(file=str(file)).read("--token-file") if file else ""
    except SecretUnavailable as error:
        raise CannotReach(str(error)) from error


def _listens(config_file: Path | None) -> str:
    from driftwatch.config import ConfigError, load
    from driftwatch.oneshot.status.client import CannotReach

    if config_file is None:
        return ""
    try:
        host, port = load(config_file).server.address
    except ConfigError as error:
        raise CannotReach(f"configuration:\n{error}") from error
    if not port:
        raise CannotReach("server.listen has port 0, any free one: the daemon's log says which; name it by --address")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not listened on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _print(status: "Status", document: bytes, output: str) -> None:
    if output == "json":
        import msgspec

        click.echo(msgspec.json.format(document, indent=2).decode())
        return
    from driftwatch.oneshot.status.presentation import Screen

    _console().print(Screen(status))


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=WIDTH)


async def _watch(connection: "Connection", where: str, interval: float, output: str) -> int:
    """Poll until interrupted. Returns the exit status for the last answer."""
    import contextlib
    import signal

    from driftwatch.oneshot.status.client import CannotReach, decoded

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    show = _live() if output == "text" and sys.stdout.isatty() else _Lines(output)
    result = UNREACHABLE
    with show:
        while not stop.is_set():
            try:
                document = await connection.fetch()
                status = decoded(document, where)
            except CannotReach as error:
                result = UNREACHABLE
                show.trouble(str(error))
            else:
                result = FINE if status.is_fine else NOT_FINE
                show.status(status, document)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await stop.wait()
    return result


class _Lines:
    """Output of `--watch` without a terminal: prints each answer that differs from the previous one."""

    def __init__(self, output: str) -> None:
        self._output = output
        self._last: object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        sys.stdout.flush()

    def status(self, status: "Status", document: bytes) -> None:
        """Print an answer, unless only ages changed."""
        says = (
            status.daemon.ready,
            status.counts,
            status.objects,
            status.absent,
            status.watches,
            status.recent[-1:],
            _sources(status),
        )
        if says == self._last:
            return
        self._last = says
        if self._output == "json":
            click.echo(document)
        else:
            _print(status, document, "text")
            click.echo()
        sys.stdout.flush()

    def trouble(self, words: str) -> None:
        """Print an error, unless it is the previous one."""
        if words != self._last:
            self._last = words
            click.echo(f"driftwatch: {words}", err=True)


def _sources(status: "Status") -> list[tuple[object, ...]]:
    """Return the fields of the sources that do not depend on the time."""
    return [(source.name, source.commit, source.error, source.invalid, source.mode) for source in status.sources]


def _live() -> Any:
    from rich.live import Live
    from rich.text import Text

    from driftwatch.oneshot.status.presentation import Screen, plain

    class _Screen(Live):
        last: "Status | None" = None

        def status(self, status: "Status", _document: bytes) -> None:
            self.last = status
            self.update(Screen(status), refresh=True)

        def trouble(self, words: str) -> None:
            shown = Text(plain(words), style="red") if self.last is None else Screen(self.last, trouble=words)
            self.update(shown, refresh=True)

    return _Screen(console=_console(), auto_refresh=False, screen=True)
