"""How a check's findings are written: one line each, as compilers do, for people and editors; JSON for programs."""

from typing import Any

import orjson

from driftwatch.oneshot.validate.results import VALID, Checked, Findings, Problem, Trial

_BOLD, _DIM, _RED, _GREEN = "1", "2", "31", "32"


class Text:
    """Writes findings as text; `colour` says whether with ANSI colours."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def problem(self, found: Problem) -> str:
        """`FILE:LINE: error: OBJECT: MESSAGE [SOURCE]`, as far as these are known."""
        place = f"{self._in(_BOLD, f'{found.file}:{found.line}')}: " if found.file else ""
        what = self._in(_RED, "not checked" if found.unchecked else "error")
        name = f"{found.key}: " if found.key else ""
        source = self._in(_DIM, f" [{found.source}]") if found.source and found.file else ""
        message = " ".join(found.message.split())  # the API server lists several mistakes on lines of their own
        return f"{place}{what}: {name}{message}{source}"

    def passed_over(self, source: Checked) -> list[str]:
        """A line for each file that is no manifest, with the reason."""
        return [
            f"{each.file}:{each.line}: passed over: {each.reason}{self._in(_DIM, f' [{source.name}]')}"
            for each in source.passed_over
        ]

    def summary(self, findings: Findings) -> list[str]:
        """What was looked at, and the verdict."""
        lines = [
            f"source {source.name} at {source.commit[:12]}: {_count(source.objects, 'object')}"
            + (f", {_count(len(source.passed_over), 'file')} passed over" if source.passed_over else "")
            for source in findings.sources
        ]
        lines.append(_tried(findings.trial))
        wrong = sum(not problem.unchecked for problem in findings.problems)
        unchecked = len(findings.problems) - wrong
        parts = [_count(wrong, "error")] if wrong else []
        parts += [f"{unchecked} could not be checked"] if unchecked else []
        valid = findings.status == VALID
        lines.append(self._in(_GREEN if valid else _RED, "valid" if valid else ", ".join(parts)))
        return lines

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _tried(trial: Trial | None) -> str:
    if trial is None:
        return "no cluster was asked (--cluster tries each object there by a dry run)"
    waiting = f", {trial.waiting} wait for a definition that Git declares and it lacks" if trial.waiting else ""
    return f"cluster {trial.server}: {_count(trial.accepted, 'object')} accepted by dry run{waiting}"


def as_json(findings: Findings) -> bytes:
    """The findings as JSON; docs/sources.md describes it."""
    trial = findings.trial
    document = {
        "valid": findings.status == VALID,
        "errors": [_problem(each) for each in findings.problems if not each.unchecked],
        "notChecked": [_problem(each) for each in findings.problems if each.unchecked],
        "sources": [
            {
                "name": source.name,
                "commit": source.commit,
                "objects": source.objects,
                "passedOver": [
                    {"file": each.file, "line": each.line, "reason": each.reason} for each in source.passed_over
                ],
            }
            for source in findings.sources
        ],
        "cluster": {"server": trial.server, "accepted": trial.accepted, "waiting": trial.waiting} if trial else None,
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
