"""What cannot be handed over is said, and sent again."""

import asyncio
import io

import msgspec
import pytest
from driftwatch.desired import protocol
from driftwatch.desired.client import DesiredStateClient
from driftwatch.desired.follower import Follower, FrameWriter
from driftwatch.desired.protocol import Change, Fetched, FetchFailed

from tests.support.desired_origin import Origin, config_map

SURROGATE = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"\\ud800"}}'


def said(stream: io.BytesIO) -> list[object]:
    stream.seek(0)
    messages = []
    while (payload := protocol.read_payload(stream)) is not None:
        messages.append(protocol.decode_from_process(payload))
    stream.seek(0, io.SEEK_END)
    return messages


def test_h08_a_lone_surrogate_is_an_invalid_manifest(tmp_path):
    """With its file; the rest of the commit comes into force."""
    origin = Origin(tmp_path / "origin")
    origin.commit({"a.yaml": config_map("a"), "bad.json": SURROGATE})
    stream = io.BytesIO()
    Follower(origin.spec(tmp_path), FrameWriter(stream))._round(10.0)
    change, fetched = said(stream)
    assert isinstance(change, Change)
    assert isinstance(fetched, Fetched)
    assert [(one.file, one.line) for one in change.invalid] == [("bad.json", 1)]
    assert [one.name for one in change.upserts] == ["a"]


def test_h08_what_was_not_delivered_is_sent_again(tmp_path, monkeypatch):
    """The source says that the commit is not in force, until a later look hands it over."""
    origin = Origin(tmp_path / "origin")
    origin.commit({"a.yaml": config_map("a")})
    stream = io.BytesIO()
    follower = Follower(origin.spec(tmp_path), FrameWriter(stream))
    follower._round(10.0)
    second = origin.commit({"b.yaml": config_map("b")})
    with monkeypatch.context() as context:
        context.setattr(protocol, "MAX_MESSAGE_BYTES", 300)
        with pytest.raises(protocol.ProtocolError):
            protocol.encode(Fetched("x" * 400, "", 0.0))
        context.setattr(Follower, "_fail", lambda _follower, error: failures.append(str(error)))
        failures: list[str] = []
        follower._round(10.0)
    assert len(failures) == 1
    assert "is not in force" in failures[0]
    follower._round(10.0)
    changes = [one for one in said(stream) if isinstance(one, Change)]
    assert (changes[-1].commit, [one.name for one in changes[-1].upserts]) == (second, ["b"])


async def test_h02_nothing_of_an_old_path_arrives_after_a_change_of_it(tmp_path):
    """Whatever was on its way when the path changed."""
    origin = Origin(tmp_path / "origin")
    origin.commit({f"old/{n}.yaml": config_map(f"old{n}") for n in range(300)})
    origin.commit({"new/a.yaml": config_map("new")})
    desired = DesiredStateClient()
    old = origin.spec(tmp_path, path="old", interval=0.2)
    await desired.start([old])
    messages = aiter(desired.messages())
    try:
        async with asyncio.timeout(60):
            assert await anext(messages)
            await desired.watch([msgspec.structs.replace(old, path="new")])
            while True:
                message = await anext(messages)
                if isinstance(message, Change):
                    assert [one.name for one in message.upserts] == ["new"]
                    assert message.first
                if isinstance(message, Fetched | FetchFailed):
                    break
    finally:
        await desired.stop()
        await messages.aclose()
