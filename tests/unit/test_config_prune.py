"""What the configuration says of objects that leave Git."""

from pathlib import Path

import pytest
from driftwatch.config import ConfigError, load

ROOT = Path(__file__).parents[2]
SOURCE = "sources:\n- name: apps\n  repository: https://git.example.com/apps.git\n"


def test_nothing_is_pruned_unless_it_is_said(tmp_path: Path) -> None:
    """The default reports and deletes nothing."""
    file = tmp_path / "driftwatch.yaml"
    file.write_text(SOURCE)
    policy = load(file).pruning()["apps"]
    assert (policy.enabled, policy.kinds, policy.delay, policy.objects, policy.percent) == (
        False,
        frozenset(),
        5.0,
        10,
        20.0,
    )


def test_the_example_of_pruning_loads() -> None:
    """config/examples/prune.yaml says what its comments say."""
    pruning = load(ROOT / "config/examples/prune.yaml").pruning()
    assert {name: policy.enabled for name, policy in pruning.items()} == {
        "apps": True,
        "previews": True,
        "platform": False,
    }
    assert pruning["previews"].kinds == {"Namespace"}
    assert not pruning["previews"].is_too_much(200, 0)
    assert pruning["previews"].is_too_much(201, 100)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pruneKinds: [Secret]", "pruneKinds"),
        ("pruneConfirm: abc", "pruneConfirm"),
        ("pruneConfirm: 12345678", "write it in quotes"),
        ("pruneLimit: -1", "pruneLimit"),
        ("pruneLimitPercent: 101", "pruneLimitPercent"),
        ("prune: perhaps", "prune"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path: Path, line: str, words: str) -> None:
    """The key is named, with its line."""
    file = tmp_path / "driftwatch.yaml"
    file.write_text(f"{SOURCE}  {line}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert f"{file}:4: " in str(caught.value)
    assert words in str(caught.value)
