"""When Events are written: after what is urgent, and in the end whatever else goes on."""

import asyncio

import pytest
from driftwatch.metrics.registry import Metrics
from driftwatch.model import ObjectKey
from driftwatch.notify import kubernetes_events as module
from driftwatch.notify.kubernetes_events import GIVES_WAY, Events
from driftwatch.report.drift_event import DriftEvent, EventType
from driftwatch.report.object_lookup import Reference

SEEN = DriftEvent(
    id="1",
    what=EventType.HEALED,
    time=1_800_000_000.0,
    since=1_800_000_000.0,
    key=ObjectKey("", "ConfigMap", "shop", "settings"),
    source="shop",
    type="deleted",
    manager="kubectl",
)


class Session:
    """Takes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.news = asyncio.Event()

    def url(self, path: str) -> str:
        return path

    async def request(self, method: str, _url: str, **_named: object) -> None:
        self.asked.append(method)
        self.news.set()


class ObjectLookup:
    """One object, again and again another one."""

    def __init__(self) -> None:
        self.uid = 0

    def reference(self, key: ObjectKey) -> Reference:
        self.uid += 1
        return Reference("v1", key.kind, key.namespace, key.name, str(self.uid))


async def test_b05_drift_that_does_not_end_holds_events_up_for_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """While something is healed none is written, until it has waited for so long; then each as it comes to its turn."""
    monkeypatch.setattr(module, "PACE_BESIDE_DRIFT", 0.001)
    now, session = 1_800_000_000.0, Session()
    written = Events(session, ObjectLookup(), Metrics(), lambda: True, lambda: now)  # type: ignore[arg-type]
    written.note(SEEN)
    task = asyncio.ensure_future(written.run())
    await asyncio.sleep(0.05)
    assert session.asked == []
    now += GIVES_WAY - 1.0
    written.note(SEEN)
    await asyncio.sleep(0.05)
    assert session.asked == []
    for count in (1, 2):
        now += GIVES_WAY / 2
        async with asyncio.timeout(20):
            await session.news.wait()
        session.news.clear()
        await asyncio.sleep(0.05)
        assert session.asked == ["POST"] * count
        now += GIVES_WAY / 2
    task.cancel()
