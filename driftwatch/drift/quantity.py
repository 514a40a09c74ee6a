"""Resource quantities (`512Mi`, `0.5`, `1k`): the one kind of value that the API server keeps under another spelling.

Only for explaining: whoever applies `1k` over our `1000` takes the field's ownership and changes nothing.
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
    """Whether two values are one quantity, as text or number; False for anything else."""
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
