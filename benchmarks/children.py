"""The processes of a run. None of them outlives the run: the kernel ends those that the run cannot end."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import psutil
from driftwatch.localcluster import launcher

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
ROOT = Path(__file__).resolve().parent.parent


class ChildError(Exception):
    """A process of the benchmark did not obey a command."""


class Child:
    """One process in its own session. With `talks` it reads and writes JSON lines."""

    def __init__(self, name: str, command: list[str], log: Path, *, talks: bool = False) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), *command],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
                cwd=ROOT,
                start_new_session=True,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def ask(self, command: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a command and wait for the answer, 10 s longer than the process itself waits."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(orjson.dumps({**command, "timeout": timeout}) + b"\n")
        self._popen.stdin.flush()
        try:
            return self.hear(timeout + 10)
        except ChildError as error:
            raise ChildError(f"{orjson.dumps(command).decode()}: {error}") from error

    def hear(self, timeout: float) -> dict[str, Any]:
        """Wait for one line. Raises `ChildError` when no line comes, or when it has an error."""
        assert self._popen.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._popen.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise ChildError(f"{self.name} said nothing within {timeout:.0f} s{self._last_words()}")
                chunk = os.read(self._popen.stdout.fileno(), 65536)
                if not chunk:
                    raise ChildError(f"{self.name} ended{self._last_words()}")
                self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        answer: dict[str, Any] = orjson.loads(line)
        if "error" in answer:
            raise ChildError(f"{self.name}: {answer['error']}{self._last_words()}")
        return answer

    def require_alive(self) -> None:
        """Raise `ChildError` if the process has ended."""
        if self._popen.poll() is not None:
            raise ChildError(f"{self.name} ended with status {self._popen.returncode}{self._last_words()}")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and its child processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def stop(self) -> None:
        """Send SIGTERM, wait, then kill the process and its remaining child processes."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(GRACE)
        self.signal_all(signal.SIGKILL)
        self._popen.wait(GRACE)
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()

    def cpu(self) -> float:
        """CPU time of the process in seconds, without its children."""
        tasks = Path(f"/proc/{self.pid}/task")
        with contextlib.suppress(OSError, ValueError):
            # schedstat counts nanoseconds, cpu_times counts ticks of 10 ms.
            return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def memory(self) -> dict[str, "Memory"]:
        """Memory of the process as `own`, and of all its children together as `children`."""
        process = psutil.Process(self.pid)
        children = Memory(0, 0)
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # the child has ended meanwhile, for example a run of git
                children += Memory.of(child)
        return {"own": Memory.of(process), "children": children}

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").splitlines()[-8:]
            return "; its last lines:\n" + "\n".join(f"    {line}" for line in lines)
        return ""


class Memory:
    """Memory in bytes: `rss` is the resident memory, `unique` the part that no other process shares."""

    def __init__(self, rss: int, unique: int) -> None:
        self.rss, self.unique = rss, unique

    @classmethod
    def of(cls, process: psutil.Process) -> "Memory":
        """The memory of a process now."""
        full = process.memory_full_info()
        return cls(full.rss, getattr(full, "uss", 0))

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.rss + other.rss, self.unique + other.unique)
