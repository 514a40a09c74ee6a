"""A picture of the story of drift, drawn from what Prometheus scraped: `python -m tests.support.story_picture`.

It plays the story on a control plane of its own, which takes two minutes, and writes docs/images/story.svg. Nothing in
it is made up: every line is the answer to the query that stands above it.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from driftwatch.localcluster import LocalCluster

from tests.support.drift_story import Story, played
from tests.support.kubectl import Kubectl
from tests.support.live import Live

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "story.svg"
WIDTH, HEIGHT = 860, 170  # of one chart
LEFT, RIGHT, TOP, BOTTOM = 40, 190, 44, 26
STEP = 0.5
COLOURS = ("#c4162a", "#e0762f", "#3274d9", "#8f3bb8", "#37872d", "#8e8e8e")


class Chart(NamedTuple):
    """What is asked, and which label names a line."""

    title: str
    query: str
    label: str


CHARTS = (
    Chart("Drift by type, so far", "sum by (type) (driftwatch_drift_total)", "type"),
    Chart("Drift by manager, so far", "sum by (manager) (driftwatch_drift_total) > 0", "manager"),
    Chart("Objects that differ from Git", "sum by (source) (driftwatch_drifted_objects)", "source"),
    Chart("Heals by result, so far", "sum by (result) (driftwatch_heals_total)", "result"),
)


def drawn(story: Story) -> str:
    """The picture as SVG."""
    end = time.time()
    parts = [
        _chart(chart, story.prometheus.query_range(chart.query, story.began, end, STEP), story.began, end, place)
        for place, chart in enumerate(CHARTS)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(CHARTS)}" '
        'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT * len(CHARTS)}" fill="#ffffff"/>\n' + "".join(parts) + "</svg>\n"
    )


def _chart(chart: Chart, series: Sequence[dict[str, Any]], began: float, end: float, place: int) -> str:
    highest = max((float(value) for each in series for _, value in each["values"]), default=1.0) or 1.0
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(when: float) -> float:
        return LEFT + (when - began) / (end - began) * (right - LEFT)

    def y(value: float) -> float:
        return bottom - value / highest * (bottom - TOP)

    lines = [
        f'<text x="{LEFT}" y="16" font-size="13" font-weight="bold">{escape(chart.title)}</text>',
        f'<text x="{LEFT}" y="31" fill="#6e6e6e" font-family="monospace">{escape(chart.query)}</text>',
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#8e8e8e"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">{highest:g}</text>',
        f'<text x="{LEFT - 6}" y="{bottom + 4}" text-anchor="end">0</text>',
        *_seconds(end - began, lambda seconds: x(began + seconds), bottom),
    ]
    for number, each in enumerate(sorted(series, key=lambda found: -float(found["values"][-1][1]))):
        colour = COLOURS[number % len(COLOURS)]
        points = [(x(float(when)), y(float(value))) for when, value in each["values"]]
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in points[1:])
        name = escape(f"{each['metric'].get(chart.label, '(none)')}: {float(each['values'][-1][1]):g}")
        lines += [
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>',
            f'<text x="{right + 12}" y="{TOP + 8 + 14 * number}" fill="{colour}">{name}</text>',
        ]
    return f'<g transform="translate(0 {place * HEIGHT})">\n' + "\n".join(lines) + "\n</g>\n"


def _seconds(duration: float, x: Any, bottom: float) -> Iterator[str]:
    for seconds in range(0, int(duration) + 1, 10):
        yield f'<text x="{x(seconds):.1f}" y="{bottom + 16}" text-anchor="middle">{seconds} s</text>'


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("cluster", "credentials", "home", "story")}
        for path in paths.values():
            path.mkdir()
        cluster = LocalCluster(paths["cluster"])
        cluster.up()
        try:
            live = Live(cluster.kubeconfig, paths["credentials"])
            kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, paths["home"])
            with played(cluster, live, kubectl, paths["story"]) as told:
                PICTURE.parent.mkdir(exist_ok=True)
                PICTURE.write_text(drawn(told), encoding="utf-8")
            live.close()
        finally:
            cluster.down(delete=True)
