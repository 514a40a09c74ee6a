"""What the parts of the configuration file's schema share: sections, and values that are more than text or number."""

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
"""In the validation context: what relative paths are relative to."""

DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_DURATION_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Section(BaseModel):
    """A mapping of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_refused(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        """Whatever a validator stumbles over is a mistake of the file, with its line, as a `ValueError` is."""
        try:
            return check(value)
        except (ValueError, AssertionError):  # what pydantic takes for one anyway
            raise
        except Exception as error:
            raise ValueError(f"it cannot be used: {error}") from error

    @model_validator(mode="before")
    @classmethod
    def _may_be_empty(cls, value: object) -> object:
        """A section of which every key is commented out is null to YAML."""
        return {} if value is None else value


T = TypeVar("T")


def _may_be_null(value: object) -> object:
    """A list of which every entry is commented out is null to YAML."""
    return [] if value is None else value


Sections = Annotated[list[T], BeforeValidator(_may_be_null)]


def parse_duration(value: Any) -> float:
    """Seconds of a duration such as `30s`, `5m`, `1h30m`, `250ms`, or of a plain number of seconds."""
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
    """A path as `~` and the folder of the configuration file make it; as it is where that folder is not known."""
    folder: Path | None = (info.context or {}).get(FOLDER)
    return str(folder / Path(value).expanduser()) if folder and value else value


FilePath = Annotated[str, AfterValidator(resolved)]


def dotted(location: Iterable[int | str]) -> str:
    """A place of the file as messages name it: `sources[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def is_remote(repository: str) -> bool:
    """Whether Git takes this for a URL or for an address like `git@host:path`: there is a colon before any slash."""
    return ":" in repository.partition("/")[0]
