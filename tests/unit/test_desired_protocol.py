"""Messages over the pipe: framing, limits, and what the daemon's side may import."""

import io
import subprocess
import sys

import pytest
from driftwatch.desired import protocol
from driftwatch.desired.follower import chunks
from driftwatch.desired.snapshot import SnapshotChange
from driftwatch.model import InvalidManifest, Manifest, ManifestId
from driftwatch.source_spec import SourceSpec

SPEC = SourceSpec("s", "/repo", "main", "", 30.0, 60.0, "default", "/mirror")


def manifest(number, size=10):
    return Manifest("", "v1", "ConfigMap", "n", f"a{number}", b"x" * size, "d", "f.yaml", number)


@pytest.mark.parametrize("message", [protocol.Watch([SPEC]), protocol.Watch([]), protocol.Poll("s")])
def test_what_the_daemon_says_arrives(message):
    payload = protocol.read_payload(io.BytesIO(protocol.encode(message)))
    assert protocol.decode_to_process(payload) == message


@pytest.mark.parametrize(
    "message",
    [
        protocol.Change("s", "c", full=True, last=False, upserts=[manifest(1)]),
        protocol.Change(
            "s", "c", full=False, last=True,
            removed=[ManifestId("", "A", "n", "x")], invalid=[InvalidManifest("f", 1, "r")],
        ),
        protocol.Fetched("s", "c", 1.5),
        protocol.FetchFailed("s", "e", "", fatal=True, time=1.5),
        protocol.Alive(),
    ],
)  # fmt: skip
def test_what_the_process_says_arrives(message):
    payload = protocol.read_payload(io.BytesIO(protocol.encode(message)))
    assert protocol.decode_from_process(payload) == message


def test_a_message_over_the_limit_is_neither_sent_nor_read(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_MESSAGE_BYTES", 10)
    with pytest.raises(protocol.ProtocolError, match="limit"):
        protocol.encode(protocol.Poll("x" * 20))
    with pytest.raises(protocol.ProtocolError, match="limit"):
        protocol.frame_length(b"\x00\x00\x00\x0b")


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x00\x00\x05ab"])
def test_a_stream_that_ends_within_a_message_is_an_error(data):
    with pytest.raises(protocol.ProtocolError, match="ended within"):
        protocol.read_payload(io.BytesIO(data))


def test_the_end_of_the_stream_is_the_end():
    assert protocol.read_payload(io.BytesIO()) is None


@pytest.mark.parametrize("decode", [protocol.decode_to_process, protocol.decode_from_process])
def test_garbage_is_an_error(decode):
    with pytest.raises(protocol.ProtocolError, match="not a message"):
        decode(b"hello")


def test_a_large_change_is_cut_by_count_and_by_size():
    """Only the last chunk is marked, and it carries what replaces earlier reports."""
    invalid = [InvalidManifest("f", 1, "r")]
    change = SnapshotChange("c", True, [manifest(n) for n in range(450)], [], invalid)  # noqa: FBT003
    parts = chunks("s", change)
    assert [len(part.upserts) for part in parts] == [200, 200, 50]
    assert [part.last for part in parts] == [False, False, True]
    assert [part.invalid for part in parts] == [[], [], invalid]
    heavy = SnapshotChange("c", True, [manifest(n, protocol.CHUNK_BYTES // 2) for n in range(10)])  # noqa: FBT003
    assert max(len(part.upserts) for part in chunks("s", heavy)) <= 3


def test_an_empty_change_is_one_message():
    (only,) = chunks("s", SnapshotChange("c", full=False))
    assert (only.last, only.upserts) == (True, [])


def test_the_daemons_side_loads_neither_git_nor_yaml():
    """They cost the daemon memory and start-up time, and block its loop."""
    code = (
        "import sys, driftwatch.desired.client; print({'git', 'yaml'} & {name.split('.')[0] for name in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
