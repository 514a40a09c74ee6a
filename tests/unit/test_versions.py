"""Semver ranges mean what Flux and Helm users know."""

import contextlib

import pytest
from driftwatch.git.semver_range import Range, RangeError, version_of
from hypothesis import given
from hypothesis import strategies as st

TAGS = [
    "v0.2.3", "v0.2.9", "v0.3.0", "0.0.3", "0.0.4", "1.0.0", "v1.1.0", "1.2.3", "1.2.4", "v1.2.10", "1.3.0", "v1.9",
    "2.0.0-rc.1", "2.0.0", "2.1.0-alpha", "v3", "release", "latest", "v1.2.3.4", "01.2.3", "1.2.3-01",
]  # fmt: skip


@pytest.mark.parametrize(
    ("written", "tag"),
    [
        (">=1.2 <2", "v1.9"), (">=1.2, <2", "v1.9"), (">= 1.2 , < 2", "v1.9"), ("1.x", "v1.9"), ("1.X.x", "v1.9"),
        ("v1.2", "v1.2.10"), ("~1.2.3", "v1.2.10"), ("~> 1.2", "v1.2.10"), ("~1", "v1.9"), ("^1.2.3", "v1.9"),
        ("^0.2.3", "v0.2.9"), ("^0.0.3", "0.0.3"), ("^0.0", "0.0.4"), ("^0", "v0.3.0"), ("*", "v3"), ("^*", "v3"),
        ("=1.2.3", "1.2.3"), ("==1.2.3", "1.2.3"), ("1.2.3", "1.2.3"), ("!=3 <4", "2.0.0"), (">1.2", "v3"),
        (">1.2 <1.9", "1.3.0"), (">1.2.4 <1.3", "v1.2.10"), ("<=1.2", "v1.2.10"), ("=<1.2.4", "1.2.4"),
        ("<1", "v0.3.0"), ("1.0 - 1.2", "v1.2.10"), ("1.0.0 - 1.2.3", "1.2.3"), ("1.0 || 0.3", "1.0.0"),
        (">=2.0.0-0 <2.0.0", None), (">=2.0.0-0 <3-0", "2.1.0-alpha"), (">2.0.0 <3", None), ("^9", None),
        ("<2.0.0", "v1.9"),
    ],
)  # fmt: skip
def test_d07_the_highest_tag_in_a_range_wins(written, tag):
    """By precedence, not by alphabet; what is no version is passed over, and so are pre-releases unless asked for."""
    assert Range(written).highest(TAGS) == tag


@pytest.mark.parametrize("text", ["", " ", ">=", "1.2.3.4", "latest", "1..2", ">=1 &", "||", "1 ||", "1.2.3-01", "<>1"])
def test_d07_what_is_no_range_is_refused(text):
    """When the configuration is read, not when the first tag comes."""
    with pytest.raises(RangeError):
        Range(text)


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1))
def test_d07_among_plain_versions_the_greatest_triple_wins(versions):
    """Whatever the order in which the host names them."""
    tags = [".".join(map(str, version)) for version in versions]
    assert Range("*").highest(tags) == ".".join(map(str, max(versions)))


@given(st.text(max_size=20))
def test_any_text_is_a_range_or_an_error(text):
    """And any text is a version or none."""
    version_of(text)
    with contextlib.suppress(RangeError):
        Range(text)
