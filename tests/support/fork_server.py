"""Starts daemons without their imports: a process that has imported `driftwatch run` forks a child for each.

Importing costs more than a second of CPU a start, and the tests start a daemon some two hundred times. What runs in
the child is the main function of the command line with its arguments, environment and output, in a process of its own,
which ends as the program would. Between it and the server stands a guardian, its parent, that waits for it and reports
how it ended.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from tests.support.waits import Waits

MODULES = (
    "driftwatch.cli.diff",
    "driftwatch.cli.rbac",
    "driftwatch.cli.render",
    "driftwatch.cli.run",
    "driftwatch.cli.status",
    "driftwatch.cli.validate",
    "driftwatch.cluster.session",
    "driftwatch.daemon",
    "driftwatch.oneshot.diff.comparison",
    "driftwatch.oneshot.diff.presentation",
    "driftwatch.log",
    "driftwatch.oneshot.validate.cluster",
    "driftwatch.oneshot.validate.manifests",
    "driftwatch.oneshot.validate.presentation",
    "driftwatch.oneshot.validate.selection",
    "driftwatch.oneshot.validate.dry_run",
    "driftwatch.oneshot.rbac.read_sources",
    "driftwatch.oneshot.rbac.role",
    "driftwatch.oneshot.status.client",
    "driftwatch.oneshot.status.presentation",
    "prometheus_client.openmetrics.exposition",
    "uvloop",
)
ROOT = Path(__file__).parents[2]
LONGEST_REQUEST = 128 * 1024  # bytes; the environment is most of it
_FILES = 3


class Forked:
    """A process that was forked: as much of `subprocess.Popen` as the tests need."""

    def __init__(self, pid: int, guardian: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._guardian = guardian

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._look(timeout=0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Exit status. Raises `subprocess.TimeoutExpired` when it still runs after `timeout` seconds."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired("driftwatch", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by force, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            self._guardian.settimeout(timeout)
            try:
                status = self._guardian.recv(32)
            except (BlockingIOError, TimeoutError):
                return None
            self._guardian.close()
            assert status, "the guardian of the process has ended before it"
            self.returncode = int(status)
        return self.returncode


class ForkServer:
    """The server's end in the tests; `server()` is the one of this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=theirs, stdout=subprocess.DEVNULL, cwd=ROOT,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )  # fmt: skip

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        outputs: tuple[BinaryIO, BinaryIO],
        *,
        folder: Path | None = None,
        waits: Waits | None = None,
    ) -> Forked:
        """Start `driftwatch` with these arguments, standard output and standard error; its standard input is empty."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "folder": str(folder or Path.cwd()),
            "waits": dict(waits or {}),
        }
        with theirs:
            files = [theirs.fileno(), *(each.fileno() for each in outputs)]
            socket.send_fds(self._control, [json.dumps(request).encode()], files)
        pid = ours.recv(32)
        assert pid, "the fork server has ended"
        return Forked(int(pid), ours)

    def close(self) -> None:
        """End the server. What it has forked lives on."""
        self._control.close()
        self._process.wait()


@functools.cache
def server() -> ForkServer:
    """The fork server of this process, which ends with it."""
    server = ForkServer()
    atexit.register(server.close)
    return server


def run(
    *arguments: str, warnings_are: Literal["error", "default"], timeout: float, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `driftwatch` with these arguments to its end, as `subprocess.run` would."""
    environment = {**os.environ, "PYTHONWARNINGS": warnings_are}
    with tempfile.TemporaryFile("w+b") as output, tempfile.TemporaryFile("w+b") as errors:
        process = server().fork(arguments, environment, (output, errors), folder=folder)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(["driftwatch", *arguments], status, *texts)


def _serve(control: socket.socket) -> Sequence[str] | None:
    """Fork a child for each request until nobody is left who could ask. Returns in the child, with its arguments."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guardians are waited for by nobody
    while True:
        message, files, _, _ = socket.recv_fds(control, LONGEST_REQUEST, _FILES)
        if not message:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            reply, *outputs = files
            pid = os.fork()
            if pid == 0:
                os.close(reply)
                return _become(json.loads(message), outputs)
            for file in outputs:
                os.close(file)
            _guard(pid, reply)
        for file in files:
            os.close(file)


def _guard(pid: int, reply: int) -> None:
    """Report the process id, and how it ended."""
    with socket.socket(fileno=reply) as report:
        report.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        try:
            report.send(b"%d" % os.waitstatus_to_exitcode(status))
        except BrokenPipeError:  # nobody wants to know any more
            pass
        finally:
            os._exit(0)


def _become(request: dict[str, Any], outputs: Sequence[int]) -> list[str]:
    """Take over what is asked for: outputs, folder, environment, waits. Returns the arguments."""
    null = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((null, *outputs)):
        os.dup2(file, number)
    os.closerange(3, max(null, *outputs) + 1)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if (action := os.environ.get("PYTHONWARNINGS")) in ("error", "default"):
        warnings.resetwarnings()
        warnings.simplefilter(action)
    for constant, value in request["waits"].items():
        name, _, attribute = constant.rpartition(".")
        module = importlib.import_module(name)
        setattr(module, attribute, type(getattr(module, attribute))(value))
    arguments: list[str] = request["arguments"]
    return arguments


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # the children share these pages
    with socket.socket(fileno=os.dup(0)) as control:
        arguments = _serve(control)
    if arguments is not None:
        from driftwatch.cli import main

        sys.argv = ["driftwatch", *arguments]
        main()
