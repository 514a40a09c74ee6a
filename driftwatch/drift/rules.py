"""Ignore rules: which objects a rule selects, and which fields it leaves to others."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import jsonpath
import msgspec
import orjson
from jsonpath.selectors import JSONPathSelector, KeySelector, KeysFilter, KeysSelector, NameSelector

from driftwatch.model import DESIRED_HASH_ANNOTATION, ID_ANNOTATION, SOURCE_LABEL, Manifest, Mode, ObjectKey

# Which object it is, and that it is ours: left to others, an object would be lost to us, or written at every start.
NEVER_IGNORED = (
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "labels", SOURCE_LABEL),
    ("metadata", "annotations", ID_ANNOTATION),
    ("metadata", "annotations", DESIRED_HASH_ANNOTATION),
)

_QUOTED = re.compile(r""" "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' """, re.VERBOSE)
_FILTER = re.compile(rf"(?:{_QUOTED.pattern}|[^]\"'])*", re.VERBOSE)
_NAME = re.compile(rf"{_QUOTED.pattern} | (?<![\w.$]) ([A-Za-z_]\w*) (?![\w(])", re.VERBOSE)  # no function's name


class Target(msgspec.Struct, frozen=True):
    """Which objects a rule is about: name patterns that must all match, and labels that Git declares."""

    group: str = "*"
    kind: str = "*"
    namespace: str = "*"
    name: str = "*"
    labels: tuple[tuple[str, str], ...] = ()

    def matches(self, key: ObjectKey, manifest: Manifest) -> bool:
        """Whether the rule is about this object."""
        patterns = (self.group, self.kind, self.namespace, self.name)
        if not all(pattern == "*" or fnmatchcase(part, pattern) for pattern, part in zip(patterns, key, strict=True)):
            return False
        if not self.labels:
            return True
        labels = orjson.loads(manifest.body)["metadata"].get("labels", {})
        return all(name in labels and fnmatchcase(str(labels[name]), pattern) for name, pattern in self.labels)


class FieldOwner(msgspec.Struct, frozen=True):
    """Fields by who owns them: name patterns of manager and subresource."""

    manager: str
    subresource: str = "*"


class Rule(msgspec.Struct, frozen=True):
    """Fields that are not fought over (or, `sensitive`, never shown), or a mode, for the objects of `target`.

    `pointers` are JSON pointers already split, `paths` compiled JSONPaths. A rule may name both fields and owners: then
    the fields are ignored while one of these owners has them. A `kept` rule is about fields that Git does not declare:
    they stay whoever adds them, and its owners are nobody's hands.
    """

    name: str
    target: Target = Target()
    reason: str = ""
    pointers: tuple[tuple[str, ...], ...] = ()
    paths: tuple[Any, ...] = ()
    owners: tuple[FieldOwner, ...] = ()
    mode: Mode | None = None
    recreate: bool = False
    sensitive: bool = False
    kept: bool = False
    needle: bytes = b""  # a manifest without these bytes has no field that the rule is about
    built_in: bool = False

    @property
    def ignores_fields(self) -> bool:
        """Whether the rule takes fields out of the fight."""
        return bool(self.pointers or self.paths or self.owners) and not (self.sensitive or self.kept)


def parse_pointer(text: str) -> tuple[str, ...]:
    """Split a JSON pointer (RFC 6901). Raises `ValueError` for a malformed one."""
    if not text.startswith("/") or text == "/":
        raise ValueError(f"{text!r} is no JSON pointer; one looks like /spec/replicas")
    steps = text[1:].split("/")
    if any("~" in step.replace("~0", "").replace("~1", "") for step in steps):
        raise ValueError(f"{text!r} is no JSON pointer: ~ stands for itself as ~0, and / as ~1")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in steps)


def parse_path(text: str) -> Any:
    """Compile a JSONPath (RFC 9535); `$.` and the `@.` of a filter may be left out. Raises `ValueError`."""
    written = text if text.startswith("$") else f"$.{text.lstrip('.')}"
    written = _with_current_node(written)
    try:
        path = jsonpath.compile(written)
    except jsonpath.JSONPathError as error:
        raise ValueError(f"{text!r} is no JSONPath: {str(error).splitlines()[0]}") from error
    selectors = [selector for query in _queries(path) for selector in _selectors(query)]
    if any(isinstance(selector, KeySelector | KeysSelector | KeysFilter) for selector in selectors):
        raise ValueError(f"{text!r} is no JSONPath: ~ would select the names of fields, and not the fields")
    return path


def single_fields(path: Any) -> list[tuple[str, ...]]:
    """The fields that a compiled JSONPath names one by one, as split pointers; () is the whole object."""
    found = []
    for query in _queries(path):
        names = [selector.name for selector in _selectors(query) if isinstance(selector, NameSelector)]
        if query.singular_query() and len(names) == len(query.segments):
            found.append(tuple(names))
    return found


def _queries(path: Any) -> Iterator[jsonpath.JSONPath]:
    """The queries of a path: beyond RFC 9535, several may be joined by | and &."""
    if isinstance(path, jsonpath.CompoundJSONPath):
        yield from _queries(path.path)
        for _, joined in path.paths:
            yield joined
    else:
        yield path


def _selectors(query: jsonpath.JSONPath) -> list[JSONPathSelector]:
    return [selector for segment in query.segments for selector in segment.selectors]


def _with_current_node(text: str) -> str:
    """`[?name=="X"]`, as kubectl users write it, means `[?@.name=="X"]`."""
    head, *filters = text.split("[?")
    return "[?".join([head, *map(_from_current_node, filters)])


def _from_current_node(text: str) -> str:
    """A filter and what follows it, every name in it taken from the current node; one that uses `@` is left alone."""
    written = _FILTER.match(text)
    expression = written[0] if written else ""
    if "@" in _QUOTED.sub("", expression):
        return text

    def named(found: re.Match[str]) -> str:
        return found[0] if found[1] in (None, "true", "false", "null") else f"@.{found[1]}"

    return _NAME.sub(named, expression) + text[len(expression) :]
