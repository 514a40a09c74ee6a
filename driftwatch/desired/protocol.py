"""The messages between the desired-state process and the daemon, sent over a pipe.

Each message is msgpack after a four-byte big-endian length. A snapshot change is cut into chunks, so decoding ten
thousand manifests never blocks the daemon's event loop for longer than one chunk.
"""

from collections.abc import Iterable
from typing import BinaryIO, Union

import msgspec

from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.source_spec import ClusterCapabilities, SourceSpec

CHUNK_MANIFESTS = 200
CHUNK_BYTES = 4 * 1024 * 1024
"""Size of the bodies at which a chunk is closed, even with few manifests."""

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
LENGTH_BYTES = 4
_DIGEST_MASK = 2**64 - 1
ALIVE_SECONDS = 5.0
"""Period at which the process sends `Alive`."""


class ProtocolError(Exception):
    """The other side sent an invalid message. The stream cannot be read any further."""


class Watch(msgspec.Struct, tag=True):
    """Daemon → process: the complete list of sources to follow.

    A source that is already followed with the same specification and generation continues and sends nothing again.
    A new or changed source begins with a full change.
    """

    sources: list[SourceSpec]
    generations: dict[str, int] = {}
    """A number for each source that changes with its specification. Each message about the source repeats it."""


class Surround(msgspec.Struct, tag=True):
    """Daemon → process: the cluster's inputs for rendering. Sent before the first `Watch`."""

    surroundings: ClusterCapabilities


class Poll(msgspec.Struct, tag=True):
    """Daemon → process: poll this source now, without waiting for its interval."""

    source: str


class Resend(msgspec.Struct, tag=True):
    """Daemon → process: send the full snapshot of this source again. The received objects do not match the digest."""

    source: str


class Change(msgspec.Struct, tag=True):
    """Process → daemon: a change of a source's snapshot. `full`: objects that are not named are gone.

    A change begins with the chunk that has `first` and ends with the chunk that has `last`. `sequence` numbers the
    changes of a process. The `invalid` and `passed_over` of all chunks together replace those of the last change. An
    object whose manifest became invalid is in neither `upserts` nor `removed`. `digest` is in the last chunk: the
    `set_digest` of all manifests that the source declares.
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
    """Process → daemon: Git answered at `time` (Unix seconds), and the source's revision is at `commit`.

    `fetch_seconds` is the duration of the fetch. `render_seconds` is the duration of the snapshot, 0 without a new one.
    """

    source: str
    commit: str
    time: float
    fetch_seconds: float = 0.0
    render_seconds: float = 0.0
    generation: int = 0


class FetchFailed(msgspec.Struct, tag=True):
    """Process → daemon: Git or the snapshot failed. The last good snapshot stays in force.

    `serving` is the commit that is served meanwhile, "" when there is none. `fatal`: waiting cannot help, because the
    URL is no repository, or the revision or path does not exist. `reason` is the error in one word, for the metric.
    `file` and `line` are the place of the error in the repository, "" and 0 when it is not known.
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
    """Process → daemon: a heartbeat. Without it the daemon takes the process for hung."""


ToProcess = Union[Watch, Surround, Poll, Resend]  # noqa: UP007  msgspec wants the union as a runtime value
FromProcess = Union[Change, Fetched, FetchFailed]  # noqa: UP007
Frame = Union[Change, Fetched, FetchFailed, Alive]  # noqa: UP007

_encoder = msgspec.msgpack.Encoder()
_to_process: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)
_from_process: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def set_digest(digests: Iterable[str]) -> str:
    """Digest of a set of manifests from their digests, in any order. Each digest covers the manifest's identity."""
    return f"{sum(int(digest, 16) for digest in digests) & _DIGEST_MASK:016x}"


def encode(message: ToProcess | Frame) -> bytes:
    """Frame a message. Raises `ProtocolError` when it is larger than `MAX_MESSAGE_BYTES`."""
    payload = _encoder.encode(message)
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(payload)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def frame_length(prefix: bytes) -> int:
    """Length of the message after `prefix`, in bytes. Raises `ProtocolError` when it is over the limit."""
    length = int.from_bytes(prefix, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes is announced, the limit is {MAX_MESSAGE_BYTES}")
    return length


def decode_to_process(payload: bytes) -> ToProcess:
    """Decode a message of the daemon. Raises `ProtocolError`."""
    try:
        return _to_process.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message to the desired-state process: {error}") from error


def decode_from_process(payload: bytes) -> Frame:
    """Decode a message of the process. Raises `ProtocolError`."""
    try:
        return _from_process.decode(payload)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a message from the desired-state process: {error}") from error


def read_payload(stream: BinaryIO) -> bytes | None:
    """Wait for one frame and read it. Returns None at a clean end. Raises `ProtocolError` when it is cut off."""
    prefix = stream.read(LENGTH_BYTES)
    if not prefix:
        return None
    payload = stream.read(frame_length(prefix)) if len(prefix) == LENGTH_BYTES else b""
    if len(prefix) < LENGTH_BYTES or len(payload) < frame_length(prefix):
        raise ProtocolError("the stream ended within a message")
    return payload
