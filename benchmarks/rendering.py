"""Measures rendering and its effect on heals: a cold start over plain files, a large chart, and heals meanwhile.

One source of the daemon renders the large chart repeatedly. The probe deletes single objects of the other source. This
is the case for which the desired-state process is separate and its tools have a low priority.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from driftwatch.desired.snapshot import Snapshots
from driftwatch.git.repository import Repository as Mirror
from driftwatch.localcluster import Progress
from driftwatch.source_spec import HelmSpec, RenderSpec, SourceSpec
from driftwatch.tools import HELM, ensure

from benchmarks import objects
from benchmarks.figures import MEDIAN_BUDGET, Check, Results
from benchmarks.latency import single
from benchmarks.plan import Plan
from benchmarks.repository import Repository, keep_committing
from benchmarks.room import Daemon, Room, repository_of

NAMESPACE = "rendered"

_TEMPLATE = """\
{{- range $number := until (int .Values.count) }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: item-{{ printf "%05d" $number }}
  namespace: NAMESPACE
  labels:
    app: {{ $.Release.Name }}
data:
  revision: {{ if eq $number 0 }}{{ $.Values.revision | quote }}{{ else }}"0"{{ end }}
  setting: {{ repeat 20 "declared " | quote }}
{{- end }}
"""


def rendering(folder: Path, progress: Progress, plan: Plan, results: Results) -> None:
    """Run all rendering measurements."""
    ensure(HELM, progress)
    _cold_plain(progress, plan, results)
    _large_chart(progress, plan, results)
    with Room(folder / "rendering", progress, 0, [NAMESPACE]) as room:
        _heals(room, plan, results)


def _cold_plain(progress: Progress, plan: Plan, results: Results) -> None:
    size = max(plan.sizes)
    progress.note(f"{size:,} plain manifests, read from nothing.")
    with tempfile.TemporaryDirectory(prefix="driftwatch-bench-") as temporary:
        repository = Repository(Path(temporary) / "git")
        repository.commit(objects.files(objects.many(NAMESPACE, size)), "Declare everything")
        snapshots, mirror = _reader(repository, Path(temporary), RenderSpec())
        fetched = _timed(mirror.sync)
        taken = _timed(lambda: snapshots.at(mirror.sync()))
        results.checks.append(
            Check(
                f"Cold start over {size:,} plain manifests, a file each: fetch, then read",
                f"{fetched:.2f} s, then {taken:.2f} s ({size / taken:,.0f} manifests/s)",
            )
        )


def _large_chart(progress: Progress, plan: Plan, results: Results) -> None:
    count = plan.chart
    progress.note(f"A chart of {count:,} objects.")
    with tempfile.TemporaryDirectory(prefix="driftwatch-bench-") as temporary:
        repository = Repository(Path(temporary) / "git")
        repository.commit(_chart(count, 0), "Declare everything")
        snapshots, mirror = _reader(repository, Path(temporary), RenderSpec(helm=HelmSpec(chart="chart"), kind="helm"))
        mirror.sync()
        cold = _timed(lambda: snapshots.at(mirror.sync()))
        repository.commit({PurePosixPath("readme.md"): "x"}, "Change no input")
        mirror.sync()
        cached = _timed(lambda: snapshots.at(mirror.sync()))
        results.checks.append(
            Check(
                f"A chart of {count:,} objects: rendered and read; the same at a commit that changes no input",
                f"{cold:.2f} s; {cached:.2f} s, {snapshots.renderings} run of helm",
                "one run of helm",
                snapshots.renderings == 1,
            )
        )


def _heals(room: Room, plan: Plan, results: Results) -> None:
    """Measure single deletions, alone and while the chart is rendered repeatedly."""
    charted = Repository(room.folder / "chart-repository")
    charted.commit(_chart(plan.chart, 0), "Declare everything")
    plain = repository_of(room, NAMESPACE, objects.contested(NAMESPACE, 0))
    source = {
        "name": "chart",
        "repository": str(charted.folder),
        "interval": "200ms",
        "mode": "observe",
        "path": "chart",
    }
    daemon = Daemon(room, NAMESPACE, plain, "30s", [source | {"mode": "observe"}])
    daemon.start()
    alone = single(room, "delete", "ConfigMap", NAMESPACE, plan.repetitions_beside, suffix=", nothing rendered")
    # Each commit changes one object, and the whole chart is rendered again.
    with keep_committing(charted, partial(_chart, plan.chart)):
        suffix = f", a chart of {plan.chart:,} being rendered"
        busy = single(room, "delete", "ConfigMap", NAMESPACE, plan.repetitions_beside, suffix=suffix)
    busy.budgets = (MEDIAN_BUDGET, None)
    results.duels += [alone, busy]
    quiet, rendering_ = statistics.median(alone.daemon), statistics.median(busy.daemon)
    results.checks.append(
        Check(
            "Median time to heal, alone and while a large chart is rendered",
            f"{quiet * 1e3:.1f} ms, {rendering_ * 1e3:.1f} ms",
            "twice the floor while it is rendered",
            busy.met,
        )
    )


def _chart(count: int, revision: int) -> dict[PurePosixPath, str]:
    return {
        PurePosixPath("chart/Chart.yaml"): "apiVersion: v2\nname: large\nversion: 1.0.0\n",
        PurePosixPath("chart/values.yaml"): f"count: {count}\nrevision: {revision}\n",
        PurePosixPath("chart/templates/items.yaml"): _TEMPLATE.replace("NAMESPACE", NAMESPACE),
    }


def _reader(repository: Repository, folder: Path, render: RenderSpec) -> tuple[Snapshots, Mirror]:
    spec = SourceSpec(
        name="bench",
        repository=str(repository.folder),
        revision="main",
        path="",
        interval=30.0,
        timeout=60.0,
        namespace=NAMESPACE,
        mirror=str(folder / "mirror"),
        render=render,
    )
    mirror = Mirror(spec)
    return Snapshots(spec, mirror), mirror


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
