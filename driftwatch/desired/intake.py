"""Puts the chunks of a snapshot change together again, on the daemon's side of the pipe."""

from driftwatch.desired.protocol import Change


class Intake:
    """Holds what has come of each source's change until its last chunk."""

    def __init__(self) -> None:
        self._incoming: dict[str, Change] = {}

    def add(self, chunk: Change) -> Change | None:
        """Take a chunk in. Returns the whole change with the last one, before that None.

        An unfinished change (the process died, or could not send the rest) is dropped when another begins, and a chunk
        that continues no change is dropped as well: never do two changes merge.
        """
        whole = self._incoming.get(chunk.source)
        if chunk.first:
            self._incoming[chunk.source] = whole = chunk
        elif whole is None or whole.sequence != chunk.sequence:
            return None
        else:
            whole.upserts += chunk.upserts
            whole.removed += chunk.removed
            whole.invalid += chunk.invalid
            whole.passed_over += chunk.passed_over
            whole.digest = chunk.digest
            whole.last = chunk.last
        return self._incoming.pop(chunk.source) if chunk.last else None
