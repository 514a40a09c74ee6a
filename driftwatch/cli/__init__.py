"""The command line: one module per command, imported only when the command runs, so that each starts fast."""

import importlib
import sys

import click

from driftwatch import __version__

COMMANDS = {
    "run": "Heal a cluster from Git until stopped.",
    "status": "Show what a running daemon sees: what drifts, who did it, how fast it was healed.",
    "diff": "Show how the cluster differs from Git, and who did it.",
    "validate": "Check configuration, Git and manifests before they are merged, for pipelines.",
    "render": "Print the manifests as they would be applied.",
    "rbac": "Print the least-privilege role for what the sources declare.",
    "rules": "List the rules that keep fields out of the fight, and whom driftwatch takes for a person.",
    "demo": "Watch drift being healed on a real local control plane.",
    "config": "Print an example configuration, its reference or its JSON schema.",
    "tools": "Find or compile the tools that sources are rendered with.",
    "cluster": "Start and stop a real local control plane.",
}


class LazyGroup(click.Group):
    """Imports a command's module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the documentation."""
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name` from the module of the same name."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module(f"driftwatch.cli.{cmd_name}").command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="driftwatch")
def root() -> None:
    """Keep a Kubernetes cluster equal to Git: drift is healed as it happens, and attributed.

    Start with `driftwatch demo`. In production, write a configuration file (config/driftwatch.example.yaml explains
    every key) and start `driftwatch run --config FILE`.
    """


def main() -> None:
    """Entry point of `driftwatch`."""
    root(prog_name="driftwatch")
    sys.exit(0)


def kubectl_plugin() -> None:
    """Entry point of the kubectl plugin, `kubectl driftwatch`."""
    root(prog_name="kubectl driftwatch")
    sys.exit(0)
