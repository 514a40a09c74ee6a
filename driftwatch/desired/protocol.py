"""What the desired-state process and the daemon say to each other over a pipe.

Each message is msgpack behind a four-byte big-endian length. A snapshot change is cut into chunks, so that
decoding ten thousand manifests never holds the daemon's event loop for longer than one chunk takes.
"""

from collections.abc import Iterable
from typing import BinaryIO, Union

import msgspec

from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

CHUNK_MANIFESTS = 200
CHUNK_BYTES = 4 * 1024 * 1024
"""A chunk is closed when its bodies reach this size, however few manifests it has."""

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
LENGTH_BYTES = 4
_DIGEST_MASK = 2**64 - 1
ALIVE_SECONDS = 5.0
"""How often the process says `Alive`, whatever else it does."""


class ProtocolError(Exception):
    """The other side sent what is no message; the stream cannot be read any further."""


class Watch(msgspec.Struct, tag=True):
    """Daemon → process: the sources to follow from now on, all of them.

    A source that is already followed with the same specification and generation goes on and sends nothing again.
    A new or changed one begins with a full change.
    """

    sources: list[SourceSpec]
    generations: dict[str, int] = {}
    """By source: a number that changes with its specification. Each message about the source repeats it."""


class Surround(msgspec.Struct, tag=True):
    """Daemon → process: what rendering takes from the cluster, from now on. Comes before the first `Watch`."""

    surroundings: ClusterCapabilities


class Poll(msgspec.Struct, tag=True):
    """Daemon → process: look at this source now, without waiting for its interval."""

    source: str


class Resend(msgspec.Struct, tag=True):
    """Daemon → process: send the full snapshot of this source again: what arrived is not what was declared."""

    source: str


class Change(msgspec.Struct, tag=True):
    """Process → daemon: how a source's snapshot changed; `full` says that what is not named is gone.

    A change begins with the chunk with `first` and is whole when the chunk with `last` has come; `sequence` numbers
    the changes of a process. The `invalid` and `passed_over` of all chunks together replace what was reported before;
    an object whose manifest became invalid is in neither `upserts` nor `removed`. `digest`, in the last chunk, is the
    `set_digest` of everything that the source declares.
    """

    source: str
    commit: str
    full: bool
    last: bool
    upserts: list[Manifest] = []
    removed: list[ManifestId] = []
    invalid: list[InvalidManifest] = []
    passed_over: list[InvalidManifest] = []
    first: bool = True
    sequence: int = 0
    digest: str = ""
    generation: int = 0


class Fetched(msgspec.Struct, tag=True):
    """Process → daemon: Git answered at `time` (Unix seconds) and the source's revision is at `commit`.

    `fetch_seconds` is how long it took to answer, `render_seconds` how long the snapshot took, 0 where none was made.
    """

    source: str
    commit: str
    time: float
    fetch_seconds: float = 0.0
    render_seconds: float = 0.0
    generation: int = 0


class FetchFailed(msgspec.Struct, tag=True):
    """Process → daemon: Git or the snapshot failed; the last good snapshot stays in force.

    `serving` is the commit on disk that serves meanwhile, "" when there is none. `fatal` says that waiting
    cannot help (the repository is none, the revision or path does not exist). `reason` is the error in one word, for
    the metric. `file` and `line` are where in the repository it has to be mended, "" and 0 where that is not known.
    """

    source: str
    error: str
    serving: str
    fatal: bool
    time: float
    reason: str = "other"
    file: str = ""
    line: int = 0
    generation: int = 0


class Alive(msgspec.Struct, tag=True):
    """Process → daemon: the process runs; a hung one is known by its silence."""


ToProcess = Union[Watch, Surround, Poll, Resend]  # noqa: UP007  msgspec wants the union as a runtime value
FromProcess = Union[Change, Fetched, FetchFailed]  # noqa: UP007
Frame = Union[Change, Fetched, FetchFailed, Alive]  # noqa: UP007

_encoder = msgspec.msgpack.Encoder()
_to_process: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)
_from_process: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def set_digest(digests: Iterable[str]) -> str:
    """Digest of a set of manifests by their own digests, in any order; these cover the identity of each."""
    return f"{sum(int(digest, 16) for digest in digests) & _DIGEST_MASK:016x}"


def encode(message: ToProcess | Frame) -> bytes:
    """Frame a message. Raises `ProtocolError` when it is larger than `MAX_MESSAGE_BYTES`."""
    payload = _encoder.encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(payload)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def frame_length(prefix: bytes) -> int:
    """Length of the message that follows `prefix`. Raises `ProtocolError` when it is over the limit."""
    length = int.from_bytes(prefix, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes is announced, the limit is {MAX_MESSAGE_BYTES}")
    return length


def decode_to_process(payload: bytes) -> ToProcess:
    """Read what the daemon sent. Raises `ProtocolError`."""
    try:
        return _to_process.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message to the desired-state process: {error}") from error


def decode_from_process(payload: bytes) -> Frame:
    """Read what the process sent. Raises `ProtocolError`."""
    try:
        return _from_process.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message from the desired-state process: {error}") from error


def read_payload(stream: BinaryIO) -> bytes | None:
    """Read one frame, waiting for it; None at a clean end. Raises `ProtocolError` when it is cut off."""
    prefix = stream.read(LENGTH_BYTES)
    if not prefix:
        return None
    payload = stream.read(frame_length(prefix)) if len(prefix) == LENGTH_BYTES else b""
    if len(prefix) < LENGTH_BYTES or len(payload) < frame_length(prefix):
        raise ProtocolError("the stream ended within a message")
    return payload
