"""How findings are written: a unified diff for people, JSON for programs."""

import difflib
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from driftwatch.manifests.yaml_scalars import resolve
from driftwatch.model import ObjectKey
from driftwatch.oneshot.diff.results import Author, Difference, Field, Findings, Trouble

MAX_VALUE = 100  # characters of a value in a line of text; the diff below it has all of it
_FIRST_KEYS = ("apiVersion", "kind", "metadata")
_COLOURS = {"---": "1", "+++": "1", "@@": "36", "-": "31", "+": "32"}
_BOLD, _DIM, _RED = "1", "2", "31"


class _Dumper(yaml.SafeDumper):
    """Multi-line text as a block, so that one line of a file that changed is one line of the diff.

    What kubectl would not read as text is quoted: PyYAML knows nothing of `y`, `1e3` and `0o17`.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Write a value that occurs twice twice."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None if isinstance(resolve(value), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


class Text:
    """Writes findings as text; `colour` says whether with ANSI colours."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def difference(self, found: Difference) -> str:
        """One object: who, what, by whom, and the diff from what is live to what healing would make of it."""
        lines = [self._in(_BOLD, f"{found.key}: {found.type}")]
        place = f", {found.file}:{found.line}" if found.file else ""
        lines.append(self._in(_DIM, f"  source {found.source}{place}"))
        if found.note:
            lines.append(f"  {found.note}")
        lines += [f"  {_sentence(field, found.last_writer)}" for field in found.fields]
        lines += [self._painted(line) for line in unified(found)]
        return "\n".join(lines) + "\n"

    def trouble(self, found: Trouble) -> str:
        """One line that says what could not be compared."""
        place = f" ({', '.join(filter(None, [found.source, _place(found)]))})" if found.source else ""
        name = f"{found.key}{place}: " if found.key else f"{place.strip(' ()')}: " if place else ""
        return f"{self._in(_RED, 'error')}: {name}{found.message}"

    def summary(self, findings: Findings) -> str:
        """How many objects were compared with what result."""
        parts = [f"{len(findings.differences)} differ", f"{findings.in_sync} in sync"]
        if findings.left_out:
            parts.append(f"{findings.left_out} left out by their mode")
        if findings.troubles:
            parts.append(f"{len(findings.troubles)} with errors")
        return ", ".join(parts)

    def _painted(self, line: str) -> str:
        for start, code in _COLOURS.items():
            if line.startswith(start):
                return self._in(code, line)
        return line

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def unified(found: Difference) -> Iterator[str]:
    """The unified diff of both documents as YAML; one that is not there is empty, as is its name."""
    name = "/".join(filter(None, [str(found.key.group_kind), found.key.namespace, found.key.name]))
    return difflib.unified_diff(
        as_yaml(found.live),
        as_yaml(found.wanted),
        "/dev/null" if found.live is None else f"live/{name}",
        f"git/{found.file}" if found.wanted is not None else "/dev/null",
        lineterm="",
    )


def as_json(findings: Findings) -> bytes:
    """The findings as JSON; docs/drift.md describes it."""
    document = {
        "objects": [_object(found) for found in findings.differences],
        "errors": [
            {
                **_named(found.key),
                "source": found.source or None,
                "file": found.file or None,
                "line": found.line or None,
                "message": found.message,
            }
            for found in findings.troubles
        ],
        "inSync": findings.in_sync,
        "leftOut": findings.left_out,
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
    """An object as lines of YAML, what names it first, else in alphabetical order; none for None."""
    if value is None:
        return []
    rest = sorted(value.keys() - set(_FIRST_KEYS))
    ordered = {name: _sorted(value[name]) for name in (*_FIRST_KEYS, *rest) if name in value}
    written: str = yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    return written.splitlines()


def _sorted(value: Any) -> Any:
    """Keys in one order in both documents."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
