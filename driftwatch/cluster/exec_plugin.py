"""Runs the credential plugin of a kubeconfig's user (client.authentication.k8s.io).

The `kubernetes` package runs it without a time limit, reads its standard output before its standard error, and only
logs what goes wrong. Here a run has a time limit, its output is bounded, and every failure names the plugin.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from driftwatch.cluster.errors import CredentialsError

TIME_LIMIT = 30.0  # seconds of one run; as long as a request to the API server may take
GRACE = 1.0  # seconds for a killed plugin to be gone
MOST_BYTES = 2**20  # of its output: a token or a certificate has a few KB
MOST_WORDS = 300  # characters of its standard error that a failure quotes
SHORTEST_SECRET = 4  # characters of a configured variable's value from which on it is hidden


async def ask(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `status` of the ExecCredential that the plugin prints. Raises `CredentialsError` that names the plugin.

    `settings` is the `exec` section of a kubeconfig's user. When the caller is cancelled, the plugin is killed.
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
        status, output, words = await _run([command, *map(str, settings.get("args") or ())], environment)
    except TimeoutError:
        raise CredentialsError(f"{what}: it gave no answer within {TIME_LIMIT:g} s, and was killed") from None
    except (OSError, ValueError) as error:
        hint = f"; {settings['installHint'].strip()}" if settings.get("installHint") else ""
        raise CredentialsError(
            f"{what}: it cannot be run: {getattr(error, 'strerror', None) or error}{hint}"
        ) from error
    if status != 0:
        raise CredentialsError(f"{what}: exit status {status}{_quoted(words, added)}")
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


async def _run(command: list[str], environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Exit status, output and words of a process, which is killed with all that it started unless it ends in time."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _kill(await starting)
        raise
    ended = False
    try:
        async with asyncio.timeout(TIME_LIMIT):
            output, words = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            status = await process.wait()
            ended = True
            return status, output, words
    finally:
        if not ended:
            await _kill(process)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the process and all of its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads its session, and with it a group
    # asyncio takes a process for running until its pipes are read to their end; somebody else may hold them open.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(GRACE):
            await asyncio.gather(_read(process.stdout), _read(process.stderr))
            await process.wait()


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    """All that it says; what is beyond `MOST_BYTES` is read, for the process to end, and dropped."""
    content = b""
    while stream is not None and (piece := await stream.read(2**16)):
        content += piece[: MOST_BYTES + 1 - len(content)]
    return content


def _quoted(words: bytes, added: Mapping[str, str]) -> str:
    """The last of what the plugin says, on one line, without the values that the kubeconfig gives it."""
    text = words.decode("utf-8", "replace")
    for value in added.values():
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "<hidden>")
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return f": {text[-MOST_WORDS:]}" if text else ""
