"""The writes beside the apply, asked of a real API server."""

import pytest
from driftwatch.cluster.api import ApiClient
from driftwatch.cluster.discovery import Resource
from driftwatch.cluster.errors import ApiError
from driftwatch.cluster.session import Session
from driftwatch.localcluster import LocalCluster

from tests.support.live import Live
from tests.support.manifests import config_map, namespace_of

MAPS = Resource("", "v1", "ConfigMap", "configmaps", namespaced=True, prefix="/api/v1")


async def test_e03_losing_a_race_is_a_conflict_and_no_invalid_object(
    cluster: LocalCluster, live: Live, namespace: str
) -> None:
    """Who sets ownership of an object that is newer is told 409: 422 would be about the object, and delete some."""
    settings = config_map("settings", namespace)
    for manifest in (namespace_of(namespace), settings):
        live.patch(manifest, manifest, manager="tests", kind="apply")
    session = await Session.open(str(cluster.kubeconfig))
    try:
        applier = ApiClient(session)
        with pytest.raises(ApiError) as caught:
            await applier.set_managed_fields(MAPS, namespace, "settings", "1", [])
        assert caught.value.code == 409
        with pytest.raises(ApiError) as caught:
            await applier.empty_maps(MAPS, namespace, "settings", "1", ["/data"])
        assert caught.value.code == 409
        version = live.get(settings)["metadata"]["resourceVersion"]
        with pytest.raises(ApiError) as caught:  # a value that is no map of texts is no race
            await applier._replace(MAPS, namespace, "settings", version, {"/data": {"not a key": "x"}})
        assert caught.value.code == 422
    finally:
        await session.close()
