"""Programs that only tests need, compiled like the tools: `python -m tests.support.tools [NAME ...]` builds them."""

import dataclasses
from pathlib import Path

import click
from driftwatch.tools import Tool, ensure
from driftwatch.tools.progress import console_progress

_MODULES = Path(__file__).parent / "modules"

AGE_KEYGEN = Tool(
    name="age-keygen",
    module="filippo.io/age",
    package="filippo.io/age/cmd/age-keygen",
    modules=_MODULES / "age-keygen",
    oldest=(1, 1),
    version_arguments=("--version",),
)
REGISTRY = Tool(
    name="oci-registry",
    module="github.com/google/go-containerregistry",
    package="github.com/google/go-containerregistry/cmd/registry",
    modules=_MODULES / "registry",
    oldest=(0, 22),
    version_arguments=("--version",),
)
# Service discovery for two dozen clouds is most of Prometheus' size; the tests name their targets. The pages of its web
# interface are not in the module, its API is all that is asked.
_NO_CLOUDS = ("remove_all_sd",)
PROMETHEUS = Tool(
    name="prometheus",
    module="github.com/prometheus/prometheus",
    package="github.com/prometheus/prometheus/cmd/prometheus",
    modules=_MODULES / "prometheus",
    oldest=(3, 0),
    version_arguments=("--version",),
    tags=_NO_CLOUDS,
    minutes="8 minutes",
)
PROMTOOL = dataclasses.replace(PROMETHEUS, name="promtool", package="github.com/prometheus/prometheus/cmd/promtool")
TOOLS = {tool.name: tool for tool in (AGE_KEYGEN, REGISTRY, PROMETHEUS, PROMTOOL)}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(TOOLS)))
def build(names: tuple[str, ...]) -> None:
    """Find or compile these programs, or all."""
    with console_progress() as progress:
        for name in names or TOOLS:
            click.echo("\t".join(map(str, ensure(TOOLS[name], progress))))


if __name__ == "__main__":
    build()
