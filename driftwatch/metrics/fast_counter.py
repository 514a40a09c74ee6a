"""Counters of the families with the most series, which are written without the library's help.

Every place in which Git declares something has its counters from the start, so a large cluster has tens of thousands of
them, nearly all of which never move. The library makes a sample object and formats every label of each at every scrape,
forty microseconds a series on a busy machine. Here a series is one integer, and its labels are written once.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

Labels = tuple[str, ...]
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Series:
    """One counter. `written` is its line but for the value."""

    __slots__ = ("value", "written")

    def __init__(self, written: str) -> None:
        self.written = written
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Count."""
        self.value += by


class FastCounter:
    """A counter with labels, as the library's `Counter`, but for whole numbers and without exemplars."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._order = sorted(range(len(self.label_names)), key=self.label_names.__getitem__)  # as the library writes
        self._series: dict[Labels, Series] = {}
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """The counter with these label values; it is there, at zero, from the first time that it is asked for."""
        found = self._series.get(values)
        if found is None:
            written = ",".join(f'{self.label_names[at]}="{values[at].translate(_ESCAPES)}"' for at in self._order)
            found = self._series[values] = Series(f"{self.name}_total{{{written}}} ")
        return found

    def remove(self, unwanted: Callable[[Labels], bool]) -> None:
        """Remove every series whose label values are unwanted."""
        for values in [values for values in self._series if unwanted(values)]:
            del self._series[values]

    def lines(self, most: int) -> Iterator[bytes]:
        """The samples in either text format, at most so many at a time; what comes meanwhile is in the next answer."""
        series = list(self._series.values())
        for start in range(0, len(series), most):
            yield "".join([f"{each.written}{each.value}.0\n" for each in series[start : start + most]]).encode()

    def describe(self) -> Iterator[Metric]:
        """The family without samples."""
        yield Metric(self.name, self.documentation, "counter")

    def collect(self) -> Iterator["Tallied"]:
        """The family as it is now."""
        yield Tallied(self)

    def samples(self) -> list[Sample]:
        """The samples as the library has them."""
        return [
            Sample(f"{self.name}_total", dict(zip(self.label_names, values, strict=True)), float(each.value))
            for values, each in self._series.items()
        ]


class Tallied(Metric):
    """The family of a tally: its samples are made for whoever wants samples, and not for the text."""

    def __init__(self, tally: FastCounter) -> None:
        self.tally = tally
        super().__init__(tally.name, tally.documentation, "counter")

    @property
    def samples(self) -> list[Sample]:
        """What the library's own writers ask for."""
        return self.tally.samples()

    @samples.setter
    def samples(self, _none: list[Sample]) -> None:
        """The library begins with none."""
