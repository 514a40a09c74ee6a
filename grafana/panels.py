"""How our panels look: every panel of a kind is made here, so that the same thing looks the same everywhere."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, heatmap, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import DashboardLink, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery as AnyQuery
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import BAR

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = "green", "yellow", "orange", "red", "blue", "purple", "#8e8e8e"
# What a word means has one colour on every panel.
_COLOURS = {
    "deleted": RED,
    "modified": ORANGE,
    "added": YELLOW,
    "orphaned": PURPLE,
    "person": ORANGE,
    "controller": BLUE,
    "unknown": GREY,
    "success": GREEN,
    "deferred": YELLOW,
    "failed": RED,
    "failure": RED,
}
TYPES = ("deleted", "modified", "added", "orphaned")
ACTORS = ("person", "controller", "unknown")
RESULTS = ("success", "deferred", "failed")
Steps = Sequence[tuple[float | None, str]]
BAD_FROM_ONE: Steps = ((None, GREEN), (1, RED))
SEEN_FROM_ONE: Steps = ((None, GREEN), (1, ORANGE))
PLAIN: Steps = ((None, BLUE),)


class _Builder(Protocol):
    """What the builders of all types of panels have in common."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...
    def thresholds(self, thresholds: ThresholdsConfig) -> Self: ...
    def with_target(self, target: Builder[AnyQuery]) -> Self: ...


_B = TypeVar("_B", bound=_Builder)


# --- Queries ---


def line(expression: str, legend: str, *, exemplars: bool = False) -> Dataquery:
    """A query over the dashboard's time range."""
    return Dataquery().expr(expression).legend_format(legend).range().exemplar(exemplars)


def now(expression: str, legend: str = "") -> Dataquery:
    """A query at the end of the time range."""
    return Dataquery().expr(expression).legend_format(legend).instant()


def _rows(expression: str) -> Dataquery:
    return Dataquery().expr(expression).instant().format(PromQueryFormat.TABLE)


# --- Panels ---


def number(
    title: str, description: str, expression: str, *, unit: str = "short", steps: Steps = PLAIN, empty: str = "0",
    words: Mapping[str, tuple[str, str]] | None = None, span: int = 4, decimals: int = 0,
) -> stat.Panel:  # fmt: skip
    """One number. `words` say what a value means, and in which colour."""
    panel = (
        stat.Panel()
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.BACKGROUND if steps is not PLAIN else options.BigValueColorMode.VALUE)
        .text_mode(options.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .decimals(decimals)
        .mappings(_mappings(words or {}))
    )
    return _dressed(panel, title, description, [now(expression)], unit, (span, 4), empty, steps)


def bars(
    title: str, description: str, *queries: Dataquery, unit: str = "short", span: int = 12, words: Sequence[str] = ()
) -> timeseries.Panel:
    """How often something happened, in bars that do not overlap: each is `$__interval` wide.

    `words` are legends that have colours of their own.
    """
    panel = (
        _graph()
        .draw_style(options.GraphDrawStyle.BARS)
        .stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
        .fill_opacity(80)
        .line_width(0)
        .interval(BAR)
        .decimals(0)
    )
    for word in words:
        value = {"mode": "fixed", "fixedColor": _COLOURS[word]}
        panel.override_by_name(word, [DynamicConfigValue(id_val="color", value=value)])
    return _dressed(panel, title, description, queries, unit, (span, 8))


def lines(
    title: str, description: str, *queries: Dataquery, unit: str = "short", span: int = 12, steps: Steps = PLAIN,
    stacked: bool = False, logarithmic: bool = False,
) -> timeseries.Panel:  # fmt: skip
    """Values as they went. Thresholds are drawn as dashed lines."""
    panel = _graph().fill_opacity(30 if stacked else 8).line_width(1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if logarithmic:
        panel.scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
    else:
        panel.axis_soft_min(0)
    if steps is not PLAIN:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED))
    return _dressed(panel, title, description, queries, unit, (span, 8), steps=steps)


def ranking(title: str, description: str, query: Dataquery, *, span: int = 6) -> bargauge.Panel:
    """Who or what leads, as bars with names."""
    panel = (
        bargauge.Panel()
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .value_mode(options.BarGaugeValueMode.TEXT)
        .name_placement(options.BarGaugeNamePlacement.TOP)
        .sizing(options.BarGaugeSizing.MANUAL)
        .max_viz_height(24)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .decimals(0)
        .min(0)
    )
    return _dressed(panel, title, description, [query], "short", (span, 9), "none")


def states(
    title: str, description: str, query: Dataquery, words: Mapping[str, tuple[str, str]], *, span: int = 12
) -> statetimeline.Panel:
    """States over time, one row a series."""
    panel = (
        statetimeline.Panel()
        .mappings(_mappings(words))
        .show_value(options.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(70)
        .line_width(0)
    )
    return _dressed(panel, title, description, [query], "short", (span, 8))


def heat(title: str, description: str, expression: str, *, unit: str, span: int = 12) -> heatmap.Panel:
    """A histogram over time, by its buckets."""
    panel = (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(heatmap.HeatmapColorOptions().scheme("Oranges").steps(64))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .interval(BAR)
    )
    query = line(expression, "{{le}}").format(PromQueryFormat.HEATMAP)
    return _dressed(panel, title, description, [query], unit, (span, 8))


def listing(
    title: str, description: str, expressions: Mapping[str, str], columns: Mapping[str, str], *, unit: str,
    span: int = 24, height: int = 9, units: Mapping[str, str] | None = None, links: Sequence[DashboardLink] = (),
    descending: bool = True,
) -> table.Panel:  # fmt: skip
    """Series as a table, those with the highest value first. `expressions` by the name of the column of their values.

    `columns` are labels, in order, and what they are called. Labels that are not among them are left out.
    """
    [first, *_] = expressions
    panel = table.Panel().filterable(True).data_links(list(links))
    panel.sort_by([common.TableSortByFieldState().display_name(first).desc(descending)])
    if len(expressions) > 1:
        panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    values = {f"Value #{_REFERENCES[place]}": name for place, name in enumerate(expressions)}
    if len(expressions) == 1:
        values = {"Value": first}
    shown = {**columns, **values}
    panel.with_transformation(
        DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(shown)}})
    )
    panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={"indexByName": {name: place for place, name in enumerate(shown)}, "renameByName": shown},
        )
    )
    for name, other in (units or {}).items():
        panel.override_by_name(name, [DynamicConfigValue(id_val="unit", value=other)])
    panel.override_by_field_type("string", [DynamicConfigValue(id_val="unit", value="string")])
    queries = [_rows(expression) for expression in expressions.values()]
    return _dressed(panel, title, description, queries, unit, (span, height), "-")


def to_dashboard(title: str, uid: str, variables: Mapping[str, str]) -> DashboardLink:
    """A link from a row of a table to a dashboard, about what the row is about: variables by columns."""
    chosen = "".join(f"&var-{name}=${{__data.fields.{column}}}" for name, column in variables.items())
    return (
        DashboardLink(title)
        .type(DashboardLinkType.LINK)
        .url(f"/d/{uid}?var-datasource=${{datasource}}{chosen}&${{__url_time_range}}")
    )


_REFERENCES = "ABCDEFGH"


def _graph() -> timeseries.Panel:
    return (
        timeseries.Panel()
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .show_points(options.VisibilityMode.AUTO)
    )


def _dressed(
    panel: _B, title: str, description: str, queries: Sequence[Dataquery], unit: str, size: tuple[int, int],
    empty: str = "no data", steps: Steps = PLAIN,
) -> _B:  # fmt: skip
    """What every panel has."""
    width, height = size
    panel.title(title).description(description).datasource(DATASOURCE).span(width).height(height)
    panel.unit(unit).no_value(empty).thresholds(_thresholds(steps))
    for reference, query in zip(_REFERENCES, queries, strict=False):
        panel.with_target(query.ref_id(reference).datasource(DATASOURCE))
    return panel


def _thresholds(steps: Steps) -> ThresholdsConfig:
    found = [Threshold(value=value, color=colour) for value, colour in steps]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)


def _mappings(words: Mapping[str, tuple[str, str]]) -> list[ValueMapping]:
    if not words:
        return []
    return [ValueMap({value: ValueMappingResult(text=text, color=colour) for value, (text, colour) in words.items()})]
