"""Shared types of the configuration schema: the section base class, durations and paths."""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)

FOLDER = "folder"
"""Key in the validation context: the folder that relative paths are resolved against."""

DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_DURATION_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Section(BaseModel):
    """Base class of a mapping in the file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_refused(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        """Convert any exception of a validator into an error of the file with its line, like a `ValueError`."""
        try:
            return check(value)
        except (ValueError, AssertionError):  # pydantic already converts these
            raise
        except Exception as error:
            raise ValueError(f"it cannot be used: {error}") from error

    @model_validator(mode="before")
    @classmethod
    def _may_be_empty(cls, value: object) -> object:
        """Accept null: YAML reads a section whose keys are all commented out as null."""
        return {} if value is None else value


T = TypeVar("T")


def _may_be_null(value: object) -> object:
    """Accept null: YAML reads a list whose entries are all commented out as null."""
    return [] if value is None else value


Sections = Annotated[list[T], BeforeValidator(_may_be_null)]


def parse_duration(value: Any) -> float:
    """Parse a duration such as `30s`, `5m`, `1h30m` or `250ms`, or a number of seconds, into seconds."""
    match value:
        case bool():
            pass
        case int() | float() if math.isfinite(value):
            return float(value)
        case str() if re.fullmatch(DURATION, value):
            return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PARTS.findall(value))
    raise ValueError(f"{value!r} is no duration; one looks like 30s, 5m or 1h30m")


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": DURATION}, {"type": "number", "exclusiveMinimum": 0}],
            "title": "duration",
        }
    ),
]


def resolved(value: str, info: ValidationInfo) -> str:
    """Expand `~` and resolve the path against the configuration file's folder, if that folder is known."""
    folder: Path | None = (info.context or {}).get(FOLDER)
    return str(folder / Path(value).expanduser()) if folder and value else value


FilePath = Annotated[str, AfterValidator(resolved)]


def dotted(location: Iterable[int | str]) -> str:
    """Format a location in the file as in error messages: `sources[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def is_remote(repository: str) -> bool:
    """Whether Git treats this as a URL or an address like `git@host:path`: it has a colon before any slash."""
    return ":" in repository.partition("/")[0]
