"""What can go wrong between the API server and whoever asks it, as `FaultProxy` makes it happen.

A fault has a hook for each moment at which it may do something: a request has come, its whole answer has come, a watch
is open, a line of a watch has come. Only the hooks that a fault has of its own count as its hits.
"""
# ruff: noqa: ARG002  a fault seldom needs all that its moment knows

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.api_request import Request
from tests.support.http_wire import LAST_CHUNK, Head, chunk_of

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Severed(Exception):
    """The connection is to be reset, now."""


@dataclass
class Answer:
    """A whole answer; `cut_at` is where the connection is reset instead of sending the rest."""

    head: Head
    body: bytes
    cut_at: int | None = None


def status(code: int, message: str = "made by the fault proxy") -> dict[str, object]:
    """A Status of failure, as the API server would write it."""
    reason = _REASONS.get(code, "")
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": message, "reason": reason, "code": code,
    }  # fmt: skip


class Stream:
    """A watch that is open: what is written to its client."""

    def __init__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.request = request
        self.dead = False
        self.ended = asyncio.Event()
        self._writer = writer

    def send(self, line: bytes) -> None:
        """Pass a line, or part of one."""
        self.send_raw(chunk_of(line))

    def send_raw(self, data: bytes) -> None:
        """Write bytes that need be no part of a chunked body."""
        if not self.ended.is_set() and not self.dead:
            self._writer.write(data)

    def end(self) -> None:
        """End the watch as the API server does."""
        self.send_raw(LAST_CHUNK)
        self.ended.set()

    def sever(self) -> None:
        """Reset the connection."""
        self.ended.set()
        reset(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Have the connection end by RST, whatever was to be sent."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Injection:
    """A fault that is switched on, for the next `times` occasions or until it is lifted. `hits` counts them."""

    def __init__(self, fault: "Fault", where: Callable[[Request], bool], times: int | None) -> None:
        self.fault = fault
        self.where = where
        self.left = times
        self.hits = 0

    def takes(self, hook: str, request: Request, line: bytes = b"") -> bool:
        """Whether the fault is for this moment of this request; counts it."""
        if self.left == 0 or not self.where(request) or getattr(type(self.fault), hook) is getattr(Fault, hook):
            return False
        if line and not self.fault.concerns(line):
            return False
        self.hits += 1
        if self.left is not None:
            self.left -= 1
        return True


class Fault:
    """Nothing goes wrong. A fault is switched on once; `lifted` is set when it is switched off."""

    def __init__(self) -> None:
        self.lifted = asyncio.Event()

    def concerns(self, line: bytes) -> bool:
        """Whether `on_line` is for this line."""
        return True

    async def on_request(self, request: Request) -> Answer | None:
        """A request has come: an answer here is sent instead of asking the API server."""

    async def on_answer(self, answer: Answer) -> None:
        """The whole answer to something that is no watch has come: it may be changed."""

    async def on_open(self, stream: Stream) -> None:
        """A watch has been opened, or was open already when the fault was switched on."""

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """A line of a watch has come. Returns what is passed on."""
        return [line]


# --- Requests and their answers ---


class Refuse(Fault):
    """The API server answers with this code; 429 and 503 may say when to come again, in seconds."""

    def __init__(self, code: int, retry_after: int | None = None) -> None:
        super().__init__()
        self._code = code
        self._retry_after = retry_after

    async def on_request(self, request: Request) -> Answer | None:
        """Answer without asking."""
        body = json.dumps(status(self._code)).encode()
        headers = [("Content-Type", "application/json")]
        if self._retry_after is not None:
            headers.append(("Retry-After", str(self._retry_after)))
        return Answer(Head(f"HTTP/1.1 {self._code} {_REASONS.get(self._code, 'Failure')}", headers), body)


class LoseRequest(Fault):
    """The connection is reset before the API server has heard of the request."""

    async def on_request(self, request: Request) -> Answer | None:
        """Reset the connection."""
        raise Severed


class LoseAnswer(Fault):
    """The API server does what is asked, and the connection is reset before the answer is passed on."""

    async def on_answer(self, answer: Answer) -> None:
        """Reset the connection."""
        raise Severed


class CutAnswer(Fault):
    """The connection is reset in the middle of an answer, such as a page of a LIST."""

    async def on_answer(self, answer: Answer) -> None:
        """Stop at half."""
        answer.cut_at = len(answer.body) // 2


class TruncateAnswer(Fault):
    """Half of an answer arrives as if it were the whole, as from a broken cache on the way."""

    async def on_answer(self, answer: Answer) -> None:
        """Leave half of it out."""
        answer.body = answer.body[: len(answer.body) // 2]


class Latency(Fault):
    """Everything takes this much longer, in seconds: requests, and the lines of watches."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def on_request(self, request: Request) -> Answer | None:
        """Wait."""
        await asyncio.sleep(self._seconds)

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Wait."""
        await asyncio.sleep(self._seconds)
        return [line]


class Stall(Fault):
    """Nothing is passed on, and nothing is closed. What was held goes on when the fault is lifted.

    With `dead` watches that were open stay silent for ever: something on the way has forgotten them.
    """

    def __init__(self, *, dead: bool = False) -> None:
        super().__init__()
        self._dead = dead

    async def on_request(self, request: Request) -> Answer | None:
        """Hold it."""
        await self.lifted.wait()

    async def on_open(self, stream: Stream) -> None:
        """Have it say no more, if it is to be dead."""
        stream.dead = self._dead

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Hold it."""
        await self.lifted.wait()
        return [line]


# --- Watches ---


class Cut(Fault):
    """Watches are reset: those that are open at once, others as soon as they are."""

    async def on_open(self, stream: Stream) -> None:
        """Reset it."""
        stream.sever()


class End(Fault):
    """Watches end cleanly: those that are open at once, others as soon as they are."""

    async def on_open(self, stream: Stream) -> None:
        """End it."""
        stream.end()


class ErrorEvent(Fault):
    """Watches get an ERROR event and end, at once; with 410 their resourceVersion is too old."""

    def __init__(self, code: int = 410) -> None:
        super().__init__()
        self._code = code

    async def on_open(self, stream: Stream) -> None:
        """Say it, and end."""
        stream.send(json.dumps({"type": "ERROR", "object": status(self._code)}).encode() + b"\n")
        stream.end()


class Garbage(Fault):
    """Bytes come in between that are no event, at once; unless `framed` they are no HTTP either."""

    def __init__(self, data: bytes = b'\x00\xff}{"type":\n', *, framed: bool = True) -> None:
        super().__init__()
        self._data = data
        self._framed = framed

    async def on_open(self, stream: Stream) -> None:
        """Write them."""
        if self._framed:
            stream.send(self._data)
        else:
            stream.send_raw(self._data)


class HalfLine(Fault):
    """Of a line half is passed on; then the watch is reset, or ends as if all were well."""

    def __init__(self, *, clean: bool = False) -> None:
        super().__init__()
        self._clean = clean

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Pass half of it, and let that arrive."""
        stream.send(line[: len(line) // 2])
        if self._clean:
            stream.end()
        else:
            await asyncio.sleep(0.05)  # a reset overtakes what is still to be sent
            stream.sever()
        return []


class CutAfter(Fault):
    """Watches are reset when so many of their lines have passed."""

    def __init__(self, lines: int) -> None:
        super().__init__()
        self._lines = lines
        self._passed: dict[int, int] = {}

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Pass it on, or reset the watch in its place."""
        passed = self._passed[id(stream)] = self._passed.get(id(stream), 0) + 1
        if passed <= self._lines:
            return [line]
        await asyncio.sleep(0.05)  # a reset overtakes what is still to be sent
        stream.sever()
        return []


class DropEvents(Fault):
    """Events get lost, all but bookmarks; or those that `lost` says."""

    def __init__(self, lost: Callable[[bytes], bool] = lambda line: not is_bookmark(line)) -> None:
        super().__init__()
        self._lost = lost

    def concerns(self, line: bytes) -> bool:
        """Whether it gets lost."""
        return self._lost(line)

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Pass nothing on."""
        return []


class Duplicate(Fault):
    """Every event comes twice: at once, or again so many seconds `later`. `pending` are those yet to come again."""

    def __init__(self, later: float = 0.0) -> None:
        super().__init__()
        self._later = later
        self.pending = 0

    def concerns(self, line: bytes) -> bool:
        """Not a bookmark."""
        return not is_bookmark(line)

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Twice."""
        if not self._later:
            return [line, line]
        self.pending += 1
        asyncio.get_running_loop().call_later(self._later, self._again, stream, line)
        return [line]

    def _again(self, stream: Stream, line: bytes) -> None:
        stream.send(line)
        self.pending -= 1


class Reorder(Fault):
    """Events of a watch that come close together come in pairs, the later one first."""

    def __init__(self, patience: float = 0.3) -> None:
        super().__init__()
        self._patience = patience
        self._held: dict[Stream, bytes] = {}

    def concerns(self, line: bytes) -> bool:
        """Not a bookmark."""
        return not is_bookmark(line)

    async def on_line(self, stream: Stream, line: bytes) -> list[bytes]:
        """Hold it for a while, or pass it on before the one that is held."""
        held = self._held.pop(stream, None)
        if held is not None:
            return [line, held]
        self._held[stream] = line
        asyncio.get_running_loop().call_later(self._patience, self._release, stream, line)
        return []

    def _release(self, stream: Stream, line: bytes) -> None:
        if self._held.get(stream) is line:
            stream.send(self._held.pop(stream))


def is_bookmark(line: bytes) -> bool:
    """Whether a line of a watch is a bookmark."""
    return b'"type":"BOOKMARK"' in line[:40]
