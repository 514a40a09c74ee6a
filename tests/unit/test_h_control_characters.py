"""Control characters from Git and from the API server reach neither a log nor a terminal as they are."""

import io
import json
from typing import Any

import orjson
import pytest
import structlog
from driftwatch import log
from driftwatch.drift.explain import DriftType
from driftwatch.manifests import parse
from driftwatch.model import InvalidManifest, Manifest, ObjectKey
from driftwatch.notify import kubernetes_events, messages
from driftwatch.oneshot.diff import presentation as diff
from driftwatch.oneshot.diff.results import Author, Difference, Field, Trouble
from driftwatch.oneshot.validate import presentation as validate
from driftwatch.oneshot.validate.manifests import yaml_document
from driftwatch.oneshot.validate.results import Checked, Problem
from driftwatch.report.drift_event import DriftEvent, EventType
from hypothesis import given
from hypothesis import strategies as st

NAUGHTY = "Pod\x1b[31m\r\n2026-11-30 level=info event=fine\x7f\x9b\u202e\ud800"


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("value", [NAUGHTY, [NAUGHTY], {NAUGHTY: 1}, ValueError(NAUGHTY)])
def test_b14_a_log_line_is_one_printable_line(log_format: str, value: Any) -> None:
    """Whatever its values hold."""
    stream = io.StringIO()
    try:
        log.configure(log_format, stream=stream)
        structlog.get_logger().error(NAUGHTY, error=value, **{"a key\x1b\n": "x"})
    finally:
        structlog.reset_defaults()
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable(), line
    if log_format == "json":
        assert json.loads(line)["event"] == NAUGHTY


@given(st.text(), st.text())
def test_b14_reasons_are_printable(kind: str, name: str) -> None:
    """A reason quotes names that Git gives."""
    for metadata in ({"name": name, "labels": {name: 1}}, {"labels": {}}, {"name": name, "namespace": 1}):
        document = json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        parsed = parse.read_file("a.yaml", document.encode(), "shop", "default")
        assert all(each.reason.isprintable() for each in parsed.invalid)


# --- What people read elsewhere ---

TEXT = NAUGHTY[:-1]  # nothing that the API server or a parsed document holds is a lone surrogate
KEY = ObjectKey("", "Pod", "shop", TEXT)


def harmless(text: str) -> bool:
    return all(each.isprintable() or each in "\n\t" for each in text)


def test_b14_a_diff_drives_no_terminal() -> None:
    """Names, values, managers and files are shown escaped, each on its own line."""
    author = Author(TEXT, "Update", "", "")
    found = Difference(
        KEY, "shop", TEXT, 1, "heal", DriftType.MODIFIED, (Field(TEXT, TEXT, TEXT, hidden=False, author=author),),
        author, TEXT, {"a": TEXT}, {"a": TEXT + "x"},
    )  # fmt: skip
    text = diff.Text(colour=False)
    assert harmless(text.difference(found))
    assert harmless(text.trouble(Trouble(TEXT, "shop", TEXT, 1, KEY)))


def test_b14_a_finding_of_validate_is_one_printable_line() -> None:
    """Whatever the file, the object and the API server's words are."""
    text = validate.Text(colour=False)
    assert text.problem(Problem(TEXT, "shop", TEXT, 1, KEY)).isprintable()
    checked = Checked("shop", "c" * 40, 0, (InvalidManifest(TEXT, 1, TEXT),))
    assert all(line.isprintable() for line in text.passed_over(checked))


def test_b14_a_files_name_is_a_comment_in_what_render_prints() -> None:
    """A line break in it begins no YAML of its own."""
    manifest = Manifest("", "v1", "Pod", "shop", "a", b"{}", "0", "a\nkind: Secret\n.yaml", 1)
    lines = "\n".join(yaml_document("shop", manifest, {"kind": "Pod"})).splitlines()
    assert lines == ["---", "# a\\nkind: Secret\\n.yaml:1 (shop)", "kind: Pod"]


@pytest.mark.parametrize("form", [messages.webhook, messages.slack, messages.teams])
@pytest.mark.parametrize("template", [None, "{manager} {error} {file}"])
def test_b14_notifications_have_no_control_characters(form: Any, template: str | None) -> None:
    """Neither in the sentence nor in what a template takes."""
    seen = DriftEvent(
        id="1", what=EventType.FAILED, time=0.0, since=0.0, key=KEY, source="shop", manager=TEXT, error=TEXT, file=TEXT
    )
    sent = orjson.loads(form([seen], template).body)
    said = {
        messages.webhook: lambda: sent["data"]["message"],
        messages.slack: lambda: sent["text"],
        messages.teams: lambda: sent["attachments"][0]["content"]["body"][1]["text"],
    }[form]()
    assert harmless(said)
    assert "level=info" in said


def test_b14_the_note_of_an_event_is_printable() -> None:
    """`kubectl describe` prints it as it is."""
    assert kubernetes_events._cut(TEXT).isprintable()
