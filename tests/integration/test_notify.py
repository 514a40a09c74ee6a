"""Notifications, sent to real HTTP servers on this machine that behave well, slowly, badly or not at all."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from driftwatch.config.observe import Notification
from driftwatch.metrics.registry import Metrics
from driftwatch.model import FieldDrift, ObjectKey
from driftwatch.notify import notifier as notify
from driftwatch.notify.notifier import Notifier
from driftwatch.report.drift_event import DriftEvent, EventType
from driftwatch.report.drift_event import timestamp as stamp

from tests.support.receiver import Receiver, receiver
from tests.support.waiting import PATIENCE
from tests.support.webhook import certificate

SEEN = DriftEvent(
    id="d1",
    what=EventType.HEALED,
    time=1_800_000_000.25,
    since=1_800_000_000.0,
    key=ObjectKey("apps", "Deployment", "shop", "web"),
    source="shop",
    type="modified",
    manager="kubectl-edit",
    fields=(FieldDrift("spec.replicas", "2", "5", "kubectl-edit", "Update"),),
    seconds=0.0123,
    commit="0123456789abcdef",
    file="web.yaml",
    line=3,
)
SECRET = "sesame-open-up"


def seen(**changes) -> DriftEvent:
    return msgspec.structs.replace(SEEN, **changes)


class Told:
    """Notifiers that run, and what became of what they were told."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.open: set[ObjectKey] = set()
        self._tasks: list[asyncio.Task] = []

    def notifier(self, kind: str, url: str, **settings) -> Notifier:
        place = {} if {"urlFile", "urlEnv"} & settings.keys() else {"url": url}
        config = Notification(**{"name": "hook", "type": kind, "batchWindow": "20ms", **place, **settings})
        made = Notifier(config, self.metrics, lambda key, _what: key in self.open)
        self._tasks.append(asyncio.ensure_future(made.run()))
        return made

    def count(self, result: str) -> float:
        return self.metrics.notifications.labels("hook", result)._value.get()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def told(monkeypatch) -> AsyncIterator[Told]:
    """Make notifiers; they are ended after the test. What fails is tried again quickly."""
    monkeypatch.setattr(notify, "BACKOFF", (0.02, 0.05))
    made = Told()
    yield made
    await made.end()


@pytest.fixture
def hook():
    """Give a receiver."""
    with receiver() as found:
        yield found


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not so within {PATIENCE:.0f} s: {what}"
        await asyncio.sleep(0.01)


async def test_a_webhook_gets_a_cloud_event(told: Told, hook: Receiver):
    """One event, in structured mode, with the journal's line as its data."""
    told.notifier("webhook", f"{hook.url}/events").note(SEEN)
    await until(lambda: hook.requests, "it is told")
    [request] = hook.requests
    assert request.path == "/events"
    assert request.headers["Content-Type"] == "application/cloudevents+json"
    event = request.json
    assert (event["specversion"], event["type"]) == ("1.0", "io.driftwatch.drift.healed.v2")
    assert (event["source"], event["subject"]) == ("/driftwatch/sources/shop", "apps/Deployment/shop/web")
    assert event["time"] == "2027-01-15T08:00:00.250000Z"
    assert event["data"]["object"]["name"] == "web"
    assert event["data"]["message"].startswith("Deployment shop/web was modified by kubectl-edit and put back in 12 ms")
    await until(lambda: told.count("sent") == 1, "it is counted")


async def test_several_events_are_a_batch(told: Told, hook: Receiver):
    """With batchMax over one, several events go as a CloudEvents batch, each with an id of its own."""
    notifier = told.notifier("webhook", hook.url, batchMax=10, batchWindow="10s")
    for number in range(10):
        notifier.note(seen(id=f"d{number}"))
    await until(lambda: hook.requests, "the full batch does not wait for its window")
    [request] = hook.requests
    assert request.headers["Content-Type"] == "application/cloudevents-batch+json"
    assert len({event["id"] for event in request.json}) == 10


async def test_slack_gets_text_that_is_no_markup(told: Told, hook: Receiver):
    """What comes from the cluster can neither mention anybody nor forge a link."""
    told.notifier("slack", hook.url).note(seen(manager="<!channel> <http://evil|x> &\nnew line"))
    await until(lambda: hook.requests, "it is told")
    text = hook.requests[0].json["text"]
    assert "&lt;!channel&gt; &lt;http://evil|x&gt; &amp; new line" in text
    assert "\n" not in text


async def test_teams_gets_an_adaptive_card(told: Told, hook: Receiver):
    """An envelope as a workflow's webhook takes it, a text block an event, and no markup from the cluster."""
    notifier = told.notifier("teams", hook.url, batchMax=2, batchWindow="10s")
    notifier.note(seen(manager="[x](http://evil) *b*"))
    notifier.note(seen(what=EventType.FAILED, error="Invalid"))
    await until(lambda: hook.requests, "it is told")
    [attachment] = hook.requests[0].json["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    title, first, second = attachment["content"]["body"]
    assert title["text"] == "driftwatch: 2 events"
    assert r"\[x\]\(http://evil\) \*b\*" in first["text"]
    assert (first["color"], second["color"]) == ("good", "attention")


async def test_alertmanager_fires_until_it_is_healed(told: Told, hook: Receiver):
    """Drift fires with an end in the future, and the heal resolves the very same alert."""
    notifier = told.notifier("alertmanager", f"{hook.url}/am/")
    now = time.time()
    told.open.add(SEEN.key)
    notifier.note(seen(what=EventType.DRIFTED, time=now, since=now, seconds=None))
    await until(lambda: len(hook.requests) == 1, "the alert fires")
    notifier.note(seen(what=EventType.DRIFTED, time=now + 1, since=now, seconds=None, manager="somebody-else"))
    await until(lambda: len(hook.requests) == 2, "it is told of anew")
    notifier.note(seen(time=now + 1, manager="somebody-else"))
    await until(lambda: len(hook.requests) == 3, "the alert is resolved")
    (firing,), (again,), (resolved,) = (request.json for request in hook.requests)
    assert again["labels"] == firing["labels"]
    assert "somebody-else" in again["annotations"]["summary"]
    assert hook.requests[0].path == "/am/api/v2/alerts"
    assert firing["labels"] == resolved["labels"]
    assert firing["labels"]["alertname"] == "DriftwatchDrift"
    assert (firing["labels"]["severity"], firing["labels"]["name"]) == ("warning", "web")
    assert firing["startsAt"] == resolved["startsAt"] == stamp(now)
    assert firing["endsAt"] > stamp(now + 60)
    assert resolved["endsAt"] == stamp(now + 1)


async def test_alertmanager_is_told_again_while_it_drifts(told: Told, hook: Receiver, monkeypatch):
    """An alert is repeated, and one that nobody has ended is resolved when the object does not drift any more."""
    monkeypatch.setattr("driftwatch.notify.alertmanager.REPEAT", 0.05)
    told.open.add(SEEN.key)
    told.notifier("alertmanager", hook.url).note(seen(what=EventType.DRIFTED, since=time.time()))
    await until(lambda: len(hook.requests) >= 3, "the alert is repeated")
    assert not _resolved(hook)
    told.open.clear()
    await until(lambda: _resolved(hook), "the alert is resolved")


def _resolved(hook: Receiver) -> bool:
    [alert] = hook.requests[-1].json
    return alert["endsAt"] <= stamp(time.time())


async def test_what_heals_at_once_is_a_short_alert(told: Told, hook: Receiver):
    """A heal of what never fired is told of as an alert that ends by itself."""
    told.notifier("alertmanager", hook.url).note(SEEN)
    await until(lambda: hook.requests, "it is told")
    [alert] = hook.requests[0].json
    assert alert["labels"]["alertname"] == "DriftwatchHealed"
    assert alert["endsAt"] == stamp(SEEN.time + 300)


async def test_a_failing_receiver_is_tried_again(told: Told, hook: Receiver):
    """500 and 429 are tried again until it answers well; nothing is lost or sent twice."""
    hook.answers = [500, 503, 429]
    told.notifier("webhook", hook.url).note(SEEN)
    await until(lambda: told.count("sent") == 1, "it is told in the end")
    assert len(hook.requests) == 4
    assert len({request.json["id"] for request in hook.requests}) == 1


async def test_retry_after_is_obeyed(told: Told, hook: Receiver):
    """The receiver says how long to wait, and is not asked before."""
    hook.answers, hook.headers = [429], {"Retry-After": "1"}
    begin = time.monotonic()
    told.notifier("webhook", hook.url).note(SEEN)
    await until(lambda: told.count("sent") == 1, "it is told in the end")
    assert time.monotonic() - begin >= 1


async def test_a_refusal_is_not_tried_again(told: Told, hook: Receiver):
    """400 and a redirect are the receiver's last word; what comes after is sent all the same."""
    hook.answers, hook.headers = [400, 302], {"Location": f"{hook.url}/elsewhere"}
    notifier = told.notifier("webhook", hook.url)
    for _ in range(3):
        notifier.note(SEEN)
    await until(lambda: told.count("sent") == 1, "the third is told")
    assert told.count("refused") == 2
    assert [request.path for request in hook.requests] == ["/"] * 3


async def test_a_slow_receiver_is_given_up(told: Told, hook: Receiver):
    """Without an answer in time the request ends, and is tried again."""
    hook.held.clear()
    told.notifier("webhook", hook.url, timeout="100ms").note(SEEN)
    await asyncio.sleep(0.3)
    assert told.count("sent") == 0
    hook.held.set()
    await until(lambda: told.count("sent") == 1, "it is told in the end")


@pytest.mark.alone
async def test_a_dead_receiver_costs_nothing(told: Told, monkeypatch, capsys):
    """The queue is bounded, the oldest makes room and is counted, the failure is said once, and nothing blocks."""
    monkeypatch.setattr(notify, "QUEUE", 50)
    notifier = told.notifier("slack", "http://127.0.0.1:9/hook")
    begin = time.monotonic()
    for number in range(1000):
        notifier.note(seen(id=f"d{number}"))
    assert time.monotonic() - begin < 5
    await asyncio.sleep(0.3)
    assert told.count("dropped") >= 930
    assert capsys.readouterr().out.count("notification failed") == 1


async def test_what_cannot_be_told_for_long_is_dropped(told: Told):
    """After retryFor a message is given up and counted; the next one has its own time."""
    told.notifier("webhook", "http://127.0.0.1:9/hook", retryFor="100ms").note(SEEN)
    await until(lambda: told.count("dropped") == 1, "it is given up")


async def test_tls_is_checked(told: Told, tmp_path: Path):
    """A receiver whose authority is named is told; one whose authority nobody knows is not."""
    certificate(tmp_path)
    with receiver(tmp_path / "webhook.crt", tmp_path / "webhook.key") as hook:
        told.notifier("webhook", hook.url, retryFor="100ms").note(SEEN)
        await until(lambda: told.count("dropped") == 1, "it is given up")
        assert hook.requests == []
        told.notifier("webhook", hook.url, caFile=str(tmp_path / "webhook.crt")).note(SEEN)
        await until(lambda: told.count("sent") == 1, "it is told")
        await told.end()  # before the receiver, which otherwise waits for a farewell


async def test_address_and_token_come_from_files_and_are_never_shown(
    told: Told, hook: Receiver, tmp_path: Path, capsys
):
    """They are read anew for each message, and no failure shows them, whatever the receiver says."""
    logged: list[str] = []

    def said() -> str:
        logged.append(capsys.readouterr().out)
        return "".join(logged)

    url, token = tmp_path / "url", tmp_path / "token"
    url.write_text(f"{hook.url}/services/{SECRET}\n")
    token.write_text("old-token-value\n")
    notifier = told.notifier("slack", "", urlFile=str(url), tokenFile=str(token))
    notifier.note(SEEN)
    await until(lambda: told.count("sent") == 1, "it is told")
    token.write_text("new-token-value\n")
    hook.answers, hook.text = [400], f"no such hook: /services/{SECRET} with new-token-value"
    notifier.note(SEEN)
    await until(lambda: told.count("refused") == 1, "it is refused")
    url.unlink()
    notifier.note(SEEN)
    await until(lambda: "cannot be read" in said(), "the missing file is named")

    assert [request.headers["Authorization"] for request in hook.requests] == [
        "Bearer old-token-value",
        "Bearer new-token-value",
    ]
    words = said()
    assert "HTTP 400 Bad Request: no such hook: <hidden> with <hidden>" in words
    assert f"file {url} cannot be read" in words
    for secret in (SECRET, "old-token-value", "new-token-value"):
        assert secret not in words


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"events": ["drifted", "failed"]}, False),
        ({"severity": "warning"}, False),
        ({"sources": ["sh*"], "kinds": ["Deploy*"], "namespaces": ["shop"], "driftTypes": ["modified"]}, True),
        ({"sources": ["other"]}, False),
        ({"kinds": ["ConfigMap", "*.cert-manager.io"]}, False),
        ({"namespaces": ["kube-*"]}, False),
        ({"driftTypes": ["deleted"]}, False),
        ({"managers": ["kubectl*"]}, True),
        ({"managers": ["argocd-controller"]}, False),
    ],
)
def test_filters(settings, wanted):
    """Each filter is a list of globs, and all of them must let an event through."""
    config = Notification(name="x", type="slack", url="http://127.0.0.1/", **settings)
    assert notify.wants(config, SEEN) is wanted


async def test_a_template_says_it_in_other_words(told: Told, hook: Receiver):
    """Fields in braces, and an unknown manager has a name."""
    template = "{severity}: {type} {object} by {manager} at {commit} ({seconds}) {fields}"
    told.notifier("slack", hook.url, template=template).note(seen(manager=""))
    await until(lambda: hook.requests, "it is told")
    assert hook.requests[0].json["text"] == (
        ":white_check_mark: info: modified Deployment shop/web by unknown at 0123456789ab (12 ms) spec.replicas: 2 → 5"
    )


async def test_what_waits_is_sent_before_the_end(told: Told, hook: Receiver):
    """When the daemon stops, nothing waits for its batch to fill any more."""
    notifier = told.notifier("slack", hook.url, batchWindow="1h")
    notifier.note(SEEN)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(notifier.drained(), PATIENCE)
    assert len(hook.requests) == 1
