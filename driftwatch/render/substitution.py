"""Substitutes variables in manifests, with the syntax of Flux's `postBuild`.

`${NAME}`, `${NAME:-default}` and `${NAME:=default}`, `${NAME:2:3}`, `${NAME/from/to}`, `${NAME//from/to}`,
`${NAME^^}`, `${NAME,,}`, `${#NAME}`; `$${NAME}` stands for a literal `${NAME}`. `$NAME` is left alone, because shell
scripts in manifests use it. Unlike in Flux, an undefined variable without a default is an error: an empty string is
rarely what was meant.
"""

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_START = re.compile(r"\$\$\{|\$\{")
_SUBSTRING = re.compile(r":(\d+)(?::(\d+))?")


class SubstitutionError(Exception):
    """The text between the braces is not a valid expression. `position` is where it begins."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


def substitute(text: str, variables: Mapping[str, str], undefined: Callable[[str, int], str]) -> str:
    """Replace every variable. `undefined` gets the name and position of an undefined one and returns its replacement.

    Line breaks in values are removed, so that a value cannot end the line that it is in. Raises `SubstitutionError`.
    """
    parts = []
    position = 0
    for match in _START.finditer(text):
        start = match.start()
        if start < position:
            continue
        parts.append(text[position:start])
        if match[0] == "$${":
            parts.append("${")
            position = match.end()
            continue
        end = _closing(text, match.end(), start)
        parts.append(_value(text[match.end() : end], start, variables, undefined))
        position = end + 1
    return "".join([*parts, text[position:]])


def _closing(text: str, position: int, start: int) -> int:
    """Position of the brace that closes the one before `position`."""
    depth = 1
    for found in re.compile(r"\$\{|\}|\n").finditer(text, position):
        if found[0] == "\n":
            break
        depth += 1 if found[0] == "${" else -1
        if depth == 0:
            return found.start()
    raise SubstitutionError(start, "`${` without `}` in its line; write `$${` for the text itself")


def _value(expression: str, start: int, variables: Mapping[str, str], undefined: Callable[[str, int], str]) -> str:
    if expression.startswith("#"):
        return str(len(_value(expression[1:], start, variables, undefined)))
    match = _NAME.match(expression)
    if match is None:
        raise SubstitutionError(
            start, "`${` is not followed by the name of a variable; write `$${` for the text itself"
        )
    name, rest = match[0], expression[match.end() :]
    value = variables.get(name)
    for operator in (":-", ":=", "-", "="):
        if rest.startswith(operator):
            is_set = value is not None and (value != "" or not operator.startswith(":"))
            return _one_line(value or "") if is_set else substitute(rest[len(operator) :], variables, undefined)
    found = undefined(name, start) if value is None else _one_line(value)
    return _applied(found, rest, start)


def _applied(value: str, rest: str, start: int) -> str:
    """Apply the operator after the variable's name to its value."""
    if not rest:
        return value
    if match := _SUBSTRING.fullmatch(rest):
        begin = int(match[1])
        return value[begin:] if match[2] is None else value[begin : begin + int(match[2])]
    simple = {"^^": value.upper(), ",,": value.lower(), "^": value[:1].upper() + value[1:],
              ",": value[:1].lower() + value[1:]}  # fmt: skip
    if rest in simple:
        return simple[rest]
    if rest.startswith("/"):
        everywhere = rest.startswith("//")
        old, _, new = rest.lstrip("/").partition("/")
        return value.replace(old, new) if everywhere else value.replace(old, new, 1)
    raise SubstitutionError(start, "what follows the variable's name is no operator; write `$${` for the text itself")


def _one_line(value: str) -> str:
    return value.replace("\r", "").replace("\n", "")
