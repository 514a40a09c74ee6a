"""The audit: slow, repeated dry runs of every object that counts as in sync.

It finds drift that no event has reported. Events report all drift, so each finding of the audit points to a defect.
Findings are counted separately. Their number should be zero.
"""

import asyncio
from typing import Protocol

import structlog

from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.desired_state import Declared
from driftwatch.drift.detector import Detector
from driftwatch.model import Drift, Mode, ObjectKey, named
from driftwatch.reconcile.controller import Controller

SHORTEST_STEP = 0.02  # seconds between two objects, at least; limits the load on the API server
LOOK_AGAIN = 0.05  # seconds between two checks whether drift is still being healed
FIRST_ROUND = 60.0  # seconds from the start to the first round; a restart already sends many requests

log = structlog.get_logger()


class AuditReporter(Protocol):
    """Receives the results of the audit."""

    def audited(self, key: ObjectKey, source: str, found: Drift | None) -> None:
        """An object was checked; `found` is drift that no event has reported."""


class Audit:
    """Checks all objects in endless rounds. A round takes `period` seconds, or twice that if drift never ends.

    The audit waits while drift is being healed. Each check is a dry run, which costs the API server as much as a heal.
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
        """Set the period for the next step and all later rounds."""
        self.period = period

    async def run(self) -> None:
        """Check one object at a time until cancelled, evenly spread over the period."""
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
        """Wait while drift is healed, for `patience` seconds at most. Returns the seconds that are left."""
        while patience > 0.0 and self._controller.heals_drift():
            await asyncio.sleep(LOOK_AGAIN)
            patience -= LOOK_AGAIN
        return patience

    async def check(self, key: ObjectKey) -> None:
        """Check one object, unless it has known drift or needs a reconcile already."""
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
        except Exception:  # a failure of one object, even a bug of driftwatch, must not end the daemon
            log.exception("audit failed unexpectedly; it goes on with the next object", **named(key))
            return
        # The object was edited during the check. Its event reports that.
        if found is not None and (state.version != version or state.observation is not None):
            return
        self._reporter.audited(key, declaration.source, found)
        if found is not None:
            self._controller.reconsider({key})
