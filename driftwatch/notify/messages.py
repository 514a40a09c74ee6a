"""Message bodies: CloudEvents, Slack messages, Adaptive Cards for Microsoft Teams.

The texts come from the cluster and from Git. So each format escapes its markup.
"""

import string
from collections.abc import Sequence
from typing import Any

import msgspec

from driftwatch.escape import printable_lines
from driftwatch.report.drift_event import UNKNOWN, DriftEvent, Severity, changes, journal_line, spent, story, timestamp

CLOUDEVENT = "application/cloudevents+json"
CLOUDEVENTS = "application/cloudevents-batch+json"
JSON = "application/json"
MAX_TEXT = 600  # characters of one line of a message; Slack cuts a block at 3000, Teams a card at 28 KB

_SIGNS = {Severity.INFO: ":white_check_mark:", Severity.WARNING: ":warning:", Severity.ERROR: ":x:"}
_COLOURS = {Severity.INFO: "good", Severity.WARNING: "warning", Severity.ERROR: "attention"}


class Message(msgspec.Struct, frozen=True):
    """The body of a request and its media type."""

    body: bytes
    media_type: str


def said(seen: DriftEvent, template: str | None) -> str:
    """The text of an event: from the template, or a sentence without one. Cut to `MAX_TEXT` characters."""
    text = story(seen) if template is None else string.Formatter().vformat(template, (), _fields(seen))
    text = printable_lines(text)
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _fields(seen: DriftEvent) -> dict[str, str]:
    return {
        "event": str(seen.what),
        "severity": str(seen.severity),
        "source": seen.source,
        "commit": seen.commit[:12],
        "file": seen.file,
        "line": str(seen.line) if seen.line else "",
        "group": seen.key.group,
        "kind": str(seen.key.group_kind),
        "namespace": seen.key.namespace,
        "name": seen.key.name,
        "object": str(seen.key),
        "type": seen.type,
        "manager": seen.manager or UNKNOWN,
        "fields": changes(seen),
        "seconds": "" if seen.seconds is None else spent(seen.seconds),
        "error": seen.error,
        "until": seen.until,
        "time": timestamp(seen.time),
        "story": story(seen),
    }


def webhook(batch: Sequence[DriftEvent], template: str | None) -> Message:
    """CloudEvents 1.0: structured mode for one event, batched mode for several."""
    events = [_cloud_event(seen, template) for seen in batch]
    if len(events) == 1:
        return Message(msgspec.json.encode(events[0]), CLOUDEVENT)
    return Message(msgspec.json.encode(events), CLOUDEVENTS)


def _cloud_event(seen: DriftEvent, template: str | None) -> dict[str, Any]:
    group = f"{seen.key.group}/" if seen.key.group else ""
    place = f"{seen.key.namespace}/" if seen.key.namespace else ""
    line = msgspec.to_builtins(journal_line(seen))
    return {
        "specversion": "1.0",
        # One drift causes several events, and a receiver may drop an event with a known id.
        "id": f"{seen.id}-{seen.what}-{int(seen.time * 1e6)}",
        "source": f"/driftwatch/sources/{seen.source}",
        "type": f"io.driftwatch.drift.{seen.what}.v2",
        "subject": f"{group}{seen.key.kind}/{place}{seen.key.name}",
        "time": timestamp(seen.time),
        "datacontenttype": JSON,
        "data": {**line, "message": said(seen, template)},
    }


def slack(batch: Sequence[DriftEvent], template: str | None) -> Message:
    """A message for Slack's incoming webhooks and compatible services."""
    lines = [f"{_SIGNS[seen.severity]} {_for_slack(said(seen, template))}" for seen in batch]
    return Message(msgspec.json.encode({"text": "\n".join(lines), "unfurl_links": False}), JSON)


def _for_slack(text: str) -> str:
    """Escape Slack's control characters by its rules, so that no mention and no link can be forged."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())


def teams(batch: Sequence[DriftEvent], template: str | None) -> Message:
    """An Adaptive Card in the envelope for the webhook of a Teams workflow."""
    lines = [
        {"type": "TextBlock", "text": _for_teams(said(seen, template)), "wrap": True, "color": _COLOURS[seen.severity]}
        for seen in batch
    ]
    title = "driftwatch" if len(batch) == 1 else f"driftwatch: {len(batch)} events"
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [{"type": "TextBlock", "text": title, "weight": "bolder", "size": "medium"}, *lines],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return Message(msgspec.json.encode({"type": "message", "attachments": [attachment]}), JSON)


def _for_teams(text: str) -> str:
    """Escape Markdown, because a text block renders it."""
    return " ".join("".join(f"\\{each}" if each in "\\*_[]()`#" else each for each in text).split())
