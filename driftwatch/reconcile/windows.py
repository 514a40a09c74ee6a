"""Heals drift that was only reported, when a healing window of its source opens."""

import asyncio
from typing import Protocol

import structlog

from driftwatch.model import ObjectKey
from driftwatch.reconcile.controller import Controller
from driftwatch.reconcile.schedule import Schedule

WINDOW_STEP = 1.0  # seconds between checks of the healing windows

log = structlog.get_logger()


class OpenDrifts(Protocol):
    """The objects that differ from Git now."""

    def drifting_of(self, source: str) -> set[ObjectKey]:
        """Drifted objects that the source declares."""


class HealingWindows:
    """Checks the healing windows. Runs on the daemon's event loop."""

    def __init__(self, schedule: Schedule, drifts: OpenDrifts, controller: Controller) -> None:
        self._schedule = schedule
        self._drifts = drifts
        self._controller = controller

    async def run(self) -> None:
        """Check the windows until cancelled."""
        was_open: dict[str, bool] = {}
        while True:
            for source in self._schedule.windows:
                is_open = self._schedule.is_open(source)
                if is_open and was_open.get(source) is False:
                    drifting = self._drifts.drifting_of(source)
                    log.info("healing window opens", source=source, drifting=len(drifting))
                    self._controller.reconsider(drifting)
                was_open[source] = is_open
            await asyncio.sleep(WINDOW_STEP)
