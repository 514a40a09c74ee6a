"""Git over ssh as a host serves it: a real SSH server that knows one key and runs `git upload-pack`.

It is a process of its own (`python -m tests.support.git_ssh FOLDER`), so that nothing of it is in the tests' process.
"""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh


class SshHost:
    """What clients of the server need; `known_hosts` and `identity` are files for them.

    Whose key is in `authorized` when a client comes is let in.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.identity, self.authorized = folder / "identity", folder / "authorized_keys"
        self.known_hosts = folder / "known_hosts"
        algorithm, key, _ = (folder / "host.pub").read_text().split(maxsplit=2)
        self.known_hosts.write_text(f"[127.0.0.1]:{port} {algorithm} {key}\n")

    def url(self, repository: Path) -> str:
        """Address of a repository."""
        return f"ssh://git@127.0.0.1:{self.port}{repository}"


def keypair(file: Path) -> Path:
    """Make a key pair without passphrase; the private key's file."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(file)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return file


@contextmanager
def ssh_host(folder: Path) -> Iterator[SshHost]:
    """Run a server."""
    folder.mkdir(parents=True)
    keypair(folder / "identity")
    keypair(folder / "host")
    (folder / "authorized_keys").write_bytes((folder / "identity.pub").read_bytes())
    command = [sys.executable, "-m", "tests.support.git_ssh", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout is not None
        try:
            yield SshHost(folder, int(server.stdout.readline()))
        finally:
            server.terminate()


async def _serve(folder: Path) -> None:
    class Server(asyncssh.SSHServer):
        def connection_made(self, connection: asyncssh.SSHServerConnection) -> None:
            self._connection = connection

        def begin_auth(self, username: str) -> bool:
            self._connection.set_authorized_keys(str(folder / "authorized_keys"))
            return bool(username)

    acceptor = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[str(folder / "host")],
        server_factory=Server,
        process_factory=_upload_pack,
        encoding=None,
    )
    sys.stdout.write(f"{acceptor.get_port()}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


async def _upload_pack(process: asyncssh.SSHServerProcess[bytes]) -> None:
    words = shlex.split(process.command or "")
    if words[:1] != ["git-upload-pack"]:
        process.exit(1)
        return
    environment = {"PATH": os.environ["PATH"], "HOME": "/", "GIT_CONFIG_NOSYSTEM": "1"}
    environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    pipe = asyncio.subprocess.PIPE
    git = await asyncio.create_subprocess_exec(
        "git", "upload-pack", words[1], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    )
    to_git = asyncio.ensure_future(_pass_on(process.stdin, git.stdin))
    await asyncio.gather(_pass_on(git.stdout, process.stdout), _pass_on(git.stderr, process.stderr))
    to_git.cancel()
    process.exit(await git.wait())


async def _pass_on(source: Any, target: Any) -> None:
    with suppress(OSError, asyncssh.Error):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        if isinstance(target, asyncio.StreamWriter):
            target.close()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
