"""An outlet that fails in a way that nobody foresaw ends neither the daemon nor itself (h06)."""

import asyncio
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import structlog
from driftwatch.config import Config
from driftwatch.metrics.registry import Metrics
from driftwatch.model import ObjectKey
from driftwatch.notify import dispatcher as outlets
from driftwatch.notify.dispatcher import Dispatcher
from driftwatch.notify.kubernetes_events import Events
from driftwatch.notify.notifier import Notifier
from driftwatch.report.drift_event import DriftEvent, EventType
from driftwatch.tasks import Tasks

SEEN = DriftEvent(
    id="d1",
    what=EventType.HEALED,
    time=1_800_000_000.0,
    since=1_800_000_000.0,
    key=ObjectKey("", "ConfigMap", "shop", "settings"),
    source="shop",
    type="modified",
)
CONFIG = Config.model_validate(
    {
        "sources": [{"name": "shop", "repository": "git.example.com:shop.git"}],
        "notifications": [{"name": "hook", "type": "webhook", "url": "http://127.0.0.1:9", "batchWindow": "1ms"}],
    }
)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited is another task's doing, of which nothing tells
            await asyncio.sleep(0.01)


class Once:
    """Fails the first time that it is called; afterwards it records what it is called with."""

    def __init__(self) -> None:
        self.failed = False
        self.calls: list[Any] = []

    async def __call__(self, *arguments: Any) -> None:
        if not self.failed:
            self.failed = True
            raise KeyError("hunter2")
        self.calls.append(arguments)


@pytest.mark.parametrize(
    ("outlet", "method"),
    [(Notifier, "_send"), (Notifier, "_await_news"), (Events, "_write")],
    ids=["send", "wait", "events"],
)
async def test_h06_an_outlet_that_crashes_is_started_again(
    monkeypatch: pytest.MonkeyPatch, outlet: type, method: str
) -> None:
    """It is logged, and what happens afterwards is told again; the daemon's other tasks go on."""
    monkeypatch.setattr(outlets, "RESTART", (0.01, 0.01), raising=False)
    once, original = Once(), getattr(outlet, method)

    async def fail_once(self: Any, *arguments: Any) -> None:
        await once(*arguments)
        if method == "_await_news":
            await original(self, *arguments)

    monkeypatch.setattr(outlet, method, fail_once)
    tasks, metrics, subjects = Tasks(), Metrics(), Mock()
    subjects.declared_at.return_value = ("a.yaml", 3)
    subjects.reference.return_value = Mock(namespace="shop") if outlet is Events else None
    sources = Mock()
    sources.state.return_value.commit = "c0ffee"
    dispatcher = Dispatcher(Mock(), sources, subjects, Mock(), metrics, lambda: False, tasks.spawn)
    with structlog.testing.capture_logs() as logs:
        dispatcher.configure(CONFIG)
        dispatcher.note(SEEN)
        await until(lambda: once.failed)
        await until(lambda: any(line["log_level"] == "error" for line in logs) or tasks.crash.done())
        assert not tasks.crash.done(), tasks.crash
        dispatcher.note(SEEN)
        await until(lambda: once.calls)
    await tasks.cancel()
    assert not tasks.crash.done()
