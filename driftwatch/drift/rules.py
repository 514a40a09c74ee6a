"""Ignore rules: the objects that a rule selects, and the fields that it leaves to others."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import jsonpath
import msgspec
import orjson
from jsonpath.selectors import JSONPathSelector, KeySelector, KeysFilter, KeysSelector, NameSelector

from driftwatch.model import DESIRED_HASH_ANNOTATION, ID_ANNOTATION, SOURCE_LABEL, Manifest, Mode, ObjectKey

# Fields that identify an object and mark it as driftwatch's. If others could change them, driftwatch would lose the
# object or write it at every start.
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
_NAME = re.compile(rf"{_QUOTED.pattern} | (?<![\w.$]) ([A-Za-z_]\w*) (?![\w(])", re.VERBOSE)  # no function name


class Target(msgspec.Struct, frozen=True):
    """The objects that a rule selects: name patterns that must all match, and labels that Git declares."""

    group: str = "*"
    kind: str = "*"
    namespace: str = "*"
    name: str = "*"
    labels: tuple[tuple[str, str], ...] = ()

    def matches(self, key: ObjectKey, manifest: Manifest) -> bool:
        """Whether the rule selects this object."""
        patterns = (self.group, self.kind, self.namespace, self.name)
        if not all(pattern == "*" or fnmatchcase(part, pattern) for pattern, part in zip(patterns, key, strict=True)):
            return False
        if not self.labels:
            return True
        labels = orjson.loads(manifest.body)["metadata"].get("labels", {})
        return all(name in labels and fnmatchcase(str(labels[name]), pattern) for name, pattern in self.labels)


class FieldOwner(msgspec.Struct, frozen=True):
    """Selects fields by owner: name patterns of manager and subresource."""

    manager: str
    subresource: str = "*"


class Rule(msgspec.Struct, frozen=True):
    """Ignored fields, or a mode, for the objects of `target`. The fields of a `sensitive` rule are never shown.

    `pointers` are split JSON pointers. `paths` are compiled JSONPaths. A rule may name both fields and owners. Then the
    fields are ignored while one of these owners has them. A `kept` rule names fields that Git does not declare. They
    stay regardless of their manager, and the owners of the rule are not interactive managers.
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
    needle: bytes = b""  # a manifest without these bytes has no field that the rule selects
    built_in: bool = False

    @property
    def ignores_fields(self) -> bool:
        """Whether the rule ignores fields."""
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
    """Compile a JSONPath (RFC 9535). `$.` and the `@.` of a filter are optional. Raises `ValueError`."""
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
    """The single fields that a compiled JSONPath names, as split pointers. () is the whole object."""
    found = []
    for query in _queries(path):
        names = [selector.name for selector in _selectors(query) if isinstance(selector, NameSelector)]
        if query.singular_query() and len(names) == len(query.segments):
            found.append(tuple(names))
    return found


def _queries(path: Any) -> Iterator[jsonpath.JSONPath]:
    """The queries of a path. As an extension of RFC 9535, | and & join several queries."""
    if isinstance(path, jsonpath.CompoundJSONPath):
        yield from _queries(path.path)
        for _, joined in path.paths:
            yield joined
    else:
        yield path


def _selectors(query: jsonpath.JSONPath) -> list[JSONPathSelector]:
    return [selector for segment in query.segments for selector in segment.selectors]


def _with_current_node(text: str) -> str:
    """Expand `[?name=="X"]`, the notation of kubectl users, to `[?@.name=="X"]`."""
    head, *filters = text.split("[?")
    return "[?".join([head, *map(_from_current_node, filters)])


def _from_current_node(text: str) -> str:
    """Prefix every name in a leading filter with `@.`. A filter that uses `@` stays unchanged."""
    written = _FILTER.match(text)
    expression = written[0] if written else ""
    if "@" in _QUOTED.sub("", expression):
        return text

    def named(found: re.Match[str]) -> str:
        return found[0] if found[1] in (None, "true", "false", "null") else f"@.{found[1]}"

    return _NAME.sub(named, expression) + text[len(expression) :]
