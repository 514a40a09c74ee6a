"""The safety net: a slow round of dry runs over everything that is held to be in sync.

It finds what no event has told of. Events tell of everything, so whatever it finds is a defect somewhere, and is
counted apart: the number should be zero.
"""

import asyncio
from typing import Protocol

import structlog

from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.model import Drift, Mode, ObjectKey, named
from driftwatch.reconcile.controller import Controller

SHORTEST_STEP = 0.02  # seconds between two objects, however many there are: the API server has other work
LOOK_AGAIN = 0.05  # seconds between two looks whether drift is still being healed
FIRST_ROUND = 60.0  # seconds after the start until the first round: a restart asks the API server for enough

log = structlog.get_logger()


class AuditReporter(Protocol):
    """Who is told of the audit."""

    def audited(self, key: ObjectKey, source: str, found: Drift | None) -> None:
        """An object was checked; `found` is a drift that no event had told of."""


class Audit:
    """Goes round and round; `period` is how many seconds one round takes, and twice that where drift never ends.

    It gives way to drift that is being healed: each check is a dry run, which costs the API server as much as a heal.
    """

    def __init__(
        self, declared: Declared, detector: Detector, controller: Controller, reporter: AuditReporter, period: float
    ) -> None:
        self._declared = declared
        self._detector = detector
        self._controller = controller
        self._reporter = reporter
        self.period = period

    def configure(self, period: float) -> None:
        """Let the next step, and each round after it, follow this period."""
        self.period = period

    async def run(self) -> None:
        """Check objects one after the other until cancelled, evenly spread over the period."""
        await asyncio.sleep(min(self.period, FIRST_ROUND))
        while True:
            keys = list(self._detector.states)
            step = max(self.period / max(len(keys), 1), SHORTEST_STEP)
            patience = self.period
            for key in keys:
                await asyncio.sleep(step)
                patience = await self._give_way(patience)
                await self.check(key)
            if not keys:
                await asyncio.sleep(min(self.period, 1.0))

    async def _give_way(self, patience: float) -> float:
        """Wait while drift is healed, for `patience` seconds at most. Returns what is left of them."""
        while patience > 0.0 and self._controller.heals_drift():
            await asyncio.sleep(LOOK_AGAIN)
            patience -= LOOK_AGAIN
        return patience

    async def check(self, key: ObjectKey) -> None:
        """Check one object, unless it is being worked on anyway."""
        state = self._detector.states.get(key)
        declaration = self._declared.get(key)
        if state is None or declaration is None or state.policy.mode not in (Mode.HEAL, Mode.OBSERVE):
            return
        quiet = state.live and not state.terminating and state.accepted is not None
        known = state.reported or state.differs or state.observation is not None
        if not quiet or known or state.last_applied != declaration.manifest.digest:
            return
        version = state.version
        try:
            found = await self._controller.difference(key)
        except ClusterError as error:
            log.info("audit skipped an object", **named(key), error=str(error))
            return
        except Exception:  # one object's failure, even by our own mistake, must not end the daemon
            log.exception("audit failed unexpectedly; it goes on with the next object", **named(key))
            return
        # An edit in the meantime is what events are for.
        if found is not None and (state.version != version or state.observation is not None):
            return
        self._reporter.audited(key, declaration.source, found)
        if found is not None:
            self._controller.reconsider({key})
