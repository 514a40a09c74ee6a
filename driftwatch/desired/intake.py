"""Puts the chunks of a snapshot change together again, on the daemon's side of the pipe."""

from driftwatch.desired.protocol import Change


class Intake:
    """Holds what has come of each source's change until its last chunk."""

    def __init__(self) -> None:
        self._incoming: dict[str, Change] = {}

    def add(self, chunk: Change) -> Change | None:
        """Take a chunk in. Returns the whole change with the last one, before that None."""
        whole = self._incoming.get(chunk.source)
        # A process that died in the middle of a change begins anew with a full one.
        if whole is None or whole.commit != chunk.commit or whole.full != chunk.full:
            self._incoming[chunk.source] = whole = chunk
        else:
            whole.upserts += chunk.upserts
            whole.removed += chunk.removed
            whole.invalid = chunk.invalid
            whole.passed_over = chunk.passed_over
        return self._incoming.pop(chunk.source) if chunk.last else None
