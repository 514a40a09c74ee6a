"""The PromQL that panels are made of, so that each question is asked in one way."""

from collections.abc import Sequence

# What the dashboards' variables choose, for families with these labels.
SOURCE = 'source=~"$source"'
KIND = 'kind=~"$kind"'
PLACE = f'{SOURCE}, {KIND}, namespace=~"$namespace"'

# Where `$__interval` is a panel's, it is this at least: four scrapes a minute or fewer are common.
BAR = "5m"

SCRAPE = 60  # seconds, at most, from the start of the daemon until Prometheus asks it first
_SECONDS = {"$__interval": "$__interval_ms / 1000", "$__range": "$__range_s", "1h": "3600"}


def happened(selector: str, over: str = "$__interval") -> str:
    """How often something happened, by the counters that `selector` chooses.

    `increase()` sees no series' birth. Which manager will make an edit nobody knows beforehand, so that the first one
    is the birth of its series, and counts from zero. But it is no birth where Prometheus knew nothing of the daemon
    then, as after an outage of Prometheus, unless the daemon itself was not there: the counter may be days old.
    """
    known = f"driftwatch_build_info offset {over} or time() - process_start_time_seconds < {_SECONDS[over]} + {SCRAPE}"
    born = f"({selector} unless {selector} offset {over}) and on (job, instance) ({known})"
    return f"({born} or increase({selector}[{over}]))"


def total(selector: str, by: Sequence[str] = (), over: str = "$__interval") -> str:
    """Sum of what happened."""
    return f"sum {_by(by)}{happened(selector, over)}"


def rate(selector: str, by: Sequence[str] = ()) -> str:
    """How often a second, where a birth does not matter: for what happens all the time."""
    return f"sum {_by(by)}(rate({selector}[$__rate_interval]))"


def quantile(share: float, selector: str, by: Sequence[str] = (), over: str = "$__rate_interval") -> str:
    """A quantile of a histogram; nothing where nothing was observed, which would be NaN."""
    return f"histogram_quantile({share}, sum by ({', '.join(['le', *by])}) (increase({selector}[{over}]))) >= 0"


def ours(family: str) -> str:
    """A family that other programs export as well, of driftwatch alone."""
    return f"({family} and on (job, instance) driftwatch_build_info)"


def in_cluster(expression: str) -> str:
    """The same where a name stands for the missing namespace of what has none."""
    return f'label_replace({expression}, "namespace", "(cluster)", "namespace", "")'


def _by(labels: Sequence[str]) -> str:
    return f"by ({', '.join(labels)}) " if labels else ""
