"""What the API server serves, as discovery remembers it."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest
from driftwatch.cluster.discovery import Discovery
from driftwatch.cluster.errors import ClusterError, Unreachable
from driftwatch.model import GroupKind

WIDGET = GroupKind("example.com", "Widget")
POD = GroupKind("", "Pod")
PLURALS = {WIDGET: "widgets", POD: "pods"}


def document(*kinds):
    groups = [
        {
            "metadata": {"name": kind.group},
            "versions": [
                {
                    "version": "v1",
                    "resources": [
                        {
                            "resource": PLURALS[kind],
                            "scope": "Namespaced",
                            "responseKind": {"kind": kind.kind},
                            "verbs": ["patch", "list", "watch"],
                        }
                    ],
                }
            ],
        }
        for kind in kinds
    ]
    return orjson.dumps({"kind": "APIGroupDiscoveryList", "items": groups})


class Session:
    """Answers with what is served when the request arrives; an answer can be held on its way."""

    server = "https://cluster"

    def __init__(self):
        self.served = {"/api": (), "/apis": ()}
        self.held: list[asyncio.Event] = []
        self.asked = asyncio.Event()
        self.broken = ""

    def url(self, path):
        return path

    async def request(self, _method, root, headers):
        if root == self.broken:
            raise Unreachable("no")
        kinds = self.served[root]
        self.asked.set()
        if root == "/apis" and self.held:
            await self.held.pop(0).wait()
        etag = f'"{kinds}"'
        if headers.get("If-None-Match") == etag:
            return SimpleNamespace(code=304)
        return SimpleNamespace(code=200, body=document(*kinds), headers={"ETag": etag})


@pytest.fixture
def session():
    return Session()


async def test_h12_an_older_answer_does_not_replace_a_newer_one(session):
    """Two parts ask at the same time, the kind is deleted in between, the first answer is slow: the kind is gone."""
    discovery = Discovery(session)
    session.served["/apis"] = (WIDGET,)
    slow = asyncio.Event()
    session.held.append(slow)
    first = asyncio.ensure_future(discovery.refresh())
    await session.asked.wait()
    await asyncio.sleep(0)
    session.served["/apis"] = ()
    second = asyncio.ensure_future(discovery.refresh())
    await asyncio.sleep(0)
    slow.set()
    await asyncio.gather(first, second)

    assert discovery.versions(WIDGET) == []


async def test_h12_half_a_refresh_loses_no_kind(session):
    """One of the two requests fails after the other has brought something new: it is known, also by the next 304."""
    discovery = Discovery(session)
    await discovery.refresh()
    session.served["/api"] = (POD,)
    session.broken = "/apis"
    with pytest.raises(ClusterError):
        await discovery.refresh()
    session.broken = ""
    await discovery.refresh()

    assert discovery.versions(POD) == ["v1"]
