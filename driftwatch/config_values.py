"""Values of the configuration file that are more than text or number."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
_DURATION_PARTS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


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
