"""A desired-state process that crashes at its start is told with its last words, and started again (h11)."""

import asyncio
from pathlib import Path

import pytest
import structlog
from driftwatch.desired import client

from tests.unit.test_h_reload import Cluster, config_of, running, until


async def test_h11_a_process_that_crashes_at_its_start_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log and in what /readyz answers, without credentials; it is started again, and then nothing is missing."""
    module = tmp_path / "broken" / "msgspec.py"
    module.parent.mkdir()
    module.write_text("raise ImportError('no luck at https://me:hunter2@example.com')\n")
    whole = client._environment()
    monkeypatch.setattr(client, "_environment", lambda: {**whole, "PYTHONPATH": str(module.parent)})
    with structlog.testing.capture_logs() as logs:
        async with running(Cluster(), config_of(tmp_path, "a:"), tmp_path) as daemon:
            await until(lambda: daemon._desired.restarts >= 2)
            words = "ImportError: no luck at https://***@example.com"
            [told] = [each for each in daemon.missing() if each.startswith("desired-state process: ")]
            assert f"status 1): {words}" in told
            monkeypatch.setattr(client, "_environment", lambda: whole)
            async with asyncio.timeout(20):
                while any("desired-state process" in each for each in daemon.missing()):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    lines = [line for line in logs if line["event"].startswith("the desired-state process ended")]
    assert {(line["reason"], line["error"]) for line in lines} == {("status 1", words)}
