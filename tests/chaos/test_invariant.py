"""What counts as a write when all is quiet."""

from typing import Any

from tests.chaos.invariant import is_written
from tests.support.live import Manifest


def live(version: str, *managers: str, generation: int | None = None, uid: str = "uid") -> Manifest:
    """An object at a version, with an entry of each manager."""
    metadata: dict[str, Any] = {"uid": uid, "resourceVersion": version}
    if generation is not None:
        metadata["generation"] = generation
    return {"metadata": {**metadata, "managedFields": [{"manager": manager} for manager in managers]}}


def test_the_same_version_is_no_write() -> None:
    assert not is_written(live("1", "driftwatch"), live("1", "driftwatch"))


def test_another_version_is_one() -> None:
    assert is_written(live("1", "driftwatch"), live("2", "driftwatch"))


def test_a_controller_reports() -> None:
    known = live("1", "driftwatch", "kube-controller-manager")
    assert not is_written(known, live("2", "driftwatch", "kube-controller-manager"))


def test_a_controller_reports_for_the_first_time() -> None:
    assert not is_written(live("1", "driftwatch"), live("2", "driftwatch", "kube-controller-manager"))


def test_somebody_else_writes_beside_a_controller() -> None:
    known = live("1", "driftwatch", "kube-controller-manager", generation=1)
    assert is_written(known, live("2", "driftwatch", "kube-controller-manager", generation=2))
    assert is_written(known, live("2", "driftwatch", "kube-controller-manager", "kubectl", generation=1))


def test_what_is_another_object_or_gone_was_written() -> None:
    known = live("1", "driftwatch", "kube-controller-manager")
    assert is_written(known, live("2", "driftwatch", "kube-controller-manager", uid="another"))
    assert is_written(known, {"metadata": {}})
