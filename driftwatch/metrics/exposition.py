"""Writes the answer to a scrape in small pieces, so that a scrape does not delay heals.

All samples of ten thousand objects at once would block the event loop for tens of milliseconds. The writer therefore
yields to the event loop after every few dozen samples. Only one answer is written at a time. It serves all scrapes
that arrived before it was started. A pause follows each answer.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from driftwatch.metrics.fast_counter import FastCounterFamily

SAMPLES = 50
"""Samples written before yielding to the event loop: under a millisecond."""

REST = 4.0
"""Pause after an answer, as a multiple of its duration: scrapes take at most a fifth of the event loop's time."""

LINES = 1000
"""Lines of a `FastCounter` written before yielding. They are mostly precomputed."""

_END = b"# EOF\n"

Encode = Callable[[Collector], bytes]


class Exposition(NamedTuple):
    """An answer: body, content type and a sequence number, which counts started answers."""

    body: bytes
    content_type: str
    number: int


class MetricsEndpoint:
    """Writes the answers to scrapes from a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = asyncio.Lock()
        self._begun = 0
        self._rests_until = 0.0
        self._newest: dict[str, Exposition] = {}

    async def answer(self, accept: str) -> Exposition:
        """Return all metrics, not older than this call, in the newest format that the header `Accept` allows."""
        arrived = self._begun
        encode, content_type = choose_encoder(accept)
        async with self._lock:
            newest = self._newest.get(content_type)
            if newest is None or newest.number <= arrived:
                loop = asyncio.get_running_loop()
                await asyncio.sleep(max(self._rests_until - loop.time(), 0.0))
                self._begun += 1
                began = loop.time()
                newest = Exposition(await self._made(encode), content_type, self._begun)
                self._newest = {content_type: newest}
                self._rests_until = loop.time() + REST * (loop.time() - began)
            return newest

    async def _made(self, encode: Encode) -> bytes:
        parts: list[bytes] = []
        for family in self._registry.collect():
            if isinstance(family, FastCounterFamily):
                parts.append(_head(family, encode))
                for lines in family.counter.lines(LINES):
                    parts.append(lines)
                    await asyncio.sleep(0)
                continue
            for piece in _pieces(family):
                parts.append(_written(piece, encode, headed=piece is family or piece.samples[0] is family.samples[0]))
                await asyncio.sleep(0)
        if encode(_Alone(None)).endswith(_END):
            parts.append(_END)
        return b"".join(parts)


def _pieces(family: Metric) -> Iterator[Metric]:
    """Split the family into pieces of at most `SAMPLES` samples."""
    if len(family.samples) <= SAMPLES:
        yield family
        return
    for start in range(0, len(family.samples), SAMPLES):
        piece = Metric(family.name, family.documentation, family.type, family.unit)
        piece.samples = family.samples[start : start + SAMPLES]
        yield piece


def _head(family: Metric, encode: Encode) -> bytes:
    return encode(_Alone(Metric(family.name, family.documentation, family.type))).removesuffix(_END)


def _written(family: Metric, encode: Encode, *, headed: bool) -> bytes:
    """Encode a piece as text. Only the first piece of a family (`headed`) has HELP and TYPE lines."""
    text = encode(_Alone(family)).removesuffix(_END)
    while not headed and text.startswith(b"# "):
        text = text.partition(b"\n")[2]
    return text


class _Alone:
    """Adapter that presents one family, or none, to the library as a registry."""

    def __init__(self, family: Metric | None) -> None:
        self._family = family

    def collect(self) -> list[Metric]:
        return [self._family] if self._family is not None else []
