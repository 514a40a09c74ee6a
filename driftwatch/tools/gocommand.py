"""Runs the `go` command: streams its output, and turns failures into errors that say what to do."""

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from driftwatch.tools.errors import ToolError

_TAIL_LINES = 15


class Purpose(NamedTuple):
    """What is compiled (`The local control plane`), and the alternative to compiling it ("or put ... on PATH")."""

    what: str
    alternative: str


def require_go(folder: Path, wanted: str, purpose: Purpose) -> None:
    """Raise `ToolError` unless Go is installed in at least version `wanted`, for the module in `folder`."""
    need = f"{purpose.what} is compiled with Go {wanted} or newer"
    reconciler = f"Install it from https://go.dev/dl/, {purpose.alternative}."
    if shutil.which("go") is None:
        raise ToolError(f"{need}, and there is no `go` on PATH. {reconciler}")
    # Run in the module's directory: a Go that may download newer toolchains (GOTOOLCHAIN=auto) reports the newer
    # version.
    lines = list(go_lines(["env", "GOVERSION"], folder, 300.0, purpose))
    found = next((match[1] for line in lines if (match := re.match(r"go(\d+(?:\.\d+)*)", line))), None)
    if found is None or _numbers(found) < _numbers(wanted):
        raise ToolError(f"{need}, and the `go` on PATH is {found or 'of an unknown version'}. {reconciler}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def go_lines(arguments: list[str], folder: Path, timeout: float, purpose: Purpose) -> Generator[str, None, None]:
    """Run `go ARGUMENTS` in `folder`; yield each line of its stdout and stderr as it arrives.

    Raises `ToolError` with the last lines if it fails or takes longer than `timeout` seconds. `go` and its child
    processes are ended when the iteration ends or is closed.
    """
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",  # no C compiler needed, and portable programs
        "GOWORK": "off",  # a go.work above the cache must not apply to this module
    }
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        ["go", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            for line in _lines(process, time.monotonic() + timeout):
                if line.strip():
                    tail.append(line)
                yield line
        finally:
            if process.poll() is None:
                _finish(process)
    if process.returncode != 0:
        raise ToolError(
            f"`go {arguments[0]}` failed. Its last words:\n"
            + "\n".join(f"    {line}" for line in tail)
            + f"\nIf modules cannot be fetched, set GOPROXY to a proxy that can be reached, {purpose.alternative}."
        )


def _lines(process: "subprocess.Popen[bytes]", deadline: float) -> Iterator[str]:
    """Lines of the standard output until it ends or the deadline passes."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise ToolError("`go` takes too long; it was ended. Try again: what it has compiled is kept.")
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
    process.wait()


def _finish(process: "subprocess.Popen[bytes]") -> None:
    """Stop `go` and the compilers that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
