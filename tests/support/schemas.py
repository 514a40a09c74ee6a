"""The JSON schemas of what leaves the program, made from the types: `python -m tests.support.schemas` writes them."""

import json
from pathlib import Path
from typing import Any

import msgspec
from driftwatch.report.drift_event import JournalLine
from driftwatch.status.schema import Status

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS: dict[str, tuple[type, str]] = {
    "journal.schema.json": (JournalLine, "One line of driftwatch's journal"),
    "status.schema.json": (Status, "The answer of driftwatch's /api/v1/status, and of driftwatch status --output json"),
}


def schema(file: str) -> dict[str, Any]:
    """The schema as it should be."""
    made, title = SCHEMAS[file]
    root = msgspec.json.schema(made)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root}


def text(file: str) -> str:
    """The schema as it is committed."""
    return json.dumps(schema(file), indent=2) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        (DOCS / name).write_text(text(name))
