"""Waits of the daemon that a test need not sit out at their full length.

Each is a constant of a module by its full name, and the shorter value. The fork server sets them before the daemon
begins, as `monkeypatch.setattr` does for code that runs in the test's own process. They are no settings of the program.
What a test asserts must not depend on them.
"""

from collections.abc import Mapping

Waits = Mapping[str, float | tuple[float, ...]]

WATCH_BACKOFF: Waits = {"driftwatch.cluster.reflector.BACKOFF": (0.1, 3.75)}
"""Between tries to open a watch: an eighth of what it is."""

UNUSED_KIND: Waits = {"driftwatch.prune.unused_kinds.QUIET": 0.5}
"""From the last object of a kind to the end of its watch."""

UNSERVED_KIND: Waits = {"driftwatch.prune.unused_kinds.UNSERVED_STEP": 0.5}
"""Between looks at kinds that are not served."""

FIRST_LIST: Waits = {"driftwatch.reconcile.sync.FIRST_LIST": 4.0}
"""Of the first pass, for kinds that cannot be listed."""

OTHER_SOURCES: Waits = {"driftwatch.sources.OTHER_SOURCES": 1.0}
"""Of the start, for sources that cannot be read."""

PRUNE_HOLD: Waits = {"driftwatch.prune.safeguards.PATIENCE": 1.0}
"""Until it is said what pruning waits for."""

SAVING: Waits = {"driftwatch.state.applied.SAVE_PERIOD": 0.5}
"""Between two writes of the state."""
