"""Runs a tool on untrusted files: bounded in time, memory and output, without driftwatch's environment.

A chart can loop, a kustomization can name a remote base, and either can be malicious. So the tool gets a private home
directory, none of driftwatch's variables, and no network unless the source enables it. It runs in its own process
group, which is killed at the end, however the run ends. Go reserves far more address space than it uses, so the limit
applies to resident memory: Go's own limit triggers its garbage collector first, and a process above it is killed.
"""

import contextlib
import functools
import os
import selectors
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from driftwatch import child_process
from driftwatch.git.errors import RenderError
from driftwatch.git.runner import given_up
from driftwatch.source_spec import ToolLimits
from driftwatch.tools import Program

_CHECK_SECONDS = 0.05  # between memory checks; a tool gains some 50 MB in that time
_ERROR_BYTES = 64 * 1024
_FILE_BYTES = 512 * 2**20
_CHUNK = 65536
_CLOSED = "http://127.0.0.1:9"  # the discard port, where nothing listens
_PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
              "SSL_CERT_DIR")  # fmt: skip


class ToolFailed(Exception):
    """The tool failed. `stderr` is its standard error, `output` its standard output.

    Both name files by their paths in the repository.
    """

    def __init__(self, stderr: str, output: str) -> None:
        super().__init__(stderr)
        self.stderr = stderr
        self.output = output


class Workspace(NamedTuple):
    """A private directory of one run: the tool's home, an empty directory for PATH, and temporary files."""

    folder: Path

    @property
    def home(self) -> Path:
        """The tool's home directory."""
        return self.folder / "home"

    @property
    def tree(self) -> Path:
        """The repository files that the tool works on."""
        return self.folder / "tree"

    def relative_paths(self, text: str) -> str:
        """Replace paths of this temporary directory in a tool's messages by paths in the repository."""
        for folder in (os.path.realpath(self.folder), str(self.folder)):
            text = text.replace(f"{folder}/tree/", "").replace(f"{folder}/tree", ".").replace(f"{folder}/", "")
        return text

    def create(self) -> "Workspace":
        """Create the directories."""
        for name in ("home", "bin", "tmp"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        return self


class Sandbox:
    """Runs tools for one source, one at a time. Any thread may call `interrupt`."""

    def __init__(self, limits: ToolLimits) -> None:
        self._limits = limits
        self._child = child_process.OneAtATime(given_up)

    def interrupt(self) -> None:
        """Stop the running tool and refuse further ones."""
        self._child.interrupt()

    def run(
        self,
        command: Sequence[str],
        workspace: Workspace,
        folder: Path,
        *,
        network: bool = False,
        programs: bool = False,
        variables: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> bytes:
        """Return the output of `command`, run in `folder`.

        `network` allows the network and therefore the programs on PATH (git); `programs` allows only the programs.
        Raises `ToolFailed` with the tool's messages, and `RenderError` when it exceeds a limit.
        """
        prefix = [] if network else list(_without_network())
        environment = _environment(workspace, self._limits, network=network, programs=programs or network)
        environment |= variables or {}

        def begin() -> "subprocess.Popen[bytes]":
            return child_process.start([*prefix, *command], environment=environment, folder=folder, stdin=True)

        try:
            running = self._child.start(begin)
        except OSError as error:
            raise RenderError(f"{command[0]} cannot be started: {error.strerror}") from error
        try:
            output, stderr = self._watch(running, Path(command[0]).name, stdin)
        finally:
            child_process.kill_group(running.pid)
            running.wait()
            self._child.ended()
            for stream in (running.stdout, running.stderr):
                if stream is not None:
                    stream.close()
        self._child.check()
        if running.returncode != 0:
            message = stderr or f"ended with status {running.returncode}"
            raise ToolFailed(
                workspace.relative_paths(message),
                workspace.relative_paths(output[-_ERROR_BYTES:].decode("utf-8", "replace")),
            )
        return output

    def _watch(self, running: "subprocess.Popen[bytes]", name: str, stdin: bytes) -> tuple[bytes, str]:
        """Write stdin and read the output until the tool ends. Raises `RenderError` when it exceeds a limit."""
        limits = self._limits
        _set_limits(running.pid, limits)
        if stdin:
            threading.Thread(target=_feed, args=(running.stdin, stdin), daemon=True).start()
        else:
            _feed(running.stdin, stdin)
        deadline = time.monotonic() + limits.timeout
        output, stderr = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            for stream, buffer in ((running.stdout, output), (running.stderr, stderr)):
                assert stream is not None  # noqa: S101  it is a pipe
                selector.register(stream, selectors.EVENT_READ, buffer)
            last_check = 0.0
            while selector.get_map():
                _read(selector)
                del stderr[:-_ERROR_BYTES]
                if len(output) > limits.output:
                    raise _ended(name, f"it wrote more than {_mib(limits.output)}", "output")
                if time.monotonic() - last_check >= _CHECK_SECONDS:
                    last_check = time.monotonic()
                    self._check(running.pid, name, deadline)
        try:
            running.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._check(running.pid, name, 0.0)
        return bytes(output), stderr.decode("utf-8", "replace")

    def _check(self, pid: int, name: str, deadline: float) -> None:
        limits = self._limits
        if time.monotonic() > deadline:
            raise _ended(name, f"it was not done within {limits.timeout:g} s", "timeout")
        if _memory(pid) > limits.memory:
            raise _ended(name, f"it took more than {_mib(limits.memory)} of memory", "memory")


def _read(selector: selectors.BaseSelector) -> None:
    """Append new data to each stream's buffer; unregister a stream at its end."""
    for key, _ in selector.select(_CHECK_SECONDS):
        chunk = os.read(key.fd, _CHUNK)
        if not chunk:
            selector.unregister(key.fileobj)
        key.data.extend(chunk)


def _environment(workspace: Workspace, limits: ToolLimits, *, network: bool, programs: bool) -> dict[str, str]:
    home = str(workspace.home)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath) if programs else str(workspace.folder / "bin"),
        "HOME": home,
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_CACHE_HOME": f"{home}/.cache",
        "XDG_DATA_HOME": f"{home}/.local/share",
        "TMPDIR": str(workspace.folder / "tmp"),
        "LANG": "C.UTF-8",
        "GOMEMLIMIT": str(limits.memory * 8 // 10),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "https:ssh" if network else "",
    }
    if network:
        environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    else:
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _CLOSED)
    return environment


@functools.cache
def _without_network() -> tuple[str, ...]:
    """Prefix that runs a command without network, where the kernel allows that to unprivileged users.

    Elsewhere the tool still finds no git, and its proxy setting leads to a closed port.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-current-user", "--net", "--")
    try:
        done = child_process.run([*command, "true"], 10.0)
    except OSError:
        return ()
    return command if done.status == 0 else ()


def _set_limits(pid: int, limits: ToolLimits) -> None:
    """Set the kernel's limits: a backstop against memory that grows faster than the checks."""
    import psutil  # noqa: PLC0415  imported when a tool runs, to keep it out of the process's start-up time

    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        process = psutil.Process(pid)
        for resource, bound in (
            (psutil.RLIMIT_DATA, 2 * limits.memory + 2**29),
            (psutil.RLIMIT_FSIZE, _FILE_BYTES),
            (psutil.RLIMIT_CORE, 0),
        ):
            process.rlimit(resource, (bound, bound))


def _memory(pid: int) -> int:
    """Resident memory in bytes of the tool and its child processes."""
    import psutil  # noqa: PLC0415  as above

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def _feed(stream: IO[bytes] | None, data: bytes) -> None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.write(data)
        with contextlib.suppress(OSError):
            stream.close()


def _ended(name: str, why: str, limit: str) -> RenderError:
    return RenderError(f"{name} was ended: {why}; see toolLimits.{limit}")


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


@functools.cache
def program(name: str) -> "Program":
    """The tool, found or compiled. Raises `RenderError`; the next call looks for it again."""
    # Imported when a tool is needed, to keep it out of the process's start-up time.
    from driftwatch import tools  # noqa: PLC0415

    try:
        return tools.ensure(tools.TOOLS[name])
    except tools.ToolError as error:
        raise RenderError(str(error), passes=True) from error
