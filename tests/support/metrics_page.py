"""The page about the metrics, docs/metrics.md, made from the registry: `python -m tests.support.metrics_page`."""

from collections.abc import Iterator
from pathlib import Path

from driftwatch.metrics.registry import Metrics
from prometheus_client.metrics_core import Metric

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"

_SECTIONS = {
    "Drift and healing": (
        "drift",
        "heal",
        "absent",
        "object",
        "detection",
        "refused",
        "snooze",
        "orphan",
        "prune",
        "contest",
    ),
    "Queue": ("queue", "parked"),
    "What is managed, and the audit": ("managed", "audit"),
    "Watches": ("watch_",),
    "API server": ("api",),
    "Git and sources": ("git", "source", "desired", "webhooks", "render"),
    "The daemon": ("",),
}
_LABELS = ("label_names", "_labelnames", "_labels")  # of a tally, of the library's families, of a live one
_LIBRARY = ("process_", "python_")

_HEAD = """\
# Metrics

`/metrics` on `server.listen` answers in Prometheus' text format, and in OpenMetrics with exemplars to whoever asks for
it, as Prometheus does. The tables are made from the registry by `python -m tests.support.metrics_page`; a test compares
them with it. [runbooks.md](runbooks.md) says what to do about each alert in `config/prometheus/`.

## What the labels hold

| label | |
|---|---|
| `source` | name of a source of the configuration |
| `kind` | `Deployment`, `Certificate.cert-manager.io`: with its group where it is not one of Kubernetes' own |
| `namespace` | of the object; empty for cluster-scoped ones |
| `type` | how an object differs: `deleted`, `modified`, `added` (a field that Git does not declare), `orphaned` |
| `manager` | field manager that made the change; `unknown` where the API server notes nobody, as for a deletion |
| `actor` | `person`: a manager that people write under (`driftwatch rules` lists them); `controller`; `unknown` |
| `result` | `success`, `deferred` (tried again, or waits for an event), `failed` (needs somebody) |
| `outcome` | what a refusal meant: `failed`, `immutable`, `retry`, `kind_missing`, `namespace_missing` and the like |
| `verdict` | what an event of a watch meant; `in_sync`, `stale` and `unmanaged` cost nothing further |
| `priority` | `drift` goes before `sync` (new commits, first passes) |

## What they promise

- **Names and labels are fixed.** A change of one is announced in the release notes, a release ahead.
- **No series without end.** Sources, kinds and namespaces are those that the configuration and Git name. Of managers,
  versions, numbers and random parts are cut off, and after fifty names all others are `other`. Objects have no series,
  but for the hundred that have differed, or been refused, for longest, and those that differed last: an alert must be
  able to name them. Of the latter, deleted namespaces and what persons changed have a hundred places each that nothing
  else can take: what comes back with a namespace, or a controller's storm, hides neither.
- **Series go with what they are about**: when a source is dropped, when Git declares no object of the kind in the
  namespace any more, when a kind is not watched any more. What is counted in a namespace that Git has left, such as
  orphans and prunes, goes an hour later.
- **Counters begin at zero** when Git first declares something in a place, so that `increase()` sees the first event:
  `driftwatch_heals_total` for each result, and `driftwatch_drift_total` for deletions. Which manager will make an edit
  nobody knows beforehand: what is to see a manager's very first edit asks for a new series as well, as the alert rules
  do. A series is new where Prometheus knew the daemon before it knew the series, or the daemon itself has just started;
  after a gap in Prometheus' own data every series looks new, and is not.
- **Counting costs nothing.** Events are counted in plain integers, which are read at a scrape. The answer to a scrape
  is made in pieces of under a millisecond, between which heals have their turn; who is slow to take it in is given up
  after ten seconds.

## TLS and token

`server.certificateFile` and `server.keyFile` make the server speak TLS; a renewed certificate counts within seconds.
With `server.tokenFile` every request needs the token in that file, but for the probes (`server.openProbes`).
[deployment.md](deployment.md#tls-and-a-token) has both for a cluster with the Prometheus operator. For a plain
Prometheus:

```yaml
scrape_configs:
  - job_name: driftwatch
    honor_labels: true        # else the target's namespace takes the place of the object's
    scheme: https
    tls_config: {ca_file: /etc/prometheus/driftwatch-ca.crt, server_name: driftwatch.driftwatch-system.svc}
    authorization: {credentials_file: /etc/prometheus/driftwatch-token}
    static_configs: [{targets: ["driftwatch.driftwatch-system.svc:9464"]}]
```
"""


def families() -> Iterator[Metric]:
    """Every family that driftwatch exports, whether or not it has samples now."""
    registry = Metrics().registry
    seen = set()
    for collector in registry._collector_to_names:
        for family in collector.describe() if hasattr(collector, "describe") else collector.collect():
            if family.name not in seen:
                seen.add(family.name)
                family.labels = tuple(next(filter(None, (getattr(collector, name, None) for name in _LABELS)), ()))
                yield family


def exported(family: Metric) -> str:
    """The name under which Prometheus knows it."""
    return f"{family.name}_total" if family.type == "counter" else family.name


def page() -> str:
    """The page as it should be."""
    found = {exported(family): family for family in families()}
    parts = [_HEAD]
    ours = {name: family for name, family in found.items() if not name.startswith(_LIBRARY)}
    for title, beginnings in _SECTIONS.items():
        chosen = [name for name in ours if name.removeprefix("driftwatch_").startswith(beginnings)]
        parts.append(_table(title, {name: ours.pop(name) for name in chosen}))
    parts.append(_table("Process", {name: each for name, each in found.items() if name.startswith(_LIBRARY)}))
    return "".join(parts)


def _table(title: str, chosen: dict[str, Metric]) -> str:
    rows = "".join(
        f"| `{name}` | {family.type if family.type != 'info' else 'gauge'} | "
        f"{', '.join(family.labels)} | {family.documentation} |\n"
        for name, family in chosen.items()
    )
    return f"\n## {title}\n\n| metric | type | labels | |\n|---|---|---|---|\n{rows}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
