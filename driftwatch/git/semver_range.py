"""Resolves a semver range to the highest matching tag, in the grammar that Flux users know.

The grammar is that of Masterminds/semver, which Flux and Helm use: `>=1.2 <2`, `~1.2`, `^1.2.3`, `1.x`, `1.2 - 1.4`,
`!=1.3.0`, joined by spaces or commas (and) and by `||` (or). A version with fewer than three numbers matches every
version with that prefix. Pre-releases match only if a comparator itself names one (`>=1.0.0-0`). Precedence follows
SemVer 2.0.0, by the library `semver`.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from semver import Version

_NUMBER = r"(?:0|[1-9][0-9]*)"
_PART = rf"(?:{_NUMBER}|[xX*])"
_SUFFIX = r"(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
_PARTIAL = re.compile(rf"v?(?P<major>{_PART})(?:\.(?P<minor>{_PART}))?(?:\.(?P<patch>{_PART}))?{_SUFFIX}")
_TAG = re.compile(rf"v?({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?((?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)")
_TERM = re.compile(r"(?P<operator>=>|=<|>=|<=|!=|==|=|>|<|~>|~|\^)?\s*(?P<version>[^\s,<>=!~^|]+)")
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")

_Test: TypeAlias = Callable[[Version], bool]
_ALIASES = {None: "=", "==": "=", "=>": ">=", "=<": "<=", "~>": "~"}


class RangeError(ValueError):
    """The text is not a semver range; the message quotes the invalid part."""


@dataclass(frozen=True)
class _Partial:
    """A version whose last numbers may be open; `given` is the number of numbers present."""

    low: Version
    given: int

    @property
    def high(self) -> Version | None:
        """The first version above all versions with this prefix; None if every version has it."""
        match self.given:
            case 0:
                return None
            case 1:
                return Version(self.low.major + 1)
            case _:
                return Version(self.low.major, self.low.minor + 1)

    def covers(self, version: Version) -> bool:
        """Whether `version` equals this one or has it as prefix."""
        if self.given == 3:  # noqa: PLR2004  major, minor and patch
            return version.compare(self.low) == 0
        return version >= self.low and (self.high is None or version < self.high)


class Range:
    """A semver range. Raises `RangeError` when `text` is not one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._alternatives = [_alternative(part) for part in text.split("||")]

    def __contains__(self, version: Version) -> bool:
        return any(all(test(version) for test in tests) for tests in self._alternatives)

    def highest(self, tags: Iterable[str]) -> str | None:
        """The tag with the highest version in the range, or None. A leading `v` is ignored.

        Of two spellings of one version, the one with more numbers wins, then the later in alphabetical order.
        """
        found = [(version, tag) for tag in tags if (version := version_of(tag)) is not None and version in self]
        return max(found, key=lambda each: (each[0], each[1].count("."), each[1]))[1] if found else None


def version_of(tag: str) -> Version | None:
    """The version that a tag names, with missing numbers as zero; None if the tag is not a version."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return None
    major, minor, patch, rest = match.groups()
    try:
        return Version.parse(f"{major}.{minor or 0}.{patch or 0}{rest}")
    except ValueError:  # for example a pre-release number with a leading zero
        return None


def _alternative(text: str) -> list[_Test]:
    text = _HYPHEN.sub(r">=\1 <=\2", text.strip())
    position = 0
    tests: list[_Test] = []
    while position < len(text):
        if text[position] in " \t,":
            position += 1
            continue
        term = _TERM.match(text, position)
        if term is None:
            raise RangeError(f"{text[position:]!r} is no comparison with a version, such as >=1.2 or ~1.4.0")
        tests.append(_comparison(term["operator"], term["version"]))
        position = term.end()
    if not tests:
        raise RangeError("a range is empty; * means any version")
    return tests


def _comparison(operator: str | None, text: str) -> _Test:
    partial, pre = _partial(text)
    test = _operation(_ALIASES.get(operator, operator or "="), partial)
    return lambda version: (pre or not version.prerelease) and test(version)


def _partial(text: str) -> tuple[_Partial, bool]:
    match = _PARTIAL.fullmatch(text)
    if match is None:
        raise RangeError(f"{text!r} is no version")
    numbers: list[int] = []
    for name in ("major", "minor", "patch"):
        part = match[name]
        if part is None or part in "xX*":
            break
        numbers.append(int(part))
    given = len(numbers)
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    try:
        low = Version.parse(f"{major}.{minor}.{patch}" + (f"-{match['pre']}" if match["pre"] else ""))
        return _Partial(low, given), match["pre"] is not None
    except ValueError as error:
        raise RangeError(f"{text!r} is no version: {error}") from error


def _operation(operator: str, partial: _Partial) -> _Test:
    low, high = partial.low, partial.high
    whole = partial.given == 3  # noqa: PLR2004
    beyond = _caret(partial)
    tests: dict[str, _Test] = {
        "=": partial.covers,
        "!=": lambda version: not partial.covers(version),
        ">": lambda version: version > low if whole else high is not None and version >= high,
        ">=": lambda version: version >= low,
        "<": lambda version: version < low,
        "<=": lambda version: version <= low if whole else high is None or version < high,
        "~": lambda version: version >= low and (high is None or version < high),
        "^": lambda version: version >= low and (beyond is None or version < beyond),
    }
    return tests[operator]


def _caret(partial: _Partial) -> Version | None:
    """The exclusive upper bound of a caret range: the first nonzero number, incremented."""
    low = partial.low
    if partial.given == 0:
        return None
    if low.major or partial.given == 1:
        return Version(low.major + 1)
    if low.minor or partial.given == 2:  # noqa: PLR2004
        return Version(0, low.minor + 1)
    return Version(0, 0, low.patch + 1)
