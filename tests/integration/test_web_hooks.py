"""Webhooks: what each host sends, who is refused, and that nobody slow or large keeps others waiting."""

import asyncio
import hashlib
import hmac
import json
import socket
from contextlib import asynccontextmanager

import aiohttp
import pytest
from driftwatch.config.server import Server
from driftwatch.metrics.registry import Metrics
from driftwatch.secret import SecretRef
from driftwatch.web import webhooks as module
from driftwatch.web.server import WebServer
from driftwatch.web.webhooks import HookedSource, Webhooks

SECRET = "hook-s3cr3t"


class Served:
    """A server with hooks; `polls` are the sources that were to be looked at."""

    def __init__(self, secret_file):
        self.polls = []
        self.metrics = Metrics()
        self.hooks = Webhooks(self._poll, self.metrics.webhooks)
        self.secret = SecretRef(file=str(secret_file))
        self.follow()
        self.web = WebServer(self.metrics.registry, list, Server(), self.hooks)
        self.session = None

    def follow(self, revision="main", semver=""):
        sources = [HookedSource("shop", revision, semver, self.secret), HookedSource("open", "main", "", SecretRef())]
        self.hooks.follow(sources)

    async def _poll(self, source):
        self.polls.append(source)

    async def post(self, headers, body, source="shop"):
        url = f"http://127.0.0.1:{self.web.port}/hooks/{source}"
        async with self.session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    def count(self, source, result):
        return self.metrics.registry.get_sample_value("driftwatch_webhooks_total", {"source": source, "result": result})

    async def settled(self):
        """Wait until what was asked for is done."""
        await until(lambda: self.hooks._sources["shop"].timer is None and not self.hooks._polls)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what happens in the hooks sets no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def served(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    async with running(Served(tmp_path / "secret")) as served:
        yield served


@asynccontextmanager
async def running(served):
    await served.web.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession() as served.session:
            yield served
    finally:
        served.hooks.close()
        await served.web.stop()


def digest(body, secret=SECRET):
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


PUSH = json.dumps({"ref": "refs/heads/main", "repository": {"default_branch": "main"}}).encode()
SHA1 = hmac.new(SECRET.encode(), PUSH, "sha1").hexdigest()
TAG = json.dumps({"ref": "refs/tags/v1.2"}).encode()
CLOUD = {"push": {"changes": [{"old": None, "new": {"type": "branch", "name": "main"}}]}}
DATA_CENTER = {"changes": [{"ref": {"id": "refs/heads/main", "displayId": "main", "type": "BRANCH"}}]}


def github(body=PUSH, event="push", secret=SECRET):
    signatures = {"X-Hub-Signature": "sha1=0000", "X-Hub-Signature-256": f"sha256={digest(body, secret)}"}
    return {"X-GitHub-Event": event, "Content-Type": "application/json", **signatures}


def gitlab(token=SECRET, event="Push Hook"):
    return {"X-Gitlab-Event": event, "X-Gitlab-Token": token, "Content-Type": "application/json"}


def bitbucket(told, key="repo:push"):
    body = json.dumps(told).encode()
    return {"X-Event-Key": key, "X-Hub-Signature": f"sha256={digest(body)}"}, body


HOSTS = {
    "GitHub": (github(), PUSH),
    "GitHub, new tag": (github(json.dumps({"ref": "main", "ref_type": "tag"}).encode(), "create"),
                        json.dumps({"ref": "main", "ref_type": "tag"}).encode()),
    "GitLab": (gitlab(), PUSH),
    "Gitea": ({"X-Gitea-Event": "push", "X-Gitea-Signature": digest(PUSH)}, PUSH),
    "Forgejo": ({"X-Forgejo-Event": "push", "X-Forgejo-Signature": digest(PUSH)}, PUSH),
    "Bitbucket Cloud": tuple(bitbucket(CLOUD)),
    "Bitbucket Data Center": tuple(bitbucket(DATA_CENTER, "repo:refs_changed")),
}  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_d10_a_push_makes_the_source_look_at_once(served, host):
    """Signed as each host signs it."""
    status, text = await served.post(*HOSTS[host])
    assert (status, text) == (202, "the repository is looked at\n")
    await served.settled()
    assert served.polls == ["shop"]
    assert served.count("shop", "polled") == 1


async def test_d10_a_form_is_read_as_well_as_json(served):
    """GitHub can send either."""
    async with aiohttp.ClientSession() as session:
        body = aiohttp.FormData({"payload": PUSH.decode()})()
        content = body._value
        headers = {**github(content), "Content-Type": "application/x-www-form-urlencoded"}
        url = f"http://127.0.0.1:{served.web.port}/hooks/shop"
        async with session.post(url, data=content, headers=headers) as answer:
            assert answer.status == 202
    await served.settled()
    assert served.polls == ["shop"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, PUSH),
        (github(secret="other"), PUSH),
        (github(), PUSH + b" "),
        ({**github(), "X-Hub-Signature-256": "sha256="}, PUSH),
        ({**github(), "X-Hub-Signature-256": digest(PUSH)}, PUSH),
        ({"X-GitHub-Event": "push", "X-Hub-Signature": f"sha1={SHA1}"}, PUSH),
        (gitlab("wrong"), PUSH),
        (gitlab(""), PUSH),
        ({**gitlab("wrong"), **github()}, PUSH),
        ({"X-Gitea-Event": "push", "X-Gitea-Signature": "é" * 64}, PUSH),
    ],
)  # fmt: skip
async def test_d10_who_does_not_know_the_secret_is_refused(served, headers, body):
    """Without a word about why; it is counted."""
    assert await served.post(headers, body) == (401, "refused\n")
    assert served.polls == []
    assert served.count("shop", "refused") == 1


async def test_d10_unknown_sources_and_those_without_a_secret_have_no_webhook(served):
    """They cannot be told apart, and names that nobody configured make no series."""
    assert await served.post(github(), PUSH, "nobody") == await served.post(github(), PUSH, "open")
    assert (await served.post(github(), PUSH, "nobody"))[0] == 404
    assert served.count("", "refused") == 2
    assert served.count("nobody", "refused") is None


@pytest.mark.parametrize(
    ("revision", "semver", "body", "polled"),
    [
        ("main", "", PUSH, True), ("HEAD", "", PUSH, True), ("refs/heads/main", "", PUSH, True),
        ("next", "", PUSH, False),
        ("main", "", TAG, False), ("HEAD", "", TAG, False), ("v1.2", "", TAG, True), ("HEAD", "1.x", TAG, True),
        ("HEAD", "1.x", PUSH, False), ("0123456789abcdef", "", PUSH, True),
    ],
)  # fmt: skip
async def test_d10_a_push_to_another_branch_is_ignored(served, revision, semver, body, polled):
    """With the reason, for whoever reads the host's list of deliveries."""
    served.follow(revision, semver)
    status, text = await served.post(github(body), body)
    assert status == 202
    assert text.startswith("ignored: refs/") is not polled
    await served.settled()
    assert served.polls == (["shop"] if polled else [])


async def test_d10_other_events_are_no_push(served):
    """Such as the host's trial of the webhook."""
    body = b'{"zen": "x"}'
    assert await served.post(github(body, "ping"), body) == (202, "ignored: this is no push\n")
    assert served.polls == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"ref": 1}', b'{"push": {"changes": [1, {"new": 2}]}}'])
async def test_d10_a_body_that_is_no_push_is_an_error(served, body):
    """Also from somebody who knows the secret."""
    status, text = await served.post(github(body), body)
    assert (status, text.startswith("not a push: ")) == (400, True)
    assert served.polls == []


async def test_d10_a_rotated_secret_counts_at_once(served, tmp_path):
    """And one that is missing is said in the log, not to whoever calls."""
    (tmp_path / "secret").write_text("new")
    assert (await served.post(gitlab(), PUSH))[0] == 401
    assert (await served.post(gitlab("new"), PUSH))[0] == 202
    (tmp_path / "secret").unlink()
    assert await served.post(gitlab("new"), PUSH) == (503, "not available\n")


async def test_d10_a_burst_of_pushes_is_two_looks(served, monkeypatch):
    """One at once, and one for all that followed; another source's hooks do not wait for it."""
    monkeypatch.setattr(module, "BURST_SECONDS", 3600.0)
    answers = await asyncio.gather(*(served.post(github(), PUSH) for _ in range(50)))
    assert {status for status, _ in answers} == {202}
    await until(lambda: served.polls)
    assert served.polls == ["shop"]
    due = served.hooks._sources["shop"].timer
    assert due is None or due.when() > asyncio.get_running_loop().time() + 3000
    await served.post(github(), PUSH)
    assert served.hooks._sources["shop"].timer is not None


async def test_d10_what_is_due_survives_a_reload(served, monkeypatch):
    """The configuration is read again between a push and its look."""
    monkeypatch.setattr(module, "BURST_SECONDS", 0.2)
    served.hooks._sources["shop"].last_poll = asyncio.get_running_loop().time()
    await served.post(github(), PUSH)
    served.follow()
    await served.settled()
    assert served.polls == ["shop"]


async def test_d10_bodies_are_bounded(served, monkeypatch):
    """By the length that is announced, by what comes, and all together."""
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 1000)
    body = b"x" * 1001

    async def slowly():
        yield body[:600]
        yield body[600:]

    assert (await served.post(github(body), body))[0] == 413
    assert (await served.post(github(body), slowly()))[0] == 413
    monkeypatch.setattr(module, "MAX_BYTES_TOGETHER", 500)
    small = b"x" * 600
    assert (await served.post(github(small), small))[0] == 503
    assert served.hooks._arriving == 0


async def test_d10_a_slow_client_blocks_nobody(served, monkeypatch):
    """While one sends its body for ever, others are served; it is given up when its time is over."""
    monkeypatch.setattr(module, "BODY_SECONDS", 3.0)
    with socket.create_connection(("127.0.0.1", served.web.port)) as slow:
        slow.settimeout(0)
        head = f"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256={digest(PUSH)}\r\n"
        slow.sendall(f"{head}Content-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH[:5])
        assert (await served.post(github(), PUSH))[0] == 202
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(slow, 1000), 30)
    assert answer.startswith(b"HTTP/1.1 408")


async def test_d10_a_client_that_leaves_within_its_body_is_no_error(served, caplog):
    """Nothing is done, and nothing is wrong with us: no error is logged for each that does it."""
    with socket.create_connection(("127.0.0.1", served.web.port)) as hasty:
        head = f"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: sha256={digest(PUSH)}\r\n"
        hasty.sendall(f"{head}Content-Length: {len(PUSH)}\r\n\r\n".encode() + PUSH[:5])
        await until(lambda: served.hooks._arriving)
    await until(lambda: served.count("shop", "invalid"))
    assert served.polls == []
    assert [record.message for record in caplog.records] == []
