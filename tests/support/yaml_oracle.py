"""What the real kubectl makes of YAML, many files at a time, and whether that is what driftwatch makes of it."""

import json
import re
from pathlib import Path
from typing import Any

from driftwatch.manifests import parse, yaml_documents
from driftwatch.manifests.yaml_documents import Document, Unreadable

from tests.support.kubectl import Kubectl

LOCAL = ("patch", "--local", "--type=merge", "--patch={}", "--output=json")
"""A patch that changes nothing, without a server: it prints what was read, of whatever kind."""

DRY_RUN = ("create", "--dry-run=client", "--validate=false", "--output=json")


class Oracle:
    """kubectl's reading of every file of a folder: the objects by name, and its words about files that it refuses."""

    def __init__(self, kubectl: Kubectl, command: tuple[str, ...], path: Path) -> None:
        done = kubectl(*command, f"--filename={path}", check=False, timeout=120)
        self.objects: dict[str, dict[str, Any]] = {}
        for found in _stream(done.stdout):
            for each in found["items"] if found["kind"] == "List" else [found]:
                each["metadata"].pop("namespace", None)  # `create` adds the default
                self.objects[each["metadata"]["name"]] = each
        self.refused = {match[1]: match[0] for match in re.finditer(r"^.*/([\w.-]+)\"?: .*", done.stderr, re.MULTILINE)}
        self.words = done.stderr


def ours(data: bytes) -> tuple[list[dict[str, Any]], list[Unreadable]]:
    """The objects that driftwatch reads from a file, and what of it cannot be read."""
    found = list(yaml_documents.read(data))
    unreadable = [item for item in found if isinstance(item, Unreadable)]
    objects = [
        each.value for item in found if isinstance(item, Document) for each in parse.flatten(item.value, item.lines)
    ]
    return objects, unreadable


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; numbers are, if they are the same 64 bits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other or float(one) == float(other)
    return type(one) is type(other) and bool(one == other)


def _stream(text: str) -> list[dict[str, Any]]:
    """JSON values one after the other."""
    values, position, decoder = [], 0, json.JSONDecoder()
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        values.append(value)
    return values
