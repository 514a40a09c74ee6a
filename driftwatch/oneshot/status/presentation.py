"""Shows a status as a few tables, short enough to be refreshed every second."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from driftwatch.report.drift_event import JournalField, JournalLine, spent
from driftwatch.status.schema import AbsentObject, ObjectStatus, SourceStatus, Status

RECENT = 10  # recent drifts shown
OBJECTS = 20
FIELDS = 2

_COLOURS = {
    "failed": "red",
    "drifting": "yellow",
    "drifted": "yellow",
    "waiting": "yellow",
    "snoozed": "cyan",
    "contested": "red",
    "healed": "green",
    "mended": "green",
}

_WHY_ABSENT = {
    "kind_not_served": "the cluster does not serve the kind at the version that Git names",
    "declared_twice": "declared twice: another manifest is in force",
    "refused": "the API server refuses the manifest",
    "namespace": "its namespace is not there",
    "waiting": "to be applied",
    "not_healed": "its mode is observe, paused or ignore",
}


class Screen:
    """Rich renderable of a whole status."""

    def __init__(self, status: Status, *, trouble: str = "") -> None:
        self._status = status
        self._trouble = trouble
        self._now = datetime.fromisoformat(status.time)

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        if self._trouble:
            yield Text(f"cannot be reached, this is what was: {plain(self._trouble)}", style="red")
        yield from self._head()
        yield Text()
        yield self._sources()
        yield from self._invalid()
        yield from self._absent()
        yield from self._objects()
        yield from self._watches()
        yield from self._recent()

    def _head(self) -> Iterator[Text]:
        status, counts = self._status, self._status.counts
        ready = Text("ready", style="green") if status.daemon.ready else Text("not ready", style="red")
        up = self._age(status.daemon.started)
        yield Text.assemble(
            f"driftwatch {plain(status.daemon.version)}: ", ready, f", up {up}, cluster {plain(status.daemon.cluster)}"
        )
        numbers = [f"{counts.managed} objects managed"]
        numbers += [
            f"{count} {state}"
            for state, count in (
                ("drifting", counts.drifting),
                ("failed", counts.failed),
                ("waiting", counts.waiting),
                ("snoozed", counts.snoozed),
                ("contested", counts.contested),
                ("absent", counts.absent),
            )
            if count
        ]
        if not (counts.drifting or counts.failed or counts.waiting or counts.absent):
            numbers.append("all as Git declares them")
        yield Text(", ".join(numbers))
        for what in status.daemon.missing:
            yield Text(f"- {plain(what)}", style="red")

    def _sources(self) -> Table:
        table = _table("SOURCE", "COMMIT", "IN FORCE", "GIT ANSWERED", "MODE", "DRIFTING", "TROUBLE")
        for source in self._status.sources:
            table.add_row(
                cell(source.name),
                cell((source.commit or "-")[:12]),
                self._age(source.inForceSince),
                f"{self._age(source.fetched)} ago" if source.fetched else "-",
                source.mode,
                str(source.drifting),
                Text(_trouble(source), style="red"),
            )
        return table

    def _invalid(self) -> Iterator[Text]:
        for source in self._status.sources:
            for each in source.invalid[:OBJECTS]:
                yield Text(f"invalid: {plain(f'{source.name}: {each.file}:{each.line}: {each.reason}')}", style="red")

    def _absent(self) -> Iterator[Table | Text]:
        absent = self._status.absent
        if not absent:
            return
        yield Text()
        table = _table("ABSENT", "SOURCE", "DECLARED AT", "WHY")
        for each in absent[:OBJECTS]:
            table.add_row(
                cell(_object(each.kind, each.namespace, each.name)),
                cell(each.source),
                cell(each.file),
                cell(_why_absent(each)),
            )
        yield table
        if len(absent) > OBJECTS:
            yield Text(f"and {self._status.counts.absent - OBJECTS} more: --output json has the first {len(absent)}")

    def _objects(self) -> Iterator[Table | Text]:
        objects = self._status.objects
        if not objects:
            return
        yield Text()
        table = _table("STATE", "OBJECT", "SINCE", "BY", "WHAT")
        for each in objects[:OBJECTS]:
            table.add_row(
                Text(each.state, style=_COLOURS[each.state]),
                cell(_object(each.kind, each.namespace, each.name)),
                self._age(each.since),
                cell(each.manager or "-"),
                cell(self._what(each)),
            )
        yield table
        if len(objects) > OBJECTS:
            yield Text(f"and {len(objects) - OBJECTS} more: --output json has them")

    def _what(self, each: ObjectStatus) -> str:
        parts = []
        if each.until:
            parts.append(f"until {each.until} by {each.snoozedBy}")
        if each.type:
            parts.append(f"{each.type} {_fields(each.fields)}".rstrip())
        if each.contestedBy:
            parts.append(f"changed again and again by {each.contestedBy}")
        if each.error:
            parts.append(each.error)
        if each.retryAt:
            parts.append(f"next try in {self._age(self._status.time, each.retryAt)}")
        return "; ".join(parts) or "-"

    def _watches(self) -> Iterator[Text]:
        yield Text()
        watches = self._status.watches
        down = [watch for watch in watches if not watch.up]
        yield Text(f"{len(watches) - len(down)} of {len(watches)} watches are open")
        for watch in down:
            yield Text(f"- {plain(watch.kind)}: {plain(watch.error or 'down')}", style="red")

    def _recent(self) -> Iterator[Table | Text]:
        recent = self._status.recent
        if not recent:
            return
        yield Text()
        table = _table("RECENTLY", "AGO", "OBJECT", "BY", "TOOK", "WHAT")
        for line in reversed(recent[-RECENT:]):
            table.add_row(
                Text(line.event, style=_COLOURS.get(line.event, "")),
                self._age(line.time),
                cell(_object(line.object.kind, line.object.namespace, line.object.name)),
                cell(line.manager),
                "-" if line.seconds is None else spent(line.seconds),
                cell(_told(line)),
            )
        yield table

    def _age(self, since: str | None, until: str | None = None) -> str:
        if since is None:
            return "-"
        end = datetime.fromisoformat(until) if until else self._now
        return age((end - datetime.fromisoformat(since)).total_seconds())


def age(seconds: float) -> str:
    """Format seconds like kubectl's ages: 12s, 5m, 3h, 4d."""
    seconds = max(seconds, 0)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def cell(text: str) -> Text:
    """Return a table cell without markup."""
    return Text(plain(text))


def plain(text: str) -> str:
    """Replace control characters in text from the cluster or Git, which could manipulate the terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        wide = title in ("WHAT", "TROUBLE", "WHY")
        table.add_column(title, overflow="fold" if wide else "ellipsis", no_wrap=not wide)
    return table


def _object(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _why_absent(each: AbsentObject) -> str:
    if each.owner:
        return f"declared twice: the manifest of source {each.owner} is in force"
    return _WHY_ABSENT[each.reason]


def _trouble(source: SourceStatus) -> str:
    parts = [plain(source.error)] if source.error else []
    if source.invalid:
        parts.append(f"{len(source.invalid)} invalid documents" if len(source.invalid) > 1 else "1 invalid document")
    return "; ".join(parts) or "-"


def _told(line: JournalLine) -> str:
    if line.until:
        return f"until {line.until}"
    return " ".join(part for part in (line.type, _fields(line.fields), line.error) if part)


def _fields(fields: Iterable[JournalField]) -> str:
    fields = list(fields)
    said = [f"{field.path}: {field.declared} → {field.live}" for field in fields[:FIELDS]]
    if len(fields) > FIELDS:
        said.append(f"and {len(fields) - FIELDS} more")
    return "; ".join(said)
