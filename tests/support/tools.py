"""Programs that only tests need, compiled like the tools: `python -m tests.support.tools` builds them ahead."""

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

if __name__ == "__main__":
    with console_progress() as progress:
        for tool in (AGE_KEYGEN, REGISTRY):
            click.echo("\t".join(map(str, ensure(tool, progress))))
