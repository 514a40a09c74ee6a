"""An exec credential plugin that hangs, fails or prints nonsense holds up nothing (h06)."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from driftwatch.cluster import credentials, exec_plugin
from driftwatch.cluster.credentials import Credentials
from driftwatch.cluster.errors import CredentialsError
from driftwatch.cluster.session import Session

VERSION = "client.authentication.k8s.io/v1"


def printing(token: str) -> str:
    """A script that prints a token."""
    return f"echo '{json.dumps({'apiVersion': VERSION, 'kind': 'ExecCredential', 'status': {'token': token}})}'"


class Plugin:
    """A kubeconfig whose user has a plugin: a shell script that a test replaces."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._script = folder / "my-plugin"
        self.pid_file = folder / "pid"
        user = {
            "exec": {"apiVersion": VERSION, "command": str(self._script), "env": [{"name": "KEY", "value": "hush"}]}
        }
        self.kubeconfig.write_text(
            yaml.safe_dump({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "users": [{"name": "u", "user": user}],
            })
        )  # fmt: skip

    def does(self, script: str) -> None:
        self._script.write_text(f"#!/bin/sh\n{script}\n")
        self._script.chmod(0o700)

    def hangs(self) -> None:
        """A run that never ends, with a child of its own that holds its output."""
        self.does(f"sleep 600 & echo $! > {self.pid_file}.new && mv {self.pid_file}.new {self.pid_file}; wait")

    def child_is_gone(self) -> bool:
        return not Path(f"/proc/{self.pid_file.read_text().strip()}/fd").exists() or (
            "Z" in Path(f"/proc/{self.pid_file.read_text().strip()}/stat").read_text().split()[2]
        )


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """Give a plugin that prints the token `first`."""
    plugin = Plugin(tmp_path)
    plugin.does(printing("first"))
    return plugin


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  it is another process's doing
            await asyncio.sleep(0.01)


async def test_h06_requests_go_on_with_the_last_token_while_the_plugin_hangs(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin runs beside the requests; when it is mended, its new token is used."""
    found = await Credentials.find(str(plugin.kubeconfig), None)
    monkeypatch.setattr(credentials, "REFRESH", 0.0)
    monkeypatch.setattr(exec_plugin, "TIME_LIMIT", 1.0)
    plugin.hangs()
    with structlog.testing.capture_logs() as logs:
        headers = [await asyncio.wait_for(found.headers(), 0.9) for _ in range(3)]
        assert headers == [{"Authorization": "Bearer first"}] * 3
        await until(lambda: logs)
    assert "my-plugin: it gave no answer within 1 s" in logs[0]["error"]
    await until(plugin.child_is_gone)

    plugin.does(printing("second"))
    async with asyncio.timeout(20):
        while await found.headers() != {"Authorization": "Bearer second"}:  # noqa: ASYNC110  another process's doing
            await asyncio.sleep(0.01)
    await found.close()


async def test_h06_refused_requests_wait_for_one_run_of_a_plugin_that_hangs(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten requests that the API server refuses do not wait for ten time limits one after the other."""
    found = await Credentials.find(str(plugin.kubeconfig), None)
    monkeypatch.setattr(exec_plugin, "TIME_LIMIT", 1.0)
    plugin.hangs()
    refused = await found.headers()
    began = time.monotonic()

    assert await asyncio.gather(*(found.renew(refused) for _ in range(10))) == [False] * 10
    assert time.monotonic() - began < 8 * exec_plugin.TIME_LIMIT

    monkeypatch.setattr(credentials, "EXEC_AGAIN", 0.0)
    plugin.does(printing("second"))
    assert await found.renew(refused)
    assert await found.headers() == {"Authorization": "Bearer second"}
    await found.close()


async def test_h06_closing_a_session_ends_a_plugin_that_hangs(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin and what it started are killed; nobody waits for its time limit."""
    session = await Session.open(str(plugin.kubeconfig))
    monkeypatch.setattr(credentials, "REFRESH", 0.0)
    plugin.hangs()
    await session._credentials.headers()
    await until(plugin.pid_file.exists)

    await asyncio.wait_for(session.close(), 10)

    await until(plugin.child_is_gone)


async def test_h06_opening_a_session_can_be_given_up_while_the_plugin_hangs(plugin: Plugin) -> None:
    """A daemon that is stopped before it has credentials ends, and the plugin with it."""
    plugin.hangs()
    opening = asyncio.ensure_future(Session.open(str(plugin.kubeconfig)))
    await until(plugin.pid_file.exists)

    opening.cancel()
    await asyncio.wait([opening], timeout=10)

    assert opening.cancelled()
    await until(plugin.child_is_gone)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'no login for hush' >&2; exit 3", "exit status 3: no login for <hidden>"),
        ("echo nonsense", "what it prints is no ExecCredential"),
        ("echo '[]'", "what it prints is no ExecCredential"),
        (printing("t").replace("/v1", "/v1beta1"), "it answers in client.authentication.k8s.io/v1beta1"),
        (printing("t").replace("token", "other"), "has no token"),
        ("head -c 2000000 /dev/zero", "it prints more than"),
        ("sleep 600", "it gave no answer within 2 s"),
    ],
)
async def test_h06_a_plugin_that_fails_at_the_start_is_named(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """The kubeconfig, the plugin and its trouble are in the message, and no value that the kubeconfig gives it."""
    monkeypatch.setattr(exec_plugin, "TIME_LIMIT", 2.0)
    plugin.does(script)

    with pytest.raises(CredentialsError) as failed:
        await Credentials.find(str(plugin.kubeconfig), None)

    assert f"kubeconfig {plugin.kubeconfig}: credential plugin " in str(failed.value)
    assert words in str(failed.value)
