"""What cannot be handed over is said, and sent again."""

import asyncio
import io

import msgspec
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


class Refusing(FrameWriter):
    """A pipe that breaks at the second chunk of a change, while it is told to."""

    refuses = False

    def send(self, message: protocol.Frame) -> None:
        if self.refuses and isinstance(message, Change) and not message.first:
            raise protocol.ProtocolError("too large")
        super().send(message)


def test_h08_what_was_not_delivered_is_sent_again(tmp_path, monkeypatch):
    """The source says, by a reason of its own, that the commit is not in force, until a later look hands it over."""
    monkeypatch.setattr(protocol, "CHUNK_MANIFESTS", 1)
    origin = Origin(tmp_path / "origin")
    first = origin.commit({"a.yaml": config_map("a")})
    stream = io.BytesIO()
    pipe = Refusing(stream)
    follower = Follower(origin.spec(tmp_path), pipe)
    follower._round(10.0)
    second = origin.commit({"b.yaml": config_map("b"), "c.yaml": config_map("c")})
    pipe.refuses = True
    follower._round(10.0)
    failed = said(stream)[-1]
    assert isinstance(failed, FetchFailed)
    assert (failed.reason, failed.serving, failed.fatal) == ("delivery", first, False)
    assert f"commit {second[:12]} is not in force" in failed.error
    pipe.refuses = False
    before = len(said(stream))
    follower._round(10.0)
    *chunks, fetched = said(stream)[before:]
    assert [(one.commit, one.first, one.last) for one in chunks] == [(second, True, False), (second, False, True)]
    assert [manifest.name for one in chunks for manifest in one.upserts] == ["b", "c"]
    assert isinstance(fetched, Fetched)


def test_h08_a_snapshot_that_is_asked_for_again_is_sent_whole(tmp_path):
    """Also when the first attempt to send it again fails, and once only."""
    origin = Origin(tmp_path / "origin")
    commit = origin.commit({"a.yaml": config_map("a"), "b.yaml": config_map("b")})
    stream = io.BytesIO()
    follower = Follower(origin.spec(tmp_path), FrameWriter(stream))
    follower._round(10.0)
    follower.resend()
    away = origin.folder.with_name("away")
    origin.folder.rename(away)
    follower._round(10.0)
    away.rename(origin.folder)
    before = len(said(stream))
    follower._round(10.0)
    follower._round(10.0)
    change, *others = said(stream)[before:]
    assert isinstance(change, Change)
    assert (change.commit, change.full, [one.name for one in change.upserts]) == (commit, True, ["a", "b"])
    assert change.digest == protocol.set_digest(one.digest for one in change.upserts)
    assert not any(isinstance(one, Change) for one in others)


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
