"""What the desired-state process and the daemon say to each other over a pipe.

Each message is msgpack behind a four-byte big-endian length. A snapshot change is cut into chunks, so that decoding ten
thousand manifests never holds the daemon's event loop for longer than one chunk takes.
"""

from typing import Union

import msgspec

from driftwatch.model import InvalidManifest, Manifest, ManifestId, SourceSpec

CHUNK_MANIFESTS = 200
MAX_MESSAGE_BYTES = 256 * 1024 * 1024


class Watch(msgspec.Struct, tag=True):
    """Daemon → process: the sources to follow from now on, all of them."""

    sources: list[SourceSpec]


class Poll(msgspec.Struct, tag=True):
    """Daemon → process: look at this source now, without waiting for its interval."""

    source: str


class Change(msgspec.Struct, tag=True):
    """Process → daemon: how a source's snapshot changed; `full` says that what is not named is gone.

    The change is whole when the chunk with `last` has come. `invalid` is complete in the last chunk and replaces what
    was reported before; an object whose manifest became invalid is in neither `upserts` nor `removed`.
    """

    source: str
    commit: str
    full: bool
    last: bool
    upserts: list[Manifest] = []
    removed: list[ManifestId] = []
    invalid: list[InvalidManifest] = []
    passed_over: list[InvalidManifest] = []


class Fetched(msgspec.Struct, tag=True):
    """Process → daemon: Git answered at `time` (Unix seconds) and the source's revision is at `commit`."""

    source: str
    commit: str
    time: float


class FetchFailed(msgspec.Struct, tag=True):
    """Process → daemon: Git or the snapshot failed; the last good snapshot stays in force.

    `serving` is the commit on disk that serves meanwhile, "" when there is none. `fatal` says that waiting cannot help
    (the repository is none, the revision or path does not exist).
    """

    source: str
    error: str
    serving: str
    fatal: bool
    time: float


ToProcess = Union[Watch, Poll]  # noqa: UP007  msgspec wants the union as a runtime value
FromProcess = Union[Change, Fetched, FetchFailed]  # noqa: UP007
