"""The lines of a watch, and what only they say."""

from collections.abc import AsyncIterator

import msgspec


class _Annotations(msgspec.Struct, frozen=True, gc=False):
    end: str = msgspec.field(name="k8s.io/initial-events-end", default="")


class _Metadata(msgspec.Struct, frozen=True, gc=False):
    annotations: _Annotations = _Annotations()


class _Object(msgspec.Struct, frozen=True, gc=False):
    metadata: _Metadata = _Metadata()


class _Bookmark(msgspec.Struct, frozen=True, gc=False):
    object: _Object = _Object()


_decode_bookmark = msgspec.json.Decoder(_Bookmark).decode


def ends_initial_events(bookmark: bytes) -> bool:
    """Whether this bookmark says that all that there is has been sent (KEP-3157)."""
    return _decode_bookmark(bookmark).object.metadata.annotations.end == "true"


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cut a stream into lines; what follows the last newline when it ends is dropped, the next watch sends it again."""
    rest: list[bytes] = []
    async for chunk in chunks:
        if b"\n" not in chunk:
            rest.append(chunk)
            continue
        first, *middle, last = chunk.split(b"\n")
        yield b"".join((*rest, first)) if rest else first
        for line in middle:
            yield line
        rest = [last] if last else []
