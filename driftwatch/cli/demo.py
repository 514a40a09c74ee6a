"""`driftwatch demo`: shows drift and its healing step by step on a real cluster."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from driftwatch.demo.screen import Screen
    from driftwatch.demo.stage import Stage
    from driftwatch.localcluster import Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option("--once", is_flag=True, help="End after the story: exit status 0, or 1 if anything was not healed.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep cluster, repository and log in this folder. Default: a temporary one that is removed.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play on a cluster of yours: a kubeconfig file.",
)
@click.option("--context", help="Play on a cluster of yours: a context of the kubeconfig.")
@click.option("--yes", is_flag=True, help="Do not ask before a cluster of yours is touched.")
def command(directory: Path | None, kubeconfig: Path | None, context: str | None, *, once: bool, yes: bool) -> None:
    """Break things on a real cluster and watch them being healed.

    A control plane and a Git repository are made for it and removed afterwards. With --kubeconfig or --context it
    is played on that cluster, in a namespace `nginx` that is removed afterwards. After the story it stays up, to
    try things by hand, until Ctrl-C.
    """
    from driftwatch.demo.errors import DemoError, Interrupted
    from driftwatch.demo.screen import Screen
    from driftwatch.localcluster import LocalClusterError, console_progress

    screen = Screen()
    try:
        with _signals() as interrupts, console_progress() as progress:
            setting = _setting(directory, kubeconfig, context, progress, yes=yes)
            sys.exit(_perform(setting, screen, interrupts, once=once))
    except Interrupted as interrupted:
        screen.note("Stopped before the end of the story.")
        sys.exit(128 + interrupted.number)
    except (DemoError, LocalClusterError) as error:
        raise click.ClickException(str(error)) from error


def _perform(
    setting: AbstractContextManager["Stage"], screen: "Screen", interrupts: "InterruptHandler", *, once: bool
) -> int:
    from driftwatch.demo.errors import DemoError, Interrupted
    from driftwatch.demo.story import Story

    screen.title("driftwatch demo: what Git declares stays, whatever is done to the cluster")
    with setting as stage:
        story = Story(stage, screen)
        healed = False
        try:
            screen.note(f"Cluster {stage.server}")
            screen.note(f"Git repository {stage.repository.folder}")
            healed = story.play()
            if not once:
                _show_addresses(stage, screen)
                story.stay()
        except DemoError as error:
            healed = False
            screen.cross(str(error))
        except Interrupted as interrupted:
            if once or not story.told:
                raise
            screen.note(f"\n{signal.Signals(interrupted.number).name}: tidying up.")
        finally:
            interrupts.down()
            stage.folder.keep = story.told and not healed
    if stage.folder.keep:
        screen.note(f"The daemon's log is kept: {stage.daemon.log}")
    return 0 if healed and stage.tidy else 1


def _setting(
    directory: Path | None, kubeconfig: Path | None, context: str | None, progress: "Progress", *, yes: bool
) -> AbstractContextManager["Stage"]:
    from driftwatch.demo.stage import guest_stage, local_stage

    if kubeconfig is None and context is None:
        return local_stage(directory, progress)

    def consent(server: str, named: str) -> None:
        click.echo(
            f"The story is played on a cluster of yours: context {named or '(none)'}, server {server}.\n"
            "It creates a namespace `nginx`, breaks what is in it, and deletes it at the end."
        )
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is here to be asked: say --yes if this cluster may be touched")
        click.confirm("Go on?", abort=True)

    absolute = kubeconfig.absolute() if kubeconfig else None
    return guest_stage(directory, absolute, context, progress, consent)


def _show_addresses(stage: "Stage", screen: "Screen") -> None:
    kubectl = shlex.quote(str(stage.kubectl.path))
    if stage.context:
        kubectl += f" --context={shlex.quote(stage.context)}"
    rows = [("cluster", f"export KUBECONFIG={shlex.quote(str(stage.kubeconfig))}")] if stage.kubeconfig else []
    rows += [
        ("kubectl", f"alias kubectl={shlex.quote(kubectl)}"),
        ("Git", f"cd {shlex.quote(str(stage.repository.folder))}"),
        ("metrics", f"curl {stage.daemon.address}/metrics"),
        ("log", f"less {shlex.quote(str(stage.daemon.log))}"),
        ("", ""),
        ("try", "kubectl -n nginx delete svc nginx"),
        ("", "kubectl -n nginx edit deploy nginx"),
        ("", 'kubectl -n nginx patch cm nginx -p \'{"data":{"index.html":"mine"}}\''),
        ("", "kubectl label ns nginx team=me"),
        ("", "$EDITOR manifests/deployment.yaml && git commit -am mine"),
        ("", ""),
        ("end", "Ctrl-C"),
    ]
    screen.panel("It stays up. Break something in another terminal; what driftwatch does appears below.", rows)


class InterruptHandler:
    """Signal handler that raises `Interrupted` once. During cleanup, it prints a message instead."""

    def __init__(self) -> None:
        self._down = False

    def arrived(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        from driftwatch.demo.errors import Interrupted

        if self._down:
            click.echo("Tidying up; it takes a moment.", err=True)
            return
        self._down = True
        raise Interrupted(number)

    def down(self) -> None:
        """Stop raising `Interrupted`."""
        self._down = True


@contextmanager
def _signals() -> Iterator[InterruptHandler]:
    interrupts = InterruptHandler()
    before = {number: signal.signal(number, interrupts.arrived) for number in _SIGNALS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
