"""What is logged has one form, whoever logs it."""

import json
import subprocess
import sys

PROGRAM = """
import logging, warnings
import structlog
from driftwatch.log import configure

configure(FORMAT, "info")
structlog.get_logger().info("ours", name="x")
logging.getLogger("library").info("nobody's concern")
logging.getLogger("library").error("two\\nlines of %s", "an error")
try:
    raise ValueError("broken")
except ValueError:
    logging.getLogger("library").exception("crashed")
warnings.warn("a warning")
"""


def lines(log_format: str) -> list[str]:
    program = PROGRAM.replace("FORMAT", repr(log_format))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return ended.stderr.splitlines()


def test_every_line_is_an_object_with_the_same_keys() -> None:
    """Also what libraries and the interpreter say, with tracebacks, however many lines they have by themselves."""
    ours, *theirs = [json.loads(line) for line in lines("json")]
    assert ours.keys() == {"event", "name", "level", "timestamp"}
    assert [(line["level"], line["logger"]) for line in theirs] == [
        ("error", "library"),
        ("error", "library"),
        ("warning", "py.warnings"),
    ]
    error, crash, warning = theirs
    assert error["event"] == "two\nlines of an error"
    assert "ValueError: broken" in crash["exception"]
    assert "a warning" in warning["event"]
    assert all("T" in line["timestamp"] for line in theirs)


def test_every_line_for_people_begins_alike() -> None:
    """Time, level and event, in this order."""
    ours, *theirs = lines("text")
    assert len(theirs) == 3
    for line in (ours, *theirs):
        assert [part.partition("=")[0] for part in line.split()[:3]] == ["timestamp", "level", "event"]
    assert 'event="two\\nlines of an error" logger=library' in theirs[0]
