"""Control characters from Git and from the API server reach neither a log nor a terminal as they are."""

import io
import json
from typing import Any

import pytest
import structlog
from driftwatch import log
from driftwatch.manifests import parse
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
