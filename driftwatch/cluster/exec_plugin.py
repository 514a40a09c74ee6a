"""Runs the exec credential plugin of a kubeconfig's user (client.authentication.k8s.io).

The `kubernetes` package runs the plugin without a time limit. It reads standard output before standard error, and only
logs failures. This module limits the run time and the output. Every failure names the plugin.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from driftwatch.child_process import run_async
from driftwatch.cluster.errors import CredentialsError

TIME_LIMIT = 30.0  # seconds per run, the timeout of a request to the API server
MOST_BYTES = 2**20  # limit of its output; a token or a certificate has a few KB
MOST_STDERR = 300  # characters of its standard error that an error message quotes
SHORTEST_SECRET = 4  # minimum characters of a configured variable's value for it to be hidden


async def run_plugin(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run the plugin and return the `status` of its ExecCredential. Raises `CredentialsError`, which names the plugin.

    `settings` is the `exec` section of a kubeconfig's user. If the caller is cancelled, the plugin is killed.
    """
    command = settings.get("command")
    version = settings.get("apiVersion")
    if not command or not version:
        raise CredentialsError("the user's exec section needs command and apiVersion")
    what = f"credential plugin {command}"
    added = {str(each.get("name")): str(each.get("value", "")) for each in settings.get("env") or ()}
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = {**os.environ, **added, "KUBERNETES_EXEC_INFO": json.dumps(info)}
    try:
        status, output, stderr = await run_async(
            [command, *map(str, settings.get("args") or ())], environment, TIME_LIMIT, MOST_BYTES
        )
    except TimeoutError:
        raise CredentialsError(f"{what}: it gave no answer within {TIME_LIMIT:g} s, and was killed") from None
    except (OSError, ValueError) as error:
        hint = f"; {settings['installHint'].strip()}" if settings.get("installHint") else ""
        raise CredentialsError(
            f"{what}: it cannot be run: {getattr(error, 'strerror', None) or error}{hint}"
        ) from error
    if status != 0:
        raise CredentialsError(f"{what}: exit status {status}{_quoted(stderr, added)}")
    if len(output) > MOST_BYTES:
        raise CredentialsError(f"{what}: it prints more than {MOST_BYTES} bytes")
    try:
        answer = json.loads(output)
        found = answer["status"]
        answered = answer["apiVersion"]
        usable = isinstance(found, dict) and (
            "token" in found or {"clientCertificateData", "clientKeyData"} <= found.keys()
        )
    except (ValueError, KeyError, TypeError):
        raise CredentialsError(f"{what}: what it prints is no ExecCredential with a status") from None
    if answered != version:
        raise CredentialsError(f"{what}: it answers in {answered}, and the kubeconfig names {version}")
    if not usable:
        raise CredentialsError(f"{what}: its answer has no token, and no client certificate with its key")
    return dict(found)


def _quoted(stderr: bytes, added: Mapping[str, str]) -> str:
    """Return the end of the plugin's standard error on one line, with the kubeconfig's variable values hidden."""
    text = stderr.decode("utf-8", "replace")
    for value in added.values():
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "<hidden>")
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return f": {text[-MOST_STDERR:]}" if text else ""
