"""`driftwatch cluster`: a real control plane on this machine, without containers."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from driftwatch.localcluster import (
    ClusterStatus,
    LocalCluster,
    LocalClusterError,
    Progress,
    console_progress,
    ensure_binaries,
)

NOT_RUNNING = 3  # as in `systemctl status` and LSB init scripts

directory_option = click.option(
    "--dir",
    "directory",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The cluster's folder: its data, certificates, logs and kubeconfig.",
)


@contextmanager
def _reporting() -> Iterator[Progress]:
    """Show progress on standard error, and driftwatch's errors as plain messages with exit code 1."""
    try:
        with console_progress() as progress:
            yield progress
    except LocalClusterError as error:
        raise click.ClickException(str(error)) from error


@click.group()
def command() -> None:
    """Start and stop a real local control plane.

    etcd, kube-apiserver and kube-controller-manager run as processes of yours, without nodes: everything that
    the API does is real, only pods do not start. Programs are taken from $KUBEBUILDER_ASSETS, the cache or
    PATH, or are compiled once with Go.
    """


@command.command()
@directory_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The API server's port. Default: a free one, then the same again.",
)
@click.option(
    "--fsync",
    is_flag=True,
    help="Have etcd wait for the disk: slower, and nothing is lost if the machine crashes.",
)
def up(directory: Path, port: int | None, *, fsync: bool) -> None:
    """Start the cluster in DIR, or resume it, and print the path of its kubeconfig.

    It goes on running until `driftwatch cluster down`.
    """
    with _reporting() as progress:
        cluster = LocalCluster(directory, progress)
        cluster.up(port=port, detach=True, fsync=fsync)
    click.echo(cluster.kubeconfig)


@command.command()
@directory_option
@click.option("--delete", is_flag=True, help="Remove the cluster's data as well.")
def down(directory: Path, *, delete: bool) -> None:
    """Stop the cluster in DIR. Its data is kept, so that `up` resumes it on the same port."""
    with _reporting() as progress:
        LocalCluster(directory, progress).down(delete=delete)


@command.command()
@directory_option
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
def status(directory: Path, output: str) -> None:
    """Show what runs. The exit code is 0 if all of it is up and ready, else 3."""
    with _reporting() as progress:
        cluster = LocalCluster(directory, progress)
        found = cluster.status()
    if output == "json":
        click.echo(json.dumps(_as_json(cluster, found), indent=2))
    else:
        _print(cluster, found)
    sys.exit(0 if found.running else NOT_RUNNING)


@command.command()
def build() -> None:
    """Find the programs, compile them if need be, and print where they are."""
    with _reporting() as progress:
        binaries = ensure_binaries(progress)
    for path, version in (
        (binaries.etcd, binaries.etcd_version),
        (binaries.kube_apiserver, binaries.kubernetes_version),
        (binaries.kube_controller_manager, binaries.kubernetes_version),
        (binaries.kubectl, binaries.kubernetes_version),
    ):
        click.echo(f"{path}\t{version}")


def _as_json(cluster: LocalCluster, found: ClusterStatus) -> dict[str, object]:
    return {
        "directory": str(found.directory),
        "running": found.running,
        "server": found.server,
        "kubeconfig": str(cluster.kubeconfig) if found.exists else None,
        "auditLog": str(cluster.audit_log) if found.exists else None,
        "kubectl": str(cluster.kubectl) if found.exists else None,
        "components": {
            item.component.value: {
                "pid": item.pid,
                "ready": item.pid is not None and item.waits_for is None,
                "waitsFor": item.waits_for,
                "log": str(cluster.log(item.component)),
            }
            for item in found.components
        },
    }


def _print(cluster: LocalCluster, found: ClusterStatus) -> None:
    if not found.exists:
        click.echo(f"{found.directory} holds no cluster.")
        return
    for item in found.components:
        state = "stopped" if item.pid is None else "ready" if item.waits_for is None else f"waits for {item.waits_for}"
        click.echo(f"{item.component:<25}{item.pid or '-':<10}{state}")
    click.echo()
    for name, value in (
        ("server", found.server),
        ("kubeconfig", cluster.kubeconfig),
        ("audit log", cluster.audit_log),
        ("kubectl", cluster.kubectl),
    ):
        click.echo(f"{name:<12}{value}")
