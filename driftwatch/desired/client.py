"""The daemon's end of the pipe to the desired-state process.

Healing never stops: whatever happens to the process (killed, out of memory, hung), it is started again, told
its sources, and sends full snapshots; until then the daemon heals by the ones it has. Nothing here imports
Git or YAML.
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
"""A process that says nothing for so long, though it says `Alive` every five seconds, hangs."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 60.0
_LAST_WORDS = 300
_TAIL_BYTES = 4096
_STDERR = 2
_STOP_SECONDS = 3.0

_log = structlog.get_logger("driftwatch.desired")


class DesiredStateClient:
    """Starts the desired-state process, keeps it running, and passes on what it says."""

    def __init__(self, *, silence: float = SILENCE_SECONDS) -> None:
        self.restarts = 0
        self._silence = silence
        self._numbers = itertools.count(1)
        self._expected: list[SourceSpec] = []
        self._generations: dict[str, int] = {}  # of the expected sources
        self._watched = Watch([])  # what the process follows, or will after its start
        self._surroundings = ClusterCapabilities()
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._failures = 0
        self._started = 0.0
        self._stderr = b""  # the end of it
        self._copying: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the process ended before it said anything, "" when it has spoken since."""
        self._has_spoken = False  # since its last start

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    async def start(self, sources: Sequence[SourceSpec] | None = None) -> None:
        """Start the process and tell it the sources; without any, those that `watch` was told last."""
        if sources is not None:
            self._set_watched(sources)
        await self._spawn()

    def expect(self, sources: Sequence[SourceSpec]) -> None:
        """Pass on nothing more of sources that are gone or changed; `watch` with the same sources follows.

        The process need not know of them yet: what it says of the old ones is dropped from this call on.
        """
        before = {spec.name: spec for spec in self._expected}
        self._expected = list(sources)
        self._generations = {
            spec.name: self._generations[spec.name] if before.get(spec.name) == spec else next(self._numbers)
            for spec in sources
        }

    async def watch(self, sources: Sequence[SourceSpec]) -> None:
        """Follow these sources from now on: new and changed ones begin with a full change, others go on.

        Before `start`, it is from the first snapshot on.
        """
        self._set_watched(sources)
        await self._tell(self._watched)

    async def surround(self, surroundings: ClusterCapabilities) -> None:
        """Render with what the cluster gives from now on; before `start`, from the first snapshot on."""
        if surroundings != self._surroundings:
            self._surroundings = surroundings
            await self._tell(Surround(surroundings))

    async def poll(self, source: str) -> None:
        """Have this source looked at now."""
        await self._tell(Poll(source))

    async def resend(self, source: str) -> None:
        """Have the full snapshot of this source sent again."""
        await self._tell(Resend(source))

    async def messages(self) -> AsyncIterator[FromProcess]:
        """Everything that the process says, over restarts, until `stop`. One consumer at a time."""
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
            # A message of an older generation was sent before the source's path, revision or variables changed.
            if not isinstance(message, Alive) and message.generation == self._generations.get(message.source):
                yield message

    async def stop(self) -> None:
        """End the process and everything that it started."""
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
            return  # the next start tells it all
        with contextlib.suppress(ConnectionError, RuntimeError):  # `messages` finds out and restarts
            process.stdin.write(protocol.encode(message))
            await process.stdin.drain()

    async def _spawn(self) -> None:
        self._started = asyncio.get_running_loop().time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named `git` where the daemon was started is not a module
            "-m",
            "driftwatch.desired",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
            limit=2**20,
        )
        if self._stopping.is_set():  # meanwhile
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
        """Pass on what the process writes to standard error, and remember the end of it."""
        self._stderr = b""
        while data := await stderr.read(_TAIL_BYTES):
            self._stderr = (self._stderr + data)[-_TAIL_BYTES:]
            with contextlib.suppress(OSError):
                os.write(_STDERR, data)

    async def _copied(self) -> None:
        """Wait for the end of what the process wrote, which what it started may hold open."""
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
    """The last line that the process wrote to standard error, without credentials; "" when it wrote none."""
    lines = redacted(stderr.decode("utf-8", "replace")).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return printable(last[-_LAST_WORDS:])


def _environment() -> dict[str, str]:
    """Our own environment; `-P` hides the folder we run in, which is where an uninstalled driftwatch is."""
    environment = dict(os.environ)
    root = Path(protocol.__file__).resolve().parents[2]
    if root == Path.cwd():
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), environment.get("PYTHONPATH", "")]))
    return environment


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the process, and the gits and sshs of its session that would otherwise live on."""
    # Not `process.kill`: it asks first whether the process has ended, and takes the answer from asyncio's own watcher.
    if process.returncode is None:
        kill_group(process.pid)  # it leads its session, and with it a group
    for pid in await asyncio.to_thread(_session, process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    await process.wait()


def _session(leader: int) -> list[int]:
    """Every process of a session; none where there is no /proc, or no file descriptor left to read it."""
    found = []
    with contextlib.suppress(OSError):
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.getsid(int(folder.name)) == leader:
                    found.append(int(folder.name))
    return found


class ChangeAssembler:
    """Holds what has come of each source's change until its last chunk."""

    def __init__(self) -> None:
        self._incoming: dict[str, Change] = {}

    def add(self, chunk: Change) -> Change | None:
        """Take a chunk in. Returns the whole change with the last one, before that None.

        An unfinished change (the process died, or could not send the rest) is dropped when another begins, and a chunk
        that continues no change is dropped as well: never do two changes merge.
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
