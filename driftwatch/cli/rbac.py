"""`driftwatch rbac`: prints the least-privilege role for the objects that the sources declare."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from driftwatch.model import GroupKind
    from driftwatch.oneshot.rbac.read_sources import Declaration
    from driftwatch.oneshot.rbac.requirements import Resource

PRINTED, INCOMPLETE, ERROR = 0, 1, 2


@click.command()
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="The configuration file, for its sources."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND[.GROUP]",
    help="Also this kind, as ConfigMap or Deployment.apps, whether or not a source declares it yet. Repeatable.",
)
@click.option("--no-cluster", is_flag=True, help="Ask no cluster how kinds are called; go by Git and by their names.")
@click.option(
    "--by-namespace",
    is_flag=True,
    help="Grant what is in namespaces by a Role in each, and no more than the rest by the ClusterRole.",
)
@click.option("--name", default="driftwatch", show_default=True, help="Name of the roles and bindings.")
@click.option("--namespace", "-n", default="driftwatch-system", show_default=True, help="Where driftwatch runs.")
@click.option("--service-account", default="driftwatch", show_default=True, help="The account that it runs under.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["yaml", "json", "rules"]),
    default="yaml",
    show_default=True,
    help="How to print it; rules: those of the kinds alone, for the Helm chart's rbac.rules.",
)
def command(
    config_file: Path | None,
    kinds: tuple[str, ...],
    name: str,
    namespace: str,
    service_account: str,
    output: str,
    *,
    no_cluster: bool,
    by_namespace: bool,
) -> None:
    """Print the least-privilege roles and bindings for exactly what the sources declare.

    They are a ClusterRole, or with `cluster.namespace` a Role there, and a Role in the inventory's namespace. With
    --by-namespace there is a Role in every namespace in which Git declares something, and driftwatch watches them one
    by one; a namespace must be there before its Role.

    Sources are read as `driftwatch diff` reads them; nothing is written. Apply it before driftwatch starts, and again
    before a commit that brings a kind, a Role or a binding which no earlier one had: until then driftwatch says what it
    is refused, and heals the rest.

    Exit status: 0 it is complete, 1 documents that are no valid manifests, or that
    cluster.namespace refuses, were left out, 2 nothing is printed, since a
    source or the cluster could not be read.
    """
    from driftwatch.oneshot.rbac.read_sources import resolved
    from driftwatch.oneshot.rbac.requirements import of_kind, of_objects
    from driftwatch.oneshot.rbac.role import Account, manifests, rules

    if config_file is None and not kinds:
        raise click.UsageError("name the configuration file with --config, or kinds with --kind")
    if by_namespace and (kinds or output == "rules"):
        raise click.UsageError(
            "--by-namespace needs objects, whose namespaces it goes by: no --kind, no --output rules"
        )
    also = {_parsed(kind) for kind in kinds}
    declaration, known = _read(config_file, also, use_cluster=not no_cluster)
    resources = resolved(declaration.kinds | also, known, declaration.kept)
    _warn(resources)
    requirements = [*of_objects(declaration.kept, resources), *(of_kind(resources[kind]) for kind in also)]
    if output == "rules":
        _print_yaml([rules(requirements, confined=bool(declaration.confined))])
    else:
        found = manifests(
            requirements,
            Account(name, namespace, service_account),
            confined=declaration.confined,
            inventory=declaration.inventory if config_file else namespace,
            variables=declaration.variables,
            by_namespace=by_namespace,
        )
        _print(found, output)
    sys.exit(INCOMPLETE if declaration.invalid else PRINTED)


def _parsed(kind: str) -> "GroupKind":
    from driftwatch.model import GroupKind

    name, _, group = kind.partition(".")
    if not name.isalnum():
        raise click.BadParameter(f"{kind!r} is not KIND or KIND.GROUP", param_hint="--kind")
    return GroupKind(group, name)


def _read(
    config_file: Path | None, also: "set[GroupKind]", *, use_cluster: bool
) -> "tuple[Declaration, dict[GroupKind, Resource]]":
    """Read the declared objects and the cluster's resources. Exits the program if either cannot be read."""
    from driftwatch.cluster.errors import ClusterError
    from driftwatch.config import ConfigError, load
    from driftwatch.escape import printable_lines
    from driftwatch.git.version import git_trouble
    from driftwatch.log import configure
    from driftwatch.oneshot.rbac.read_sources import Declaration, read

    configure("text", "error")
    if config_file is None:
        return Declaration(), {}
    try:
        config = load(config_file)
    except ConfigError as error:
        _give_up(f"configuration:\n{error}")
    if missing := git_trouble():  # before the cluster is asked for nothing
        _give_up(f"no source can be read: {missing}")
    try:
        declaration, known = asyncio.run(read(config, also, use_cluster=use_cluster))
    except ClusterError as error:
        _give_up(f"the cluster cannot be asked how kinds are called: {error}; --no-cluster goes by Git and their names")
    for trouble in (*declaration.unread, *declaration.invalid):
        where = f" ({trouble.file}:{trouble.line})" if trouble.file else ""
        click.echo(printable_lines(f"driftwatch: {trouble.source}{where}: {trouble.message}"), err=True)
    if declaration.unread:
        _give_up("nothing is printed: a role for the other sources alone would take from this one what it has")
    return declaration, known


def _give_up(message: str) -> NoReturn:
    click.echo(f"driftwatch: {message}", err=True)
    sys.exit(ERROR)


def _warn(resources: "dict[GroupKind, Resource]") -> None:
    for kind, resource in sorted(resources.items()):
        if resource.guessed:
            click.echo(
                f"driftwatch: {kind}: neither the cluster nor a CustomResourceDefinition in Git names its resource; "
                f"{resource.plural}.{resource.group} is what it is as a rule",
                err=True,
            )


def _print(objects: list[dict[str, Any]], output: str) -> None:
    import orjson

    if output == "json":
        document = {"apiVersion": "v1", "kind": "List", "items": objects}
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    _print_yaml(objects)


def _print_yaml(documents: list[Any]) -> None:
    import yaml

    click.echo(yaml.safe_dump_all(documents, sort_keys=False, width=120, explicit_start=len(documents) > 1), nl=False)
