"""One object's refusals, whatever they are, cost few requests and log lines, and hold nothing else up."""

import json
import time
from collections.abc import Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from tests.support.api_request import Request, Where
from tests.support.daemon import Daemon
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.faults import Answer, Fault, status
from tests.support.http_wire import Head
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, manifest, namespace_of
from tests.support.scene import NewDaemon
from tests.support.waiting import until

SECONDS = 2.0
MOST = 10  # tries that a backoff from 50 ms allows in SECONDS with jitter, and a few that events bring forward


class Says(Fault):
    """Every request is answered like this; the requests are counted."""

    def __init__(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        super().__init__()
        self.count = 0
        self._answer = code, body, headers

    async def on_request(self, request: Request) -> Answer | None:  # noqa: ARG002
        """Answer without asking."""
        self.count += 1
        code, body, headers = self._answer
        return Answer(Head(f"HTTP/1.1 {code} Odd", list(headers.items())), body)


def _plain(code: int, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return code, b"odd", {"Content-Type": "text/plain", **{k.replace("_", "-"): v for k, v in headers.items()}}


def _status(code: int, reason: str = "", **details: object) -> tuple[int, bytes, dict[str, str]]:
    body = {**status(code), "reason": reason, "details": details}
    return code, json.dumps(body).encode(), {"Content-Type": "application/json"}


ODD = {
    "301": _plain(301, Location="/api/v1/elsewhere"),
    "200 garbage": _plain(200),
    "200 no object": (200, b"{}", {"Content-Type": "application/json"}),
    "400": _status(400, "BadRequest"),
    "401": _status(401, "Unauthorized"),
    "403": _status(403, "Forbidden"),
    "404 bare": _plain(404),
    "404 of the object": _status(404, "NotFound", kind="secrets", name="odd"),
    "404 of the namespace": _status(404, "NotFound", kind="namespaces", name="odd"),
    "403 of a terminating namespace": _status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]),
    "405 of a terminating definition": (
        405, json.dumps(status(405, "create not allowed while custom resource definition is terminating")).encode(), {},
    ),
    "405": _status(405, "MethodNotAllowed"),
    "409": _status(409, "Conflict"),
    "410": _status(410, "Gone"),
    "413": _plain(413),
    "415": _status(415, "UnsupportedMediaType"),
    "418": _plain(418),
    "422": _status(422, "Invalid"),
    "429 of the object, an hour": _status(429, "TooManyRequests", retryAfterSeconds=3600),
    "429": _status(429, "TooManyRequests"),
    "500": _status(500, "InternalError"),
    "501": _plain(501),
    "502": _plain(502),
    "503": _status(503, "ServiceUnavailable"),
    "504": _status(504, "Timeout"),
}  # fmt: skip


@pytest.fixture(scope="module")
def proxy(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """What stands between the daemon and the API server."""
    with fault_proxy(cluster.kubeconfig, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy


def test_h04_h05_odd_answers_to_every_write_of_a_kind_stay_within_the_backoff(
    proxy: FaultProxy, new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """Whatever the answer is, the kind costs a few requests and log lines, and another object heals meanwhile."""
    good = config_map("good", namespace)
    daemon = new_daemon(kubeconfig=proxy.kubeconfig)
    daemon.commit({"all.yaml": [namespace_of(namespace), good]})
    daemon.start()
    daemon.wait_in_sync(good)
    excess: dict[str, tuple[int, int]] = {}
    where = Where(verbs=("patch",), resources=("secrets",), namespaces=(namespace,))
    for number, (name, answer) in enumerate(ODD.items()):
        fault = Says(*answer)
        with proxy.fault(fault, where):
            lines = len(daemon.log())
            odd = manifest("v1", "Secret", f"odd-{number}", namespace, stringData={"a": "b"})
            daemon.commit({"odd.yaml": [odd]})
            until(lambda fault=fault: fault.count, f"{name}: it is tried")  # type: ignore[misc]
            time.sleep(SECONDS / 2)
            _heals(daemon, live, good)
            time.sleep(SECONDS / 2)
            said = [line for line in daemon.log()[lines:] if "good" not in line.values()]
            if fault.count > MOST or len(said) > MOST:
                excess[name] = fault.count, len(said)
    assert not excess, "requests and log lines within a few seconds"
    assert daemon.metric("driftwatch_heal_concurrency_limit", priority="drift") > 1


def _heals(daemon: Daemon, live: Live, good: Manifest) -> None:
    before = len(daemon.events("drift healed", name="good"))
    live.request("DELETE", live.path(good))
    daemon.wait(lambda: len(daemon.events("drift healed", name="good")) > before, "another object heals")


def test_h04_a_retry_after_of_an_hour_holds_no_later_commit_and_no_lane(
    proxy: FaultProxy, new_daemon: NewDaemon, namespace: str
) -> None:
    """Objects that come after it in the order of a commit are applied, also by the next commit."""
    daemon = new_daemon(kubeconfig=proxy.kubeconfig)
    first, second = config_map("first", namespace), config_map("second", namespace)
    account = manifest("v1", "ServiceAccount", "late", namespace)
    fault = Says(*ODD["429 of the object, an hour"])
    with proxy.fault(fault, Where(verbs=("patch",), resources=("serviceaccounts",), namespaces=(namespace,))):
        daemon.commit({"all.yaml": [namespace_of(namespace), account, first]})
        daemon.start()
        daemon.wait_in_sync(first)
        account["metadata"]["labels"] = {"changed": "yes"}
        daemon.commit({"all.yaml": [namespace_of(namespace), account, first, second]})
        daemon.wait_in_sync(second)
        assert fault.count == 1
        assert daemon.metric("driftwatch_heal_concurrency_limit", priority="drift") > 1


@pytest.mark.parametrize("name", ["a/b", "..", "100%"])
def test_h05_a_name_that_no_path_may_hold_is_an_invalid_manifest(
    new_daemon: NewDaemon, live: Live, namespace: str, name: str
) -> None:
    """It is refused with file and line before anything is asked, and everything beside it is applied and heals."""
    good = config_map("good", namespace)
    daemon = new_daemon()
    daemon.commit({"good.yaml": [namespace_of(namespace), good], "bad.yaml": [config_map(name, namespace)]})
    daemon.start()
    daemon.wait_in_sync(good)
    [line] = daemon.wait(lambda: daemon.events("invalid manifest"), "the manifest is told of")
    assert line["file"].startswith("bad.yaml")
    assert "metadata.name" in line["error"]
    _heals(daemon, live, good)
