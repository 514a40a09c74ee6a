"""The daemon's end of the pipe to the desired-state process.

The client restarts the process after any failure: killed, out of memory, hung. The new process gets the sources again
and sends full snapshots. Until then the daemon reconciles with the snapshots that it has. No module here imports Git
or YAML.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import structlog

from driftwatch.backoff import backoff
from driftwatch.child_process import kill_group
from driftwatch.desired import protocol
from driftwatch.desired.protocol import (
    Alive,
    Change,
    FromProcess,
    Poll,
    ProtocolError,
    Resend,
    Surround,
    ToProcess,
    Watch,
)
from driftwatch.escape import printable
from driftwatch.secret import redacted
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

SILENCE_SECONDS = 60.0
"""A process that sends nothing for this long hangs. It sends `Alive` every five seconds."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_LAST_WORDS = 300
_TAIL_BYTES = 4096
_STDERR = 2
_STOP_SECONDS = 3.0

_log = structlog.get_logger("driftwatch.desired")


class DesiredStateClient:
    """Starts the desired-state process, keeps it running, and yields its messages."""

    def __init__(self, *, silence: float = SILENCE_SECONDS) -> None:
        self.restarts = 0
        self._silence = silence
        self._numbers = itertools.count(1)
        self._expected: list[SourceSpec] = []
        self._generations: dict[str, int] = {}  # of the expected sources
        self._watched = Watch([])  # the sources that the process follows, now or after its start
        self._surroundings = ClusterCapabilities()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._failures = 0
        self._started = 0.0
        self._stderr = b""  # only the end
        self._copying: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the process ended before its first message. "" when it has sent one since."""
        self._has_spoken = False  # since its last start

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self, sources: Sequence[SourceSpec] | None = None) -> None:
        """Start the process and send it the sources. The default is the sources of the last `watch`."""
        if sources is not None:
            self._set_watched(sources)
        await self._spawn()

    def expect(self, sources: Sequence[SourceSpec]) -> None:
        """Drop the messages of removed and changed sources. Call `watch` with the same sources afterwards.

        The process need not know the new sources yet. Messages of the old ones are dropped from this call on.
        """
        before = {spec.name: spec for spec in self._expected}
        self._expected = list(sources)
        self._generations = {
            spec.name: self._generations[spec.name] if before.get(spec.name) == spec else next(self._numbers)
            for spec in sources
        }

    async def watch(self, sources: Sequence[SourceSpec]) -> None:
        """Set the sources to follow. New and changed sources begin with a full change, the others continue.

        A call before `start` takes effect with the first snapshot.
        """
        self._set_watched(sources)
        await self._tell(self._watched)

    async def surround(self, surroundings: ClusterCapabilities) -> None:
        """Set the cluster's inputs for rendering. A call before `start` takes effect with the first snapshot."""
        if surroundings != self._surroundings:
            self._surroundings = surroundings
            await self._tell(Surround(surroundings))

    async def poll(self, source: str) -> None:
        """Ask the process to poll this source now."""
        await self._tell(Poll(source))

    async def resend(self, source: str) -> None:
        """Ask the process to send the full snapshot of this source again."""
        await self._tell(Resend(source))

    async def messages(self) -> AsyncIterator[FromProcess]:
        """Yield the messages of the process until `stop`, across restarts. One consumer at a time."""
        while not self._stopping.is_set():
            process = self._process
            if process is None or process.stdout is None:
                await self._restart()
                continue
            try:
                message = await self._read(process.stdout)
            except (TimeoutError, ProtocolError, OSError, asyncio.IncompleteReadError) as error:
                await self._lost(process, error)
                continue
            self.trouble, self._has_spoken = "", True
            # The process sent a message of an older generation before the source's path, revision or variables changed.
            if not isinstance(message, Alive) and message.generation == self._generations.get(message.source):
                yield message

    async def stop(self) -> None:
        """End the process and its child processes."""
        self._stopping.set()
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await process.wait()
        await _end(process)
        await self._copied()

    def _set_watched(self, sources: Sequence[SourceSpec]) -> None:
        self.expect(sources)
        self._watched = Watch(self._expected, self._generations)

    async def _read(self, stdout: asyncio.StreamReader) -> protocol.Frame:
        async with asyncio.timeout(self._silence):
            prefix = await stdout.readexactly(protocol.LENGTH_BYTES)
            payload = await stdout.readexactly(protocol.frame_length(prefix))
        return protocol.decode_from_process(payload)

    async def _tell(self, message: ToProcess) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return  # the next start sends everything
        with contextlib.suppress(ConnectionError, RuntimeError):  # `messages` notices and restarts
            process.stdin.write(protocol.encode(message))
            await process.stdin.drain()

    async def _spawn(self) -> None:
        self._started = asyncio.get_running_loop().time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named `git` in the working directory must not be imported as a module
            "-m",
            "driftwatch.desired",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
            limit=2**20,
        )
        if self._stopping.is_set():  # `stop` was called during the start
            await _end(process)
            return
        self._process, self._has_spoken = process, False
        if process.stderr is not None:
            self._copying = asyncio.get_running_loop().create_task(self._copy(process.stderr))
        await self._tell(Surround(self._surroundings))
        await self._tell(self._watched)

    async def _lost(self, process: asyncio.subprocess.Process, error: Exception) -> None:
        if self._stopping.is_set() or self._process is not process:
            return
        self._process = None
        hung = isinstance(error, TimeoutError)
        await _end(process)
        await self._copied()
        words = _last_words(self._stderr)
        if asyncio.get_running_loop().time() - self._started > _STEADY_SECONDS:
            self._failures = 0
        what = f"silent for {self._silence:g} s" if hung else f"status {process.returncode}"
        if not self._has_spoken:
            self.trouble = f"it ended ({what}){': ' if words else ''}{words}; it is started again"
        _log.error(
            "the desired-state process ended; it is started again, healing goes on",
            reason=what,
            error=words or str(error),
        )

    async def _copy(self, stderr: asyncio.StreamReader) -> None:
        """Copy the standard error of the process to ours, and keep its end."""
        self._stderr = b""
        while data := await stderr.read(_TAIL_BYTES):
            self._stderr = (self._stderr + data)[-_TAIL_BYTES:]
            with contextlib.suppress(OSError):
                os.write(_STDERR, data)

    async def _copied(self) -> None:
        """Wait for the end of the standard error. Child processes may hold it open, so the wait is bounded."""
        copying, self._copying = self._copying, None
        if copying is not None and (await asyncio.wait([copying], timeout=_STOP_SECONDS))[1]:
            copying.cancel()

    async def _restart(self) -> None:
        self._failures += 1
        self.restarts += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff(self._failures, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)):
                await self._stopping.wait()
                return
        try:
            await self._spawn()
        except OSError as error:
            self.trouble = f"it cannot be started: {error}; next try follows"
            _log.error("the desired-state process cannot be started; next try follows", error=str(error))


def _last_words(stderr: bytes) -> str:
    """The last line of standard error, without credentials. "" when there is none."""
    lines = redacted(stderr.decode("utf-8", "replace")).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return printable(last[-_LAST_WORDS:])


def _environment() -> dict[str, str]:
    """The daemon's environment. `-P` hides the working directory, so an uninstalled driftwatch needs PYTHONPATH."""
    environment = dict(os.environ)
    root = Path(protocol.__file__).resolve().parents[2]
    if root == Path.cwd():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH", "")]))
    return environment


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process, and the git and ssh processes of its session. They would otherwise keep running."""
    # Not `process.kill`: it first checks whether the process has ended, and takes that from asyncio's child watcher.
    if process.returncode is None:
        kill_group(process.pid)  # it leads its session, and so a process group
    for pid in await asyncio.to_thread(_session, process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    await process.wait()


def _session(leader: int) -> list[int]:
    """The processes of a session. Empty without /proc, or without a free file descriptor to read it."""
    found = []
    with contextlib.suppress(OSError):
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(folder.name)) == leader:
                    found.append(int(folder.name))
    return found


class ChangeAssembler:
    """Collects the chunks of each source's change until the last one."""

    def __init__(self) -> None:
        self._incoming: dict[str, Change] = {}

    def add(self, chunk: Change) -> Change | None:
        """Add a chunk. Returns the whole change with the last chunk, else None.

        A change stays unfinished when the process dies or cannot send the rest. It is dropped when another change
        begins. A chunk that continues no change is dropped. So two changes never merge.
        """
        whole = self._incoming.get(chunk.source)
        if chunk.first:
            self._incoming[chunk.source] = whole = chunk
        elif whole is None or whole.sequence != chunk.sequence:
            return None
        else:
            whole.upserts += chunk.upserts
            whole.removed += chunk.removed
            whole.invalid += chunk.invalid
            whole.passed_over += chunk.passed_over
            whole.digest = chunk.digest
            whole.last = chunk.last
        return self._incoming.pop(chunk.source) if chunk.last else None
