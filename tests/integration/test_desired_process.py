"""The process beside the daemon: what it says, when, and that nothing keeps the two apart for long."""

import asyncio
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from driftwatch.desired import client, process
from driftwatch.desired.client import DesiredStateClient
from driftwatch.desired.protocol import Change, Fetched, FetchFailed

from tests.support.desired_origin import Origin, config_map


@pytest.fixture
def origin(tmp_path):
    origin = Origin(tmp_path / "origin")
    origin.commit({"a.yaml": config_map("a"), "bad.yaml": "kind: ConfigMap\n"})
    return origin


class Session:
    """The daemon's side, reading one message after the other."""

    def __init__(self, desired):
        self.desired = desired
        self._messages = aiter(desired.messages())

    async def next(self, kind=object, source=None):
        """The next message of this kind, within ten seconds."""
        async with asyncio.timeout(10):
            async for message in self._messages:
                if isinstance(message, kind) and source in (None, message.source):
                    return message
        raise AssertionError("the messages ended")


@asynccontextmanager
async def running(*specs, **options):
    desired = DesiredStateClient(**options)
    await desired.start(specs)
    session = Session(desired)
    try:
        yield session
    finally:
        await desired.stop()
        await session._messages.aclose()


async def test_a_source_begins_with_a_full_change(origin, tmp_path):
    """Then Git's answer is told, and it is told again after every look."""
    head = origin.git("rev-parse", "HEAD")
    async with running(origin.spec(tmp_path, interval=0.2)) as session:
        change = await session.next()
        assert isinstance(change, Change)
        assert (change.source, change.commit, change.full, change.last) == ("shop", head, True, True)
        assert [manifest.name for manifest in change.upserts] == ["a"]
        assert [(one.file, one.line) for one in change.invalid] == [("bad.yaml", 1)]
        for _ in range(2):
            fetched = await session.next()
            assert isinstance(fetched, Fetched)
            assert fetched.commit == head
            assert abs(fetched.time - time.time()) < 5


async def test_a_commit_is_found_by_the_interval_and_by_a_poll(origin, tmp_path):
    """A poll does not wait for the interval; a commit without consequence is an empty change."""
    async with running(origin.spec(tmp_path, interval=3600.0)) as session:
        await session.next(Fetched)
        second = origin.commit({"b.yaml": config_map("b")})
        await session.desired.poll("shop")
        change = await session.next()
        assert (change.commit, change.full, [one.name for one in change.upserts]) == (second, False, ["b"])
        await session.next(Fetched)
        third = origin.commit({"readme.md": "x"})
        await session.desired.poll("shop")
        change = await session.next()
        assert (change.commit, change.upserts, change.removed, change.last) == (third, [], [], True)
        assert len(change.invalid) == 1


async def test_d08_without_git_the_mirror_serves(origin, tmp_path):
    """After a start without network: the last good commit, then the news that Git is away."""
    spec = origin.spec(tmp_path)
    async with running(spec) as session:
        served = await session.next(Change)
        await session.next(Fetched)
    shutil.rmtree(origin.folder)
    async with running(spec) as session:
        change = await session.next()
        assert isinstance(change, Change)
        assert (change.commit, change.full, change.upserts) == (served.commit, True, served.upserts)
        failed = await session.next()
        assert isinstance(failed, FetchFailed)
        assert (failed.serving, failed.fatal) == (served.commit, True)


@pytest.mark.alone
async def test_d08_a_hung_git_at_start_does_not_keep_the_mirror_from_serving(origin, tmp_path, monkeypatch):
    """Git has a few seconds to answer; the failure is told when the source's own timeout is over."""
    ssh = _script(tmp_path / "ssh", 'if [ -e "$0.hangs" ]; then sleep 300; fi; for last; do :; done; eval "$last"')
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    spec = origin.spec(tmp_path, repository=f"ssh://example.com{origin.folder}", timeout=4.0)
    async with running(spec) as session:
        commit = (await session.next(Fetched)).commit
    (tmp_path / "ssh.hangs").touch()
    async with running(spec) as session:
        started = time.monotonic()
        change = await session.next()
        assert (type(change), change.commit) == (Change, commit)
        assert time.monotonic() - started < 3.5
        pid = session.desired.pid
    assert await _none_left(pid)


async def test_with_nothing_to_serve_the_failure_says_so(origin, tmp_path):
    """No mirror, no repository."""
    async with running(origin.spec(tmp_path, repository=str(tmp_path / "nowhere"))) as session:
        failed = await session.next()
        assert isinstance(failed, FetchFailed)
        assert (failed.serving, failed.fatal) == ("", True)
        assert failed.error.startswith(f"source shop: {tmp_path / 'nowhere'} at main: ")


async def test_d05_a_commit_without_the_path_leaves_the_last_good_snapshot(origin, tmp_path):
    """Also over a restart, until a commit has the path again."""
    good = origin.commit({"app/c.yaml": config_map("c")})
    spec = origin.spec(tmp_path, path="app", interval=3600.0)
    async with running(spec) as session:
        await session.next(Fetched)
        origin.commit({"app/c.yaml": None})
        await session.desired.poll("shop")
        failed = await session.next()
        assert isinstance(failed, FetchFailed)
        assert (failed.serving, failed.fatal, "no folder 'app'" in failed.error) == (good, True, True)
    async with running(spec) as session:
        change = await session.next()
        assert (type(change), change.commit, len(change.upserts)) == (Change, good, 1)
        assert (await session.next(FetchFailed)).serving == good
        origin.commit({"app/d.yaml": config_map("d")})
        await session.desired.poll("shop")
        change = await session.next(Change)
        assert ([one.name for one in change.upserts], [one.name for one in change.removed]) == (["d"], ["c"])


async def test_a_source_that_declares_nothing_any_more_says_so(origin, tmp_path):
    """Whether that is meant is the daemon's to judge."""
    async with running(origin.spec(tmp_path, interval=3600.0)) as session:
        await session.next(Fetched)
        origin.commit({"a.yaml": None, "bad.yaml": None})
        await session.desired.poll("shop")
        change = await session.next()
        assert ([one.name for one in change.removed], change.upserts, change.last) == (["a"], [], True)


async def test_a_hung_source_delays_no_other(origin, tmp_path, monkeypatch):
    """Each has a thread of its own."""
    monkeypatch.setenv("GIT_SSH_COMMAND", str(_script(tmp_path / "ssh", "sleep 300")))
    hung = origin.spec(tmp_path, name="hung", repository="ssh://git@example.com/x", mirror=str(tmp_path / "hung"))
    async with running(hung, origin.spec(tmp_path)) as session:
        assert (await session.next()).source == "shop"
        pid = session.desired.pid
    assert await _none_left(pid)


async def test_f05_a_killed_process_is_started_again(origin, tmp_path, capsys):
    """Its sources begin with a full change, and a commit made meanwhile is in it."""
    async with running(origin.spec(tmp_path, interval=3600.0)) as session:
        await session.next(Fetched)
        origin.commit({"b.yaml": config_map("b")})
        killed = session.desired.pid
        os.kill(killed, signal.SIGKILL)
        change = await session.next()
        assert isinstance(change, Change)
        assert (change.full, sorted(one.name for one in change.upserts)) == (True, ["a", "b"])
        assert session.desired.pid != killed
        assert session.desired.restarts == 1
    assert "started again" in capsys.readouterr().out


async def test_f05_a_hung_process_is_started_again(origin, tmp_path, capsys):
    """It is known by its silence."""
    async with running(origin.spec(tmp_path, interval=3600.0), silence=2.0) as session:
        await session.next(Fetched)
        os.kill(session.desired.pid, signal.SIGSTOP)
        assert (await session.next(Change)).full
    assert "silent for 2 s" in capsys.readouterr().out


async def test_sources_come_and_go_while_it_runs(origin, tmp_path):
    """One that did not change says nothing anew; a changed one begins with a full change."""
    shop = origin.spec(tmp_path, interval=3600.0)
    other = origin.spec(tmp_path, interval=3600.0, name="other", mirror=str(tmp_path / "other"))
    origin.git("branch", "next")
    async with running(shop) as session:
        await session.next(Fetched)
        await session.desired.watch([shop, other])
        assert (await session.next()).source == "other"
        await session.next(Fetched, "other")
        changed = origin.spec(tmp_path, interval=3600.0, revision="next")
        await session.desired.watch([changed])
        message = await session.next()
        assert (message.source, message.full) == ("shop", True)
        await session.next(Fetched, "shop")
        await session.desired.poll("other")
        await session.desired.poll("shop")
        assert (await session.next()).source == "shop"


_DAEMON = """
import asyncio, sys
import msgspec
from driftwatch.desired.client import DesiredStateClient
from driftwatch.source_spec import SourceSpec

async def main():
    desired = DesiredStateClient()
    await desired.start([msgspec.json.decode(sys.argv[1], type=SourceSpec)])
    print(desired.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_it_ends_with_the_daemon(origin, tmp_path, monkeypatch):
    """When the pipe closes, because the daemon was killed, so does the process, and a git that hangs."""
    monkeypatch.setenv("GIT_SSH_COMMAND", str(_script(tmp_path / "ssh", "sleep 300")))
    spec = origin.spec(tmp_path, repository="ssh://git@example.com/x")
    command = [sys.executable, "-c", _DAEMON, msgspec.json.encode(spec).decode()]
    daemon = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    pid = int(await daemon.stdout.readline())
    for _ in range(200):
        if len(_running(pid)) > 2:  # the process, git and ssh
            break
        await asyncio.sleep(0.05)
    daemon.kill()
    await daemon.wait()
    assert await _none_left(pid)


def test_pauses_grow_while_it_fails_and_never_beyond_five_minutes_or_the_interval(origin, tmp_path):
    """Doubling from the interval, with jitter."""
    follower = process.Follower(origin.spec(tmp_path, interval=30.0), process.FrameWriter(io.BytesIO()))
    assert follower._pause() == 30.0
    for failures, longest in ((1, 30), (2, 60), (4, 240), (5, 300), (500, 300)):
        follower._failures = failures
        assert longest * 0.75 <= follower._pause() <= longest
    follower.spec = origin.spec(tmp_path, interval=900.0)
    assert 600 <= follower._pause() <= 900


def _running(leader):
    """The living processes of a session; a container's first process may not collect the dead ones."""
    found = []
    for pid in client._session(leader):
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


async def _none_left(leader):
    for _ in range(100):
        if not _running(leader):
            return True
        await asyncio.sleep(0.05)
    return False


def _script(file, text):
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file
