"""What stands on disk of each object, and that the file of an earlier version is read as well."""

import asyncio
import time

import msgspec
import pytest
from driftwatch.drift.detector import Detector
from driftwatch.drift.managers import Managers
from driftwatch.drift.snooze import SnoozeRequest
from driftwatch.files import write_private
from driftwatch.model import ObjectKey
from driftwatch.state import saved_file
from driftwatch.state.applied import AppliedState, Remembered

from tests.support.states import states_of

KEY = ObjectKey("apps", "Deployment", "shop", "web")
OTHER = KEY._replace(name="other")
WISH = SnoozeRequest("2030-01-01T00:00:00Z", 1_780_315_200.0)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "in-force.msgpack"


@pytest.fixture
def detector():
    made = Detector(states_of(), time.monotonic, Managers())
    for key in (KEY, OTHER):
        record = made.states.of(key)
        record.last_applied, record.stamp = "abc", "2026-06-01T12:00:00Z"
    return made


@pytest.fixture
def last_applied(file, detector):
    made = AppliedState(detector)
    made.keep_in(file)
    return made


async def test_b07_since_when_an_object_is_snoozed_is_remembered(last_applied, detector):
    """Of the one that is; the other has no wish."""
    detector.states.of(KEY).snooze = WISH
    await last_applied.save()

    found = last_applied.load()
    assert found[KEY] == Remembered("abc", "2026-06-01T12:00:00Z", 0, WISH)
    assert found[OTHER].snooze is None


def test_a_file_that_knows_nothing_of_snoozes_is_read(file, last_applied):
    """As a daemon before this one has left it: what was in force counts on."""
    file.write_bytes(msgspec.msgpack.encode([(*KEY, "abc", "2026-06-01T12:00:00Z", 7)]))

    assert last_applied.load() == {KEY: Remembered("abc", "2026-06-01T12:00:00Z", 7)}


async def test_heals_go_on_while_many_objects_are_saved(last_applied, detector, monkeypatch):
    """Ten thousand rows at once would stop everything else for 25 ms."""
    for number in range(10_000):
        detector.states.of(KEY._replace(name=f"web-{number}")).last_applied = "abc"
    turns, before_writing = 0, 0

    def write(path, content):
        nonlocal before_writing
        before_writing = turns
        write_private(path, content)

    async def other_work():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(saved_file, "write_private", write)
    working = asyncio.ensure_future(other_work())
    await last_applied.save()
    working.cancel()

    assert before_writing >= 50
    assert len(last_applied.load()) == 10_002
