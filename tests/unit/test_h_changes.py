"""Changes of a snapshot on their way: whole or not at all, and never merged."""

from collections.abc import Iterator

import pytest
from driftwatch.desired import protocol
from driftwatch.desired.client import ChangeAssembler
from driftwatch.desired.follower import chunks
from driftwatch.desired.protocol import Change
from driftwatch.desired.snapshot import SnapshotChange
from driftwatch.model import InvalidManifest, Manifest, ManifestId


def changed(prefix: str, count: int = 450) -> SnapshotChange:
    manifests = [Manifest("", "v1", "ConfigMap", "n", f"{prefix}{n}", b"{}", f"{n:016x}", "f", 1) for n in range(count)]
    return SnapshotChange("c0ffee", full=True, upserts=manifests)


def wholes(intake: ChangeAssembler, parts: list[Change]) -> Iterator[Change]:
    for part in parts:
        _, payload = b"", protocol.encode(part)[protocol.LENGTH_BYTES :]
        message = protocol.decode_from_process(payload)
        assert isinstance(message, Change)
        if (whole := intake.add(message)) is not None:
            yield whole


def test_h02_changes_of_one_commit_never_merge() -> None:
    """An unfinished change is dropped when another of the same commit begins."""
    old, new = chunks("shop", changed("old")), chunks("shop", changed("new"))
    intake = ChangeAssembler()
    assert not list(wholes(intake, old[:2]))
    [whole] = wholes(intake, new)
    assert {manifest.name[:3] for manifest in whole.upserts} == {"new"}
    assert len(whole.upserts) == 450


def test_h02_a_chunk_of_a_dropped_change_joins_no_other() -> None:
    """What comes late of an abandoned change is lost."""
    old, new = chunks("shop", changed("old")), chunks("shop", changed("new"))
    [whole] = wholes(ChangeAssembler(), [*old[:1], *new[:1], *old[1:], *new[1:]])
    assert {manifest.name[:3] for manifest in whole.upserts} == {"new"}


@pytest.mark.parametrize("field", ["removed", "invalid", "passed_over"])
def test_h08_every_list_of_a_change_is_cut_by_size(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No list makes a message that is over the limit; all of it arrives."""
    monkeypatch.setattr(protocol, "CHUNK_BYTES", 2_000)
    monkeypatch.setattr(protocol, "MAX_MESSAGE_BYTES", 8_000)
    found = (
        [ManifestId("", "ConfigMap", "n", "x" * 200 + str(n)) for n in range(300)]
        if field == "removed"
        else [InvalidManifest("f.yaml", n, "x" * 200) for n in range(300)]
    )
    change = SnapshotChange("c0ffee", full=False, **{field: found})  # type: ignore[arg-type]
    [whole] = wholes(ChangeAssembler(), chunks("shop", change))
    assert len(getattr(whole, field)) == 300
