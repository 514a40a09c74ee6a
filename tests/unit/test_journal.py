"""The journal's file: whole lines or none, put aside when it has grown, and a full disk is survived."""

import json
import os
from pathlib import Path

import jsonschema
import msgspec
import pytest
from driftwatch.config.observe import Journal
from driftwatch.metrics.registry import Metrics
from driftwatch.model import DriftType, FieldDrift, ObjectKey
from driftwatch.notify.journal import JournalWriter, RotatedFile
from driftwatch.report.drift_event import DriftEvent, EventType, journal_line, story

from tests.support import schemas
from tests.support.waiting import until

KEY = ObjectKey("apps", "Deployment", "shop", "web")
SEEN = DriftEvent(
    id="1",
    what=EventType.HEALED,
    time=1_800_000_000.25,
    since=1_800_000_000.0,
    key=KEY,
    source="shop",
    type=str(DriftType.MODIFIED),
    manager="kubectl",
    fields=(FieldDrift("spec.replicas", "2", "5", "kubectl", "Update", "scale"),),
    seconds=0.0123,
    commit="abc",
    file="web.yaml",
    line=3,
)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def writer():
    """Make writers of a journal; they are closed after the test."""
    made = []

    def new(path: Path, **settings) -> tuple[JournalWriter, Metrics]:
        metrics = Metrics()
        made.append(JournalWriter(str(path), Journal(file=str(path), **settings), metrics))
        return made[-1], metrics

    yield new
    for each in made:
        each.close(5)


@pytest.mark.parametrize("file", schemas.SCHEMAS)
def test_the_committed_schemas_are_those_of_the_types(file):
    """docs/*.schema.json are what the types make of them."""
    assert (schemas.DOCS / file).read_text() == schemas.text(file), "run: python -m tests.support.schemas"


@pytest.mark.parametrize("what", list(EventType))
def test_every_happening_is_a_line_of_the_schema(what):
    """Whatever happens, its line is one that the committed schema allows."""
    line = journal_line(msgspec.structs.replace(SEEN, what=what, seconds=None, type="", manager=""))
    schema = json.loads((schemas.DOCS / "journal.schema.json").read_text())
    jsonschema.validate(json.loads(msgspec.json.encode(line)), schema)


def test_a_line_says_who_did_what_and_how_fast_it_was_healed(writer, tmp_path):
    """One drift is one line with object, manager, fields and seconds."""
    path = tmp_path / "journal.jsonl"
    journal, metrics = writer(path)
    journal.note(SEEN)
    [line] = until(lambda: lines(path), "a line is written")
    assert (line["event"], line["type"], line["manager"], line["seconds"]) == (
        "healed",
        "modified",
        "kubectl",
        0.0123,
    )
    assert line["object"] == {"group": "apps", "kind": "Deployment", "namespace": "shop", "name": "web"}
    assert (line["time"], line["file"], line["line"]) == ("2027-01-15T08:00:00.250000Z", "web.yaml", 3)
    assert line["fields"][0]["subresource"] == "scale"
    until(lambda: metrics.journal_lines.labels("written")._value.get() == 1, "the line is counted")
    assert story(SEEN) == "Deployment shop/web was modified by kubectl and put back in 12 ms: spec.replicas: 2 → 5"


def test_what_waits_is_written_before_the_end(writer, tmp_path):
    """A journal that is closed has all that was noted before."""
    path = tmp_path / "journal.jsonl"
    journal, _ = writer(path)
    for _ in range(500):
        journal.note(SEEN)
    journal.close(10)
    assert len(lines(path)) == 500


def test_a_grown_file_is_put_aside(tmp_path):
    """At its size the file becomes .1, the older ones move on, and the oldest goes; no line is torn or lost."""
    path = tmp_path / "journal.jsonl"
    file = RotatedFile(path, max_size=100, keep=2)
    for number in range(10):
        file.write(json.dumps({"n": number, "fill": "x" * 20}).encode() + b"\n")
    file.close()
    kept = [path.with_name("journal.jsonl.2"), path.with_name("journal.jsonl.1"), path]
    assert [[line["n"] for line in lines(each)] for each in kept] == [[4, 5], [6, 7], [8, 9]]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(each.name for each in kept)


def test_a_file_that_keeps_nothing_begins_anew(tmp_path):
    """With keep: 0 the grown file is gone."""
    path = tmp_path / "journal.jsonl"
    file = RotatedFile(path, max_size=10, keep=0)
    file.write(b'{"n": 1}\n')
    file.write(b'{"n": 2}\n')
    file.close()
    assert [line["n"] for line in lines(path)] == [2]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path):
    """Logrotate may take the file: the next line begins a new one."""
    path = tmp_path / "journal.jsonl"
    file = RotatedFile(path, max_size=1000, keep=2)
    file.write(b'{"n": 1}\n')
    path.rename(tmp_path / "taken")
    file.write(b'{"n": 2}\n')
    file.close()
    assert [line["n"] for line in lines(path)] == [2]


def test_f07_a_full_disk_loses_nothing_that_fits_into_the_queue(writer, tmp_path):
    """While the disk is full the gauge is 0 and lines wait; when there is room again all of them are written."""
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    journal, metrics = writer(path)
    journal.note(SEEN)
    journal.note(SEEN)
    until(lambda: metrics.journal_up._value.get() == 0, "the full disk is noticed")
    room = tmp_path / "room.jsonl"
    (tmp_path / "link").symlink_to(room)
    (tmp_path / "link").replace(path)
    until(lambda: len(lines(room)) == 2, "both lines are written")
    until(lambda: metrics.journal_up._value.get() == 1, "the gauge says so")


def test_f07_half_a_line_is_taken_back(tmp_path, monkeypatch):
    """A disk that fills in the middle of a line leaves no half of it behind."""
    path = tmp_path / "journal.jsonl"
    file = RotatedFile(path, max_size=1000, keep=1)
    file.write(b'{"n": 1}\n')
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) > 5:
            return real(descriptor, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        file.write(b'{"n": 2}\n')
    monkeypatch.undo()
    file.write(b'{"n": 3}\n')
    file.close()
    assert [line["n"] for line in lines(path)] == [1, 3]


def test_f07_what_does_not_fit_is_counted(writer, tmp_path, monkeypatch):
    """A full queue holds up nobody: what does not fit is dropped and counted."""
    monkeypatch.setattr("driftwatch.notify.journal.QUEUE", 3)
    path = tmp_path / "journal.jsonl"
    path.symlink_to("/dev/full")
    journal, metrics = writer(path)
    for _ in range(10):
        journal.note(SEEN)
    assert metrics.journal_lines.labels("dropped")._value.get() >= 6
