"""The committed Grafana dashboards, and their queries as Grafana would send them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "grafana"
NAMES = ("driftwatch-overview", "driftwatch-detail")

Dashboard = dict[str, Any]


class Query(NamedTuple):
    """A query of a dashboard: who asks, the expression, and whether it is for a moment or for the time range."""

    dashboard: str
    asker: str
    expression: str
    instant: bool = False


def dashboards() -> dict[str, Dashboard]:
    """Each committed dashboard by its name."""
    return {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) for name in NAMES}


def panels(dashboard: Dashboard) -> Iterator[Dashboard]:
    """Its panels, without the rows."""
    return (each for each in dashboard["panels"] if each["type"] != "row")


def queries() -> Iterator[Query]:
    """Every query of panels and annotations. Those of variables are `variables`."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                asker = f"{panel['title']}, {target['refId']}"
                yield Query(name, asker, target["expr"], target["instant"])
        for each in dashboard["annotations"]["list"]:
            yield Query(name, f"annotation {each['name']}", each["expr"])


def variables(dashboard: Dashboard) -> dict[str, tuple[str, str]]:
    """Of each variable with a query the expression and the label whose values it has."""
    found = {}
    for each in dashboard["templating"]["list"]:
        if each["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", each["query"]["query"])
            assert match, each
            found[each["name"]] = (match[1], match[2])
    return found


def substituted(
    expression: str, chosen: Mapping[str, Sequence[str]], *, interval: str, rate_interval: str, over: str
) -> str:
    """An expression with its variables as Grafana's Prometheus data source puts them in.

    `chosen` are the values of variables; one that is not among them is All, which is `allValue` as it is.
    """
    built_in = {
        "__interval": interval,
        "__interval_ms": f"{1000 * _seconds(interval)}",
        "__rate_interval": rate_interval,
        "__range": over,
        "__range_s": f"{_seconds(over)}",
    }

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name in built_in:
            return built_in[name]
        if name in chosen:
            return _one_of(chosen[name])
        return _all_values()[name]

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, expression)


def _seconds(duration: str) -> int:
    number, unit = int(duration[:-1]), duration[-1]
    return number * {"s": 1, "m": 60, "h": 3600}[unit]


def _one_of(values: Sequence[str]) -> str:
    """Values of a variable of which there may be several, as a pattern inside a quoted string."""
    quoted = [re.sub(r"[$^*{}\[\]'+?.()|]", r"\\\\\g<0>", each.replace("\\", "\\\\\\\\")) for each in values]
    return quoted[0] if len(quoted) == 1 else f"({'|'.join(quoted)})"


def _all_values() -> dict[str, str]:
    return {
        each["name"]: each["allValue"]
        for dashboard in dashboards().values()
        for each in dashboard["templating"]["list"]
        if each["type"] == "query"
    }
