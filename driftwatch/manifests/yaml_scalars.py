"""Resolves plain YAML scalars as kubectl does.

kubectl reads YAML with sigs.k8s.io/yaml, whose parser follows YAML 1.1 with its own changes: `on` and `y` are
booleans, `0644` and `0o644` are 420, `1e3` is a number, but `12:30` and dates are strings. PyYAML differs in each of
these rules, and a port read as a sexagesimal number is an outage.
`tests/unit/test_yaml_scalars.py` holds the results of the real kubectl.
"""

import math
import re
import struct
from typing import TypeVar

_T = TypeVar("_T")

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_UINT64_MAX = 2**64 - 1

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_DOTTED = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?", re.ASCII)
"""Floats that begin with a dot. Go parses these unchanged, so an underscore must stand between digits."""

_NUMBER_START = frozenset("+-.0123456789")
_INTEGERS = (
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]+", re.ASCII), 16),
    (re.compile(r"[-+]?0[bB][01]+", re.ASCII), 2),
    (re.compile(r"[-+]?0[oO]?[0-7]+", re.ASCII), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9]{0,19})", re.ASCII), 10),  # Python refuses to read 4,301 digits
)


class NoKey(Exception):
    """A scalar cannot be a mapping key."""


def _spellings(*words: str) -> list[str]:
    return [form for word in words for form in (word, word.capitalize(), word.upper())]


_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(_spellings("y", "yes", "true", "on"), True),
    **dict.fromkeys(_spellings("n", "no", "false", "off"), False),
    **dict.fromkeys(["", "~", *_spellings("null")], None),
    **dict.fromkeys([".nan", ".NaN", ".NAN"], math.nan),
    **dict.fromkeys([sign + form for sign in ("", "+") for form in (".inf", ".Inf", ".INF")], math.inf),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], -math.inf),
}


def resolve(text: str) -> str | bool | float | int | None:
    """Return the value of a plain scalar. Integers beyond 64 bits become floats, as the API server receives them."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMBER_START:
        return text
    return json_number(_number(text))


def resolve_exactly(text: str) -> str | bool | float | int | None:
    """Return the value of a scalar with its Go type: `1.0` is a float, and an integer may be an unsigned 64-bit one."""
    return _WORDS[text] if text in _WORDS else _number(text)


def resolve_key(text: str) -> str | None:
    """Return the JSON name of a plain scalar used as mapping key, None for null.

    Raises `NoKey` for an integer that cannot be written as a key.
    """
    value = _WORDS[text] if text in _WORDS else text if text[0] not in _NUMBER_START else _number(text)
    return None if value is None else key_text(value)


def _number(text: str) -> str | float | int:
    plain = text if text[0] == "." else text.replace("_", "")
    for form, base in _INTEGERS:
        if form.fullmatch(plain):
            value = int(plain.replace("o", "").replace("O", "") if base == 8 else plain, base)  # noqa: PLR2004
            if INT64_MIN <= value <= (INT64_MAX if plain[0] in "+-" else _UINT64_MAX):
                return value
            break
    if _FLOAT.fullmatch(plain) or _DOTTED.fullmatch(plain):
        number = float(plain)
        if math.isfinite(number):
            return number
    return text


def json_number(number: _T) -> _T | float | int:
    """Convert a number to what the API server receives: Go writes 1.0 as `1`, integers beyond 64 bits become floats."""
    if isinstance(number, float):
        return int(number) if number.is_integer() and INT64_MIN <= number <= INT64_MAX else number
    if isinstance(number, int) and not INT64_MIN <= number <= INT64_MAX:
        return float(number)
    return number


def key_text(key: str | bool | float) -> str:
    """Return the JSON name of a mapping key that is not a string: `1: a` is `{"1": "a"}`."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        if key > INT64_MAX:
            raise NoKey("a mapping key is an integer beyond 64 bits; quote it")  # kubectl refuses it as well
        return str(key)
    return _go_float32(key)


def _go_float32(number: float) -> str:
    """Return the shortest text for this number in 32 bits, as Go's FormatFloat(number, 'g', -1, 32)."""
    if math.isnan(number):
        return ".nan"
    if math.isinf(number):
        return ".inf" if number > 0 else "-.inf"
    try:
        wanted = struct.pack("f", number)
        number = float(struct.unpack("f", wanted)[0])
        if math.isinf(number):
            raise OverflowError
        digits = next(p for p in range(1, 18) if struct.pack("f", float(f"{number:.{p}g}")) == wanted)
    except (OverflowError, StopIteration):
        return ".inf" if number > 0 else "-.inf"
    mantissa, _, exponent = f"{number:.{digits - 1}e}".partition("e")
    if -4 <= int(exponent) < 6:  # noqa: PLR2004  Go's limits for plain notation
        return f"{number:.{max(0, digits - 1 - int(exponent))}f}"
    return f"{mantissa}e{exponent}"
