"""What the ownership detector says of an event is what the API server says of the object."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from driftwatch.localcluster import LocalCluster
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.property.edits import edits
from tests.property.kinds import KINDS, widget_crd
from tests.property.verdicts import play
from tests.support.live import Live
from tests.support.manifests import namespace_of
from tests.support.waiting import until

LONG = "DRIFTWATCH_PROPERTY_VERDICTS"  # so many examples; without it a short run
SEED = "DRIFTWATCH_PROPERTY_SEED"
SHORT_EXAMPLES = 6
OBJECTS = 4


@pytest.fixture
def widgets(live: Live) -> Iterator[None]:
    """The widgets' CRD."""
    crd = widget_crd()
    live.patch(crd, crd, manager="tests", kind="apply")
    probe = {
        "apiVersion": "property.example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "x", "namespace": "default"},
    }
    until(lambda: live.request("GET", "/apis/property.example.com/v1/widgets")[0] == 200, "widgets are served")
    until(lambda: _is_known(live, probe), "widgets are known")
    yield
    live.request("DELETE", live.path(crd))


def _is_known(live: Live, probe: dict) -> bool:
    try:
        return bool(live.path(probe))
    except KeyError:
        return False


@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("widgets")
def test_the_detector_agrees_with_the_api_server(
    cluster: LocalCluster, live: Live, new_namespace: Callable[[], str], say: Callable[[str], None]
) -> None:
    """No event is judged to be in sync that a dry run would mend, and what is suspected falsely costs no write."""
    tally: Counter[str] = Counter()

    @seed(int(os.environ.get(SEED, "1")))
    @settings(
        max_examples=int(os.environ.get(LONG, SHORT_EXAMPLES)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(data=st.data())
    def judge(data: st.DataObject) -> None:
        namespace = namespace_of(new_namespace())
        name = namespace["metadata"]["name"]
        chosen = data.draw(st.lists(st.sampled_from(KINDS), min_size=OBJECTS, max_size=OBJECTS, unique=True))
        manifests = [data.draw(kind.manifests(name, kind.kind.lower())) for kind in chosen]
        story = data.draw(st.lists(st.tuples(edits(chosen, manifests), st.booleans()), min_size=8, max_size=25))
        live.patch(namespace, namespace, manager="tests", kind="apply")
        try:
            tally.update(asyncio.run(play(cluster.kubeconfig, live, chosen, manifests, story)))
        finally:
            live.request("DELETE", live.path(namespace))

    try:
        judge()
    finally:
        say(", ".join(f"{count} {what}" for what, count in sorted(tally.items())))
    assert tally["judged"] > 20
