"""Variables of a source are forgotten with the last source that names them (h02)."""

import asyncio
from typing import Any

import orjson
import pytest
import structlog
import yarl
from driftwatch.cluster import render_inputs
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.session import Response
from driftwatch.source_spec import ClusterCapabilities, RenderSpec, SourceSpec, VariablesFrom

COLOURS = VariablesFrom("ConfigMap", "shop", "colours")


class Cluster:
    """An API server that has one ConfigMap, or refuses to show it, or does not have it."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = {"metadata": {"resourceVersion": "1"}, "items": [{"data": {"a": "red"}}]}

    def url(self, path: str, query: str = "") -> yarl.URL:
        return yarl.URL(f"https://fake{path}?{query}", encoded=True)

    async def request(self, _: str, url: yarl.URL, **__: Any) -> Response:
        if url.path == "/version" or self.answer is None:
            raise ApiError(403, Status(403, "Forbidden"))
        return Response(200, orjson.dumps(self.answer), {})

    def stream(self, *_: Any, **__: Any) -> Any:
        raise ApiError(403, Status(403, "Forbidden"))


async def test_h06_variables_are_followed_after_a_failure_that_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, and a change that comes later is still told."""
    monkeypatch.setattr(render_inputs, "FIRST_PAUSE", 0.01)
    cluster, told = Cluster(), asyncio.Queue[ClusterCapabilities]()
    watch = RenderInputsWatch(cluster, Discovery(), told.put)  # type: ignore[arg-type]
    await watch.read(specs(COLOURS))
    with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:
        broken.setattr(render_inputs, "_variables", lambda *_: {}["hunter2"])
        following = asyncio.ensure_future(watch._follow(COLOURS))
        async with asyncio.timeout(10):
            while not (following.done() or any("exc_info" in line for line in logs)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    cluster.answer = {"metadata": {"resourceVersion": "3"}, "items": [{"data": {"a": "blue"}}]}
    try:
        found = await asyncio.wait_for(told.get(), 10)
        assert found.variables == {"apps": {"a": "blue"}}
    finally:
        following.cancel()


class Discovery:
    """It serves nothing."""

    def api_versions(self) -> list[str]:
        return []


def specs(*references: VariablesFrom) -> list[SourceSpec]:
    return [SourceSpec("apps", "", "main", "", 60.0, 60.0, "", "", render=RenderSpec(variables_from=references))]


@pytest.mark.parametrize("gone", ["forbidden", "deleted"])
async def test_h02_variables_that_no_source_names_are_forgotten(gone: str) -> None:
    """A source that names them again later gets what the cluster has then, not their former values."""
    cluster = Cluster()
    watch = RenderInputsWatch(cluster, Discovery())  # type: ignore[arg-type]
    assert (await watch.follow(specs(COLOURS))).variables == {"apps": {"a": "red"}}
    await watch.follow(specs())
    cluster.answer = None if gone == "forbidden" else {"metadata": {"resourceVersion": "2"}, "items": []}

    found = await watch.follow(specs(COLOURS))

    assert found.variables == {"apps": {}}
    assert str(COLOURS) in found.missing["apps"]
    await watch.follow([])
    assert not watch._values
    assert not watch._errors
