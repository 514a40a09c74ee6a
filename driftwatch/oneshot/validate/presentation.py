"""Prints the results of a check: compiler-style lines for people and editors, JSON for programs."""

from typing import Any

import orjson

from driftwatch.escape import printable
from driftwatch.oneshot.validate.results import VALID, Checked, DryRunSummary, Problem, Results

_BOLD, _DIM, _RED, _GREEN = "1", "2", "31", "32"


class Text:
    """Formats results as text, with ANSI colours if `colour` is set."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def problem(self, found: Problem) -> str:
        """Format as `FILE:LINE: error: OBJECT: MESSAGE [SOURCE]`, without the parts that are unknown."""
        place = f"{self._in(_BOLD, printable(f'{found.file}:{found.line}'))}: " if found.file else ""
        what = self._in(_RED, "not checked" if found.unchecked else "error")
        name = printable(f"{found.key}: ") if found.key else ""
        source = self._in(_DIM, f" [{found.source}]") if found.source and found.file else ""
        message = printable(" ".join(found.message.split()))  # the API server puts several errors on separate lines
        return f"{place}{what}: {name}{message}{source}"

    def passed_over(self, source: Checked) -> list[str]:
        """Return a line for each file that is not a manifest, with the reason."""
        return [
            f"{printable(f'{each.file}:{each.line}: passed over: {each.reason}')}{self._in(_DIM, f' [{source.name}]')}"
            for each in source.passed_over
        ]

    def summary(self, results: Results) -> list[str]:
        """Return lines with the sources, the dry runs and the verdict."""
        lines = [
            f"source {source.name} at {source.commit[:12]}: {_count(source.objects, 'object')}"
            + (f", {_count(len(source.passed_over), 'file')} passed over" if source.passed_over else "")
            for source in results.sources
        ]
        lines.append(_dry_run_line(results.dry_run))
        wrong = sum(not problem.unchecked for problem in results.problems)
        unchecked = len(results.problems) - wrong
        parts = [_count(wrong, "error")] if wrong else []
        parts += [f"{unchecked} could not be checked"] if unchecked else []
        valid = results.status == VALID
        lines.append(self._in(_GREEN if valid else _RED, "valid" if valid else ", ".join(parts)))
        return lines

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _dry_run_line(dry_run: DryRunSummary | None) -> str:
    if dry_run is None:
        return "no cluster was asked (--cluster tries each object there by a dry run)"
    waiting = f", {dry_run.waiting} wait for a definition that Git declares and it lacks" if dry_run.waiting else ""
    return f"cluster {dry_run.server}: {_count(dry_run.accepted, 'object')} accepted by dry run{waiting}"


def as_json(results: Results) -> bytes:
    """Return the results as JSON. docs/sources.md describes the format."""
    dry_run = results.dry_run
    document = {
        "valid": results.status == VALID,
        "errors": [_problem(each) for each in results.problems if not each.unchecked],
        "notChecked": [_problem(each) for each in results.problems if each.unchecked],
        "sources": [
            {
                "name": source.name,
                "commit": source.commit,
                "objects": source.objects,
                "passedOver": [
                    {"file": each.file, "line": each.line, "reason": each.reason} for each in source.passed_over
                ],
            }
            for source in results.sources
        ],
        "cluster": {"server": dry_run.server, "accepted": dry_run.accepted, "waiting": dry_run.waiting}
        if dry_run
        else None,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _problem(found: Problem) -> dict[str, Any]:
    key = found.key
    return {
        "group": key.group if key else None,
        "kind": key.kind if key else None,
        "namespace": (key.namespace or None) if key else None,
        "name": key.name if key else None,
        "source": found.source or None,
        "file": found.file or None,
        "line": found.line or None,
        "message": found.message,
    }
