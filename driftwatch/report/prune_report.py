"""Reports orphans and pruning: which objects stay and why, which are deleted, and which are held."""

from collections.abc import Iterator

import msgspec
import structlog
from msgspec.structs import replace

from driftwatch.cluster.errors import ClusterError
from driftwatch.drift.orphan import OFF
from driftwatch.metrics.registry import Metrics
from driftwatch.model import Drift, DriftType, ObjectKey, named
from driftwatch.prune.safeguards import Hold
from driftwatch.report.drift_report import Report

NEXT = {
    Hold.UNREAD: "they stay until Git can be read",
    Hold.INVALID: "they stay until every document of the source can be read",
    Hold.EMPTY: "they stay",
    Hold.SOURCES: "they stay until that source can be read",
    Hold.LIMIT: "they stay until it is confirmed, or a commit declares them again",
}

log = structlog.get_logger()


class _OrphanReport(msgspec.Struct, frozen=True):
    """The last report of one object. `source` is "" until it is reported as an orphan. `why` is why it stays."""

    source: str = ""
    why: str = ""
    said: str = ""


_UNKNOWN = _OrphanReport()


class PruneReport:
    """Implements `prune.pruner.PruneReporter`. For `report` an orphan is a drift like any other."""

    def __init__(self, report: Report, metrics: Metrics) -> None:
        self._report = report
        self._metrics = metrics
        self._orphans: dict[ObjectKey, _OrphanReport] = {}
        self._held: dict[str, tuple[Hold, int, str]] = {}

    def orphans(self) -> Iterator[tuple[ObjectKey, str]]:
        """The objects that are reported as orphans, each with its source."""
        return ((key, known.source) for key, known in self._orphans.items() if known.source)

    def orphaned(self, key: ObjectKey, source: str, why: str) -> None:
        """An object with a source label is in no snapshot and stays. Logged once for each reason."""
        known = self._orphans.get(key, _UNKNOWN)
        if (known.source, known.why) == (source, why):
            return
        if known.source and known.source != source:
            self._forget(key)
            known = _UNKNOWN
        self._orphans[key] = replace(known, source=source, why=why)
        self._report.drifted(Drift(key, source, DriftType.ORPHANED))
        if why not in ("", OFF):  # pruning is off for the whole source
            log.info("not pruned", source=source, **named(key), reason=why)

    def orphan_gone(self, key: ObjectKey, source: str) -> None:
        """The object is gone, declared again, or no longer reported."""
        if self._forget(key):
            log.info("orphaned no more", source=source, **named(key))

    def pruned(self, key: ObjectKey, source: str, commit: str) -> None:
        """The orphan is gone, deleted by driftwatch."""
        self._forget(key)
        self._metrics.prunes.labels(source, str(key.group_kind), key.namespace, "success").inc()
        log.info("pruned", source=source, **named(key), commit=commit[:12])

    def prune_waits(self, key: ObjectKey, source: str, finalizers: tuple[str, ...]) -> None:
        """The deletion was requested and waits for finalizers."""
        words = f"waits for {', '.join(finalizers)}"
        if finalizers and self._is_new(key, words):
            log.warning(
                "prune waits for finalizers",
                source=source,
                **named(key),
                finalizers=", ".join(finalizers),
                next="whoever set them removes them; what is to be pruned after it waits",
            )

    def prune_refused(self, key: ObjectKey, source: str, error: ClusterError, retry: float) -> None:
        """The API server refused the deletion. The next try follows in `retry` seconds."""
        self._metrics.prunes.labels(source, str(key.group_kind), key.namespace, "failed").inc()
        self.orphaned(key, source, "")
        words = str(error)
        if self._is_new(key, words):
            log.error("not pruned", source=source, **named(key), error=words, next=f"tried again in {retry:.3g} s")

    def prune_held(self, source: str, hold: Hold | None, count: int, why: str, commit: str) -> None:
        """Pruning of `count` objects of the source is held for the reason `why`. `hold` is None: none is held."""
        now = (hold, count, commit) if hold is not None else None
        before = self._held.get(source)
        if now == before:
            return
        if before is not None:
            self._metrics.prune_held.labels(source, str(before[0])).set(0)
            del self._held[source]
        if now is not None and hold is not None:
            self._held[source] = now
            self._metrics.prune_held.labels(source, str(hold)).set(count)
            log.error(
                "prune is held",
                source=source,
                commit=commit[:12],
                objects=count,
                hold=str(hold),
                reason=why,
                next=NEXT[hold],
            )
        elif before is not None:
            log.info("prune is not held any more", source=source)

    def _is_new(self, key: ObjectKey, words: str) -> bool:
        """Keep the message. Returns whether it differs from the object's last one."""
        known = self._orphans.get(key, _UNKNOWN)
        self._orphans[key] = replace(known, said=words)
        return known.said != words

    def _forget(self, key: ObjectKey) -> bool:
        """Close the report of the object. Returns whether it was reported as an orphan."""
        known = self._orphans.pop(key, _UNKNOWN)
        if not known.source:
            return False
        self._report.forget(key)
        return True
