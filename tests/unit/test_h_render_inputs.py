"""Variables of a source are forgotten with the last source that names them (h02)."""

from typing import Any

import orjson
import pytest
import yarl
from driftwatch.cluster.errors import ApiError, Status
from driftwatch.cluster.render_inputs import RenderInputsWatch
from driftwatch.cluster.session import Response
from driftwatch.source_spec import RenderSpec, SourceSpec, VariablesFrom

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
    assert not watch._trouble
