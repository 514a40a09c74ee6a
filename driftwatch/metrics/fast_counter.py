"""Fast counters for the families with the most series, written without prometheus_client.

Every source, kind and namespace has its counters from the start. A large cluster has tens of thousands of them, and
nearly all never change. At every scrape, prometheus_client creates a sample object and formats every label of each
series, which takes forty microseconds per series on a busy machine. Here a series is one integer, and its labels are
formatted once.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

Labels = tuple[str, ...]
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Series:
    """One counter. `written` is its exposition line without the value."""

    __slots__ = ("value", "written")

    def __init__(self, written: str) -> None:
        self.written = written
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Increase the counter."""
        self.value += by


class FastCounter:
    """A counter with labels, like the library's `Counter`, for integers and without exemplars."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._order = sorted(range(len(self.label_names)), key=self.label_names.__getitem__)  # the library's order
        self._series: dict[Labels, Series] = {}
        self._new: list[Labels] = []
        registry.register(self)

    def labels(self, *values: str) -> Series:
        """Return the counter with these label values. The first call creates it with the value 0."""
        found = self._series.get(values)
        if found is None:
            written = ",".join(f'{self.label_names[at]}="{values[at].translate(_ESCAPES)}"' for at in self._order)
            self._new.append(values)
            found = self._series[values] = Series(f"{self.name}_total{{{written}}} ")
        return found

    def take_new(self) -> list[Labels]:
        """Label values of the series that were made since the last call."""
        new, self._new = self._new, []
        return new

    def remove(self, unwanted: Callable[[Labels], bool]) -> None:
        """Remove every series for whose label values `unwanted` is true."""
        for values in [values for values in self._series if unwanted(values)]:
            del self._series[values]

    def lines(self, most: int) -> Iterator[bytes]:
        """Yield the lines of a snapshot of the series, at most `most` at a time. They fit both text formats."""
        series = list(self._series.values())
        for start in range(0, len(series), most):
            yield "".join([f"{each.written}{each.value}.0\n" for each in series[start : start + most]]).encode()

    def describe(self) -> Iterator[Metric]:
        """Yield the family without samples."""
        yield Metric(self.name, self.documentation, "counter")

    def collect(self) -> Iterator["FastCounterFamily"]:
        """Yield the family with its current samples."""
        yield FastCounterFamily(self)

    def samples(self) -> list[Sample]:
        """Return the samples as the library's objects."""
        return [
            Sample(f"{self.name}_total", dict(zip(self.label_names, values, strict=True)), float(each.value))
            for values, each in self._series.items()
        ]


class FastCounterFamily(Metric):
    """The family of a `FastCounter`. Sample objects are created only on access, not for the text formats."""

    def __init__(self, counter: FastCounter) -> None:
        self.counter = counter
        super().__init__(counter.name, counter.documentation, "counter")

    @property
    def samples(self) -> list[Sample]:
        """Samples for the library's own writers."""
        return self.counter.samples()

    @samples.setter
    def samples(self, _none: list[Sample]) -> None:
        """Ignore the empty list that the library's constructor sets."""
