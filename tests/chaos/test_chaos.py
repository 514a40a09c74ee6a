"""A short run of the chaos suite: `make chaos` is the long one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign, InvariantBroken, summary
from tests.chaos.faults import FAULTS

SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_whatever_breaks_under_load_comes_to_be_as_git_says(tmp_path: Path, say: Callable[[str], None]) -> None:
    """After any faults, killed processes and random edits, a dry run changes nothing and no object is lost."""
    told: list[str] = []
    folder = tmp_path / "run"
    folder.mkdir()
    campaign = Campaign(SEED, folder, told.append, brief=True)
    try:
        campaign.run()
    except InvariantBroken as finding:
        pytest.fail("\n".join([*told, str(finding)]), pytrace=False)
    say(summary(campaign.report))
    assert set(campaign.report["faults"]) == {fault.name for fault in FAULTS if fault.core}
    assert campaign.report["edits"] > 0
