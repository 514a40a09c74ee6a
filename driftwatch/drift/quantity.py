"""Resource quantities (`512Mi`, `0.5`, `1k`): the only kind of value that the API server stores in another spelling.

This module only serves to explain drift. A manager that applies `1k` over our `1000` takes the ownership of the field
and changes no value.
"""

import re
from decimal import Decimal

from driftwatch.drift.fieldset import Path

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

# The fields of the API that hold quantities, or maps of them.
_HOLDERS = frozenset(
    f"f:{name}"
    for name in (
        "averageValue",
        "capacity",
        "default",
        "defaultRequest",
        "divisor",
        "hard",
        "limits",
        "max",
        "maxLimitRequestRatio",
        "min",
        "overhead",
        "requests",
        "sizeLimit",
    )
)


def is_quantity(path: Path) -> bool:
    """Whether a field of Kubernetes' own kinds at this path holds a quantity."""
    return not _HOLDERS.isdisjoint(path)


def same(one: object, other: object) -> bool:
    """Whether two values are the same quantity, as text or number. False for other values."""
    first, second = _parsed(one), _parsed(other)
    return first is not None and first == second


def _parsed(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    number, exponent, suffix = found.groups()
    if exponent:
        return Decimal(number + exponent)
    if suffix in _BINARY:
        return Decimal(number) * Decimal(2 ** _BINARY[suffix])
    return Decimal(number).scaleb(_DECIMAL[suffix or ""])
