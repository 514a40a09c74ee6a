"""A daemon that is forked ends, answers signals and writes as one that was started by its command."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fork_server import ForkServer, run, server
from tests.support.waiting import until

MISSING = "run", "--config=missing.yaml"


def test_status_and_outputs_are_those_of_the_command(tmp_path: Path) -> None:
    """What is forked ends and says what the command does, in the folder that was asked for."""
    command = subprocess.run(
        [sys.executable, "-m", "driftwatch", *MISSING], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    forked = run(*MISSING, warnings_are="default", timeout=60, folder=tmp_path)

    assert (forked.returncode, forked.stdout, forked.stderr) == (command.returncode, command.stdout, command.stderr)


def test_a_signal_that_ends_it_is_its_status(tmp_path: Path) -> None:
    """The process id is its own: it can be suspended and killed, and then it is gone."""
    fifo = tmp_path / "driftwatch.yaml"
    os.mkfifo(fifo)  # nobody writes, so it waits for its configuration
    with (tmp_path / "log").open("wb") as log:
        process = server().fork(["run", f"--config={fifo}"], os.environ, (log, log))

    process.send_signal(signal.SIGSTOP)
    until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T", "it is suspended")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()

    assert process.wait(20) == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_constant_that_is_not_there_is_no_shorter_wait(tmp_path: Path) -> None:
    """A wait whose constant was renamed fails the start, instead of being waited out unnoticed."""
    with (tmp_path / "log").open("wb") as log:
        process = server().fork(MISSING, os.environ, (log, log), waits={"driftwatch.daemon.NO_SUCH": 1.0})

    assert process.wait(20) == 1
    assert "NO_SUCH" in (tmp_path / "log").read_text()


def test_the_server_ends_with_whoever_started_it() -> None:
    """Nobody is left who could ask: it ends by itself."""
    other = ForkServer()
    other.close()

    assert other._process.returncode == 0
