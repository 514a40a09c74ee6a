"""Runs a tool on files that somebody else wrote: bounded in time, memory and output, without our environment.

A chart can loop, a kustomization can name a remote base, and both can be written to hurt. So the tool gets a private
home, no variable of ours, no network unless the source says so, and a process group that is killed at the end, however
the run ends. Go reserves far more address space than it uses, so what is bounded is the memory that it holds: Go's own
limit makes it collect before, and what goes over the bound all the same is killed.
"""

import contextlib
import functools
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from driftwatch.git.errors import RenderError
from driftwatch.git.runner import Interrupted
from driftwatch.source_spec import ToolLimits
from driftwatch.tools import Program

_LOOK_SECONDS = 0.05  # between looks at the memory: a tool gains some 50 MB in that time
_ERROR_BYTES = 64 * 1024
_FILE_BYTES = 512 * 2**20
_CHUNK = 65536
_CLOSED = "http://127.0.0.1:9"  # the discard port, where nobody listens
_PASSED_ON = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE",
              "SSL_CERT_DIR")  # fmt: skip


class ToolFailed(Exception):
    """The tool ended with an error; `words` is what it wrote to its standard error, `output` what to the other.

    Both name files as the repository does.
    """

    def __init__(self, words: str, output: str) -> None:
        super().__init__(words)
        self.words = words
        self.output = output


class Workspace(NamedTuple):
    """A private folder of a run: its home, a folder for programs that is empty, and where temporary files go."""

    folder: Path

    @property
    def home(self) -> Path:
        """The tool's home."""
        return self.folder / "home"

    @property
    def tree(self) -> Path:
        """The files of the repository that the tool works on."""
        return self.folder / "tree"

    def without(self, words: str) -> str:
        """A tool's words with the repository's own paths: nobody knows this folder, and it is gone soon."""
        for folder in (os.path.realpath(self.folder), str(self.folder)):
            words = words.replace(f"{folder}/tree/", "").replace(f"{folder}/tree", ".").replace(f"{folder}/", "")
        return words

    def furnish(self) -> "Workspace":
        """Make the folders."""
        for name in ("home", "bin", "tmp"):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        return self


class Sandbox:
    """Runs tools for one source, one at a time; `interrupt` may be called from any thread."""

    def __init__(self, limits: ToolLimits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """End what runs, and let nothing else begin."""
        with self._lock:
            self._interrupted = True
            if self._running is not None:
                _kill(self._running)

    def run(
        self,
        command: Sequence[str],
        room: Workspace,
        folder: Path,
        *,
        network: bool = False,
        programs: bool = False,
        variables: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> bytes:
        """Return the output of `command`, run in `folder`.

        `network` lets it use the network and, for that, the programs on PATH (git); `programs` those alone. Raises
        `ToolFailed` with its words, and `RenderError` when it goes over a limit.
        """
        prefix = [] if network else list(_without_network())
        environment = _environment(room, self._limits, network=network, programs=programs or network)
        with self._lock:
            if self._interrupted:
                raise Interrupted("given up, because the source was changed or driftwatch stops")
            try:
                self._running = running = subprocess.Popen(
                    [*prefix, *command],
                    cwd=folder,
                    env={**environment, **(variables or {})},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    process_group=0,  # the session stays ours: what ends the desired-state process ends this
                )
            except OSError as error:
                raise RenderError(f"{command[0]} cannot be started: {error.strerror}") from error
        try:
            output, words = self._watch(running, Path(command[0]).name, stdin)
        finally:
            _kill(running)
            running.wait()
            with self._lock:
                self._running = None
            for stream in (running.stdout, running.stderr):
                if stream is not None:
                    stream.close()
        if self._interrupted:
            raise Interrupted("given up, because the source was changed or driftwatch stops")
        if running.returncode != 0:
            said = words or f"ended with status {running.returncode}"
            raise ToolFailed(room.without(said), room.without(output[-_ERROR_BYTES:].decode("utf-8", "replace")))
        return output

    def _watch(self, running: "subprocess.Popen[bytes]", name: str, stdin: bytes) -> tuple[bytes, str]:
        """Feed it and read what it says until it ends. Raises `RenderError` when it goes over a limit."""
        limits = self._limits
        _bound(running.pid, limits)
        if stdin:
            threading.Thread(target=_feed, args=(running.stdin, stdin), daemon=True).start()
        else:
            _feed(running.stdin, stdin)
        deadline = time.monotonic() + limits.timeout
        output, words = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            for stream, buffer in ((running.stdout, output), (running.stderr, words)):
                assert stream is not None  # noqa: S101  it is a pipe
                selector.register(stream, selectors.EVENT_READ, buffer)
            looked = 0.0
            while selector.get_map():
                _read(selector)
                del words[:-_ERROR_BYTES]
                if len(output) > limits.output:
                    raise _ended(name, f"it wrote more than {_mib(limits.output)}", "output")
                if time.monotonic() - looked >= _LOOK_SECONDS:
                    looked = time.monotonic()
                    self._check(running.pid, name, deadline)
        try:
            running.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._check(running.pid, name, 0.0)
        return bytes(output), words.decode("utf-8", "replace")

    def _check(self, pid: int, name: str, deadline: float) -> None:
        limits = self._limits
        if time.monotonic() > deadline:
            raise _ended(name, f"it was not done within {limits.timeout:g} s", "timeout")
        if _memory(pid) > limits.memory:
            raise _ended(name, f"it took more than {_mib(limits.memory)} of memory", "memory")


def _read(selector: selectors.BaseSelector) -> None:
    """Add what has come to each stream's buffer; forget a stream that has ended."""
    for key, _ in selector.select(_LOOK_SECONDS):
        chunk = os.read(key.fd, _CHUNK)
        if not chunk:
            selector.unregister(key.fileobj)
        key.data.extend(chunk)


def _environment(room: Workspace, limits: ToolLimits, *, network: bool, programs: bool) -> dict[str, str]:
    home = str(room.home)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath) if programs else str(room.folder / "bin"),
        "HOME": home,
        "XDG_CONFIG_HOME": f"{home}/.config",
        "XDG_CACHE_HOME": f"{home}/.cache",
        "XDG_DATA_HOME": f"{home}/.local/share",
        "TMPDIR": str(room.folder / "tmp"),
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
    """What takes the network from a command, where the kernel lets an ordinary user do that.

    Where it does not, the tool still finds no git, and only a closed proxy.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--map-current-user", "--net", "--")
    try:
        done = subprocess.run(
            [*command, "true"], capture_output=True, timeout=10, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return command if done.returncode == 0 else ()


def _bound(pid: int, limits: ToolLimits) -> None:
    """Set what the kernel enforces: a backstop for memory that is taken faster than we look."""
    import psutil  # noqa: PLC0415  loaded when a tool runs: every restart of the process waits for what it loads

    with contextlib.suppress(psutil.Error, OSError, AttributeError):
        process = psutil.Process(pid)
        for resource, bound in (
            (psutil.RLIMIT_DATA, 2 * limits.memory + 2**29),
            (psutil.RLIMIT_FSIZE, _FILE_BYTES),
            (psutil.RLIMIT_CORE, 0),
        ):
            process.rlimit(resource, (bound, bound))


def _memory(pid: int) -> int:
    """Bytes that the tool and what it started hold."""
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


def _kill(running: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(running.pid, signal.SIGKILL)


def _ended(name: str, why: str, limit: str) -> RenderError:
    return RenderError(f"{name} was ended: {why}; see toolLimits.{limit}")


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


@functools.cache
def program(name: str) -> "Program":
    """The tool, found or compiled. Raises `RenderError`; then it is looked for again next time."""
    # Loaded when a tool is needed: every restart of the process waits for what it loads.
    from driftwatch import tools  # noqa: PLC0415

    try:
        return tools.ensure(tools.TOOLS[name])
    except tools.ToolError as error:
        raise RenderError(str(error), passes=True) from error
