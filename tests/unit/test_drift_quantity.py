"""Quantities: what the API server keeps under another spelling is not another value."""

import pytest
from driftwatch.drift.quantity import is_quantity, same


@pytest.mark.parametrize(
    ("one", "other"),
    [("1000", "1k"), ("1000m", "1"), (1, "1"), ("0.5Gi", "512Mi"), ("1e3", "1k"), ("100u", "0.1m"), ("2", 2.0)],
)
def test_one_quantity_in_two_spellings(one, other):
    """Units and spelling do not matter."""
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1k", "1Ki"), ("1", "2"), ("x", "x"), (True, "1"), ("", "0"), ("1 k", "1k"), (None, "0")]
)
def test_anything_else_is_not(one, other):
    """Other amounts differ, and text that is no quantity is nobody's equal here."""
    assert not same(one, other)


def test_only_fields_that_hold_quantities_are_read_as_such():
    """A label that says 1k is another label than one that says 1000."""
    assert is_quantity(("f:spec", "f:hard", "f:count/jobs.batch"))
    assert is_quantity(("f:spec", "f:containers", 'k:{"name":"web"}', "f:resources", "f:limits", "f:cpu"))
    assert not is_quantity(("f:metadata", "f:labels", "f:size"))
