"""Prints comparison results: a unified diff for people, JSON for programs."""

import difflib
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from driftwatch.escape import printable, printable_lines
from driftwatch.manifests.yaml_scalars import resolve
from driftwatch.model import ObjectKey
from driftwatch.oneshot.diff.results import Author, Difference, Field, Results, Trouble

MAX_VALUE = 100  # characters of a value in a line of text; the diff below shows the whole value
_FIRST_KEYS = ("apiVersion", "kind", "metadata")
_COLOURS = {"---": "1", "+++": "1", "@@": "36", "-": "31", "+": "32"}
_BOLD, _DIM, _RED = "1", "2", "31"


class _Dumper(yaml.SafeDumper):
    """YAML dumper that writes multi-line text as a block, so that one changed line is one line of the diff.

    It quotes text that kubectl would read as another type, which PyYAML does not do for `y`, `1e3` and `0o17`.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write repeated values in full instead of as aliases."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None if isinstance(resolve(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


class Text:
    """Formats results as text, with ANSI colours if `colour` is set."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def difference(self, found: Difference) -> str:
        """Format one object: its source, fields with authors, and the diff from live to the healed object."""
        lines = [self._in(_BOLD, printable(f"{found.key}: {found.type}"))]
        place = f", {found.file}:{found.line}" if found.file else ""
        lines.append(self._in(_DIM, printable(f"  source {found.source}{place}")))
        if found.note:
            lines.append(printable_lines(f"  {found.note}"))
        lines += [printable(f"  {_sentence(field, found.last_writer)}") for field in found.fields]
        lines += [self._painted(printable_lines(line)) for line in unified(found)]
        return "\n".join(lines) + "\n"

    def trouble(self, found: Trouble) -> str:
        """Format one comparison that failed, on one line."""
        place = f" ({', '.join(filter(None, [found.source, _place(found)]))})" if found.source else ""
        name = f"{found.key}{place}: " if found.key else f"{place.strip(' ()')}: " if place else ""
        return f"{self._in(_RED, 'error')}: {printable(name)}{printable_lines(found.message)}"

    def summary(self, results: Results) -> str:
        """Return the number of objects per result."""
        parts = [f"{len(results.differences)} differ", f"{results.in_sync} in sync"]
        if results.left_out:
            parts.append(f"{results.left_out} left out by their mode")
        if results.troubles:
            parts.append(f"{len(results.troubles)} with errors")
        return ", ".join(parts)

    def _painted(self, line: str) -> str:
        for start, code in _COLOURS.items():
            if line.startswith(start):
                return self._in(code, line)
        return line

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def unified(found: Difference) -> Iterator[str]:
    """Return the unified diff of both documents as YAML. An absent document is empty and named /dev/null."""
    name = "/".join(filter(None, [str(found.key.group_kind), found.key.namespace, found.key.name]))
    return difflib.unified_diff(
        as_yaml(found.live),
        as_yaml(found.wanted),
        "/dev/null" if found.live is None else f"live/{name}",
        f"git/{found.file}" if found.wanted is not None else "/dev/null",
        lineterm="",
    )


def as_json(results: Results) -> bytes:
    """Return the results as JSON. docs/drift.md describes the format."""
    document = {
        "objects": [_object(found) for found in results.differences],
        "errors": [
            {
                **_named(found.key),
                "source": found.source or None,
                "file": found.file or None,
                "line": found.line or None,
                "message": found.message,
            }
            for found in results.troubles
        ],
        "inSync": results.in_sync,
        "leftOut": results.left_out,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _object(found: Difference) -> dict[str, Any]:
    return {
        **_named(found.key),
        "type": str(found.type),
        "source": found.source,
        "file": found.file or None,
        "line": found.line or None,
        "mode": found.mode,
        "note": found.note or None,
        "lastWriter": _author(found.last_writer) if found.last_writer else None,
        "fields": [
            {
                "path": field.path,
                "declared": field.declared,
                "live": field.live,
                "hidden": field.hidden,
                **_author(field.author),
            }
            for field in found.fields
        ],
    }


def _named(key: ObjectKey | None) -> dict[str, str | None]:
    if key is None:
        return dict.fromkeys(("group", "kind", "namespace", "name"))
    return {"group": key.group, "kind": key.kind, "namespace": key.namespace or None, "name": key.name}


def _author(author: Author | None) -> dict[str, str | None]:
    names = ("manager", "operation", "subresource", "time")
    return {name: (getattr(author, name) or None) if author else None for name in names}


def _place(found: Trouble) -> str:
    return f"{found.file}:{found.line}" if found.file else ""


def _sentence(field: Field, last: Author | None) -> str:
    values = f"declared {_value(field.declared)}, live {_value(field.live)}"
    if field.author is not None:
        return f"{field.path}: {values}, by {_by(field.author)}"
    gone = "removed" if field.live is None else "owned by nobody"
    return f"{field.path}: {values}, {gone}" + (f", last write by {_by(last)}" if last else "")


def _by(author: Author) -> str:
    how = " ".join(filter(None, [author.operation, author.subresource]))
    return f"{author.manager} ({how})" + (f" at {author.time}" if author.time else "")


def _value(value: Any) -> str:
    if value is None:
        return "<none>"
    if isinstance(value, str) and value.startswith("<hidden"):
        return value
    written = orjson.dumps(value).decode()
    return written if len(written) <= MAX_VALUE else written[: MAX_VALUE - 1] + "…"


def as_yaml(value: Any) -> list[str]:
    """Return an object as lines of YAML: apiVersion, kind and metadata first, the rest sorted. Empty for None."""
    if value is None:
        return []
    rest = sorted(value.keys() - set(_FIRST_KEYS))
    ordered = {name: _sorted(value[name]) for name in (*_FIRST_KEYS, *rest) if name in value}
    written: str = yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return written.splitlines()


def _sorted(value: Any) -> Any:
    """Sort keys recursively, so that both documents have the same order."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
