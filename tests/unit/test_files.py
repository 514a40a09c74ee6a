"""State files: whole or as before, whatever runs at the same time, and whatever a crash has left."""

import asyncio
import os
import stat
import threading
import time
from pathlib import Path

import pytest
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.files import write_private
from driftwatch.model import ObjectKey
from driftwatch.state import saved_file
from driftwatch.state.applied import AppliedState

from tests.support.states import states_of


def test_h10_two_writers_of_one_file_never_show_a_part_of_it(tmp_path):
    """A reader sees one whole content or the other."""
    file = tmp_path / "state"
    contents = [bytes([letter]) * 4_000_000 for letter in b"ab"]
    write_private(file, contents[0])
    failures = []

    def write(content):
        try:
            for _ in range(15):
                write_private(file, content)
        except OSError as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(file.read_bytes())
    assert not failures
    assert seen <= set(contents)
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_h10_what_a_crash_left_beside_a_file_is_removed_and_what_another_writes_is_not(tmp_path):
    """The name of a temporary file says whose it is."""
    file = tmp_path / "state"
    dead = [tmp_path / ".state.99999999", tmp_path / ".state.99999999.abc", tmp_path / f".state.{os.getpid()}.abc"]
    others = [tmp_path / f".state.{os.getppid()}.abc", tmp_path / ".state.backup", tmp_path / ".state2.99999999"]
    for each in (*dead, *others):
        each.touch()
    write_private(file, b"new")
    assert not [each for each in dead if each.exists()]
    assert all(each.exists() for each in others)


def test_h10_a_file_is_on_disk_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    """A power failure leaves the old content or the new: the file is synchronised, then the folder."""
    steps = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_replace(self, target):
        steps.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_private(tmp_path / "state", b"new")
    assert steps == ["file", "replace", "folder"]


def test_h10_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    """As on a full disk."""
    file = tmp_path / "state"
    write_private(file, b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(file, b"new")
    assert file.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


async def test_h10_the_save_at_the_stop_waits_for_one_that_still_writes(tmp_path, monkeypatch):
    """The last content wins, although the task that began the first save was cancelled."""
    detector = Detector(states_of(), time.monotonic, Managers())
    saved = AppliedState(detector)
    saved.keep_in(tmp_path / "in-force.msgpack")
    detector.states.of(ObjectKey("", "ConfigMap", "shop", "first")).last_applied = "abc"
    go_on, order = threading.Event(), []
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def slow(path, content):
        first = not order
        order.append("begin")
        loop.call_soon_threadsafe(begun.set)
        if first:
            assert go_on.wait(10)
        write_private(path, content)
        order.append("end")

    monkeypatch.setattr(saved_file, "write_private", slow)
    periodic = asyncio.ensure_future(saved.save())
    await begun.wait()
    periodic.cancel()
    await asyncio.gather(periodic, return_exceptions=True)
    detector.states.of(ObjectKey("", "ConfigMap", "shop", "last")).last_applied = "abc"
    detector.states.changes += 1
    last = asyncio.ensure_future(saved.save())
    for _ in range(100):
        await asyncio.sleep(0)
    go_on.set()
    await last
    assert order == ["begin", "end", "begin", "end"]
    assert {key.name for key in saved.load()} == {"first", "last"}
