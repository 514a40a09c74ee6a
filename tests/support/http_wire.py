"""HTTP/1.1 as it is on the wire, as little of it as lies between the API server and its clients.

A proxy that is to cut a stream in the middle of a line has to hold the bytes itself: every HTTP library mends what it
passes on.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

LONGEST_HEAD = 2**20


@dataclass
class Head:
    """The first line of a request or an answer, and its headers."""

    start: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def get(self, name: str) -> str:
        """A header, "" where there is none."""
        return next((value for found, value in self.headers if found.lower() == name.lower()), "")

    def without(self, *names: str) -> "Head":
        """The same without some headers."""
        lower = {name.lower() for name in names}
        return Head(self.start, [(name, value) for name, value in self.headers if name.lower() not in lower])

    @property
    def code(self) -> int:
        """The status code of an answer."""
        return int(self.start.split(" ")[1])

    def encode(self) -> bytes:
        """The bytes of it, with the empty line at its end."""
        lines = [self.start, *(f"{name}: {value}" for name, value in self.headers), "", ""]
        return "\r\n".join(lines).encode("latin-1")


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None where the other side has closed the connection instead."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = raw.decode("latin-1").strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return Head(start, [(name, value.strip()) for name, _, value in pairs])


async def read_body(reader: asyncio.StreamReader, head: Head, *, answer: bool) -> bytes:
    """The whole body that follows a head."""
    if is_chunked(head):
        return b"".join([chunk async for chunk in read_chunks(reader)])
    if length := head.get("Content-Length"):
        return await reader.readexactly(int(length))
    if not answer or head.code in (204, 304):
        return b""
    return await reader.read()


def is_chunked(head: Head) -> bool:
    """Whether the body comes in pieces whose number nobody knows before."""
    return head.get("Transfer-Encoding").lower() == "chunked"


async def read_chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The pieces of a chunked body until its end."""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


async def read_lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a chunked body, each with its newline; what follows the last newline comes as it is."""
    rest = b""
    async for chunk in read_chunks(reader):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def chunk_of(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
