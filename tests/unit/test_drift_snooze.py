"""Since when an object wishes to be left alone: by who owns the annotation, and by what was known of it before."""

import msgspec
import pytest
from driftwatch.drift.metadata import Annotations, ManagedFieldsEntry, Metadata
from driftwatch.drift.snooze import SnoozeRequest, snoozed_by, wish

SNOOZED = {"f:metadata": {"f:annotations": {"f:driftwatch.io/snooze-until": {}}}}
UNTIL = "2030-01-01T00:00:00Z"
NOON = 1_780_315_200.0  # 2026-06-01T12:00:00Z


def entry(manager="kubectl-annotate", time="2026-06-01T11:00:00Z", fields=SNOOZED):
    return ManagedFieldsEntry(manager, "Update", time=time, fieldsV1=msgspec.Raw(msgspec.json.encode(fields)))


def live(*entries, until=UNTIL):
    return Metadata(annotations=Annotations(snooze_until=until), managedFields=list(entries))


def test_a_wish_began_when_its_owner_wrote_it():
    """Whatever other managers have written since."""
    other = entry("kubectl-edit", "2026-06-01T10:00:00Z", {"f:data": {"f:x": {}}})

    assert wish(live(other, entry()), None, NOON) == SnoozeRequest(UNTIL, NOON - 3600)


def test_a_wish_that_several_share_began_with_the_first_of_them():
    assert wish(live(entry(), entry("k9s", "2026-06-01T10:30:00Z")), None, NOON) == SnoozeRequest(UNTIL, NOON - 5400)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry(fields={"f:data": {}})],
        [entry(time="")],
        [entry(time="yesterday")],
        [entry(time="2029-12-31T00:00:00Z")],
    ],
    ids=["stripped", "nobody's", "no time", "no time at all", "ahead"],
)
def test_a_wish_began_no_later_than_it_was_first_seen(entries):
    """Also where nobody owns it, or its owner's time is a forgery or another clock's."""
    assert wish(live(*entries), None, NOON) == SnoozeRequest(UNTIL, NOON)


def test_the_same_wish_goes_on_whatever_its_owner_writes_meanwhile():
    """The owner's time moves with each edit of his; another wish begins anew."""
    known = SnoozeRequest(UNTIL, NOON - 7200)

    assert wish(live(entry()), known, NOON) is known
    assert wish(live(entry(), until="2031-01-01T00:00:00Z"), known, NOON) == SnoozeRequest(
        "2031-01-01T00:00:00Z", NOON - 3600
    )


def test_a_wish_is_over_when_its_annotation_is_gone():
    assert wish(live(until=""), SnoozeRequest(UNTIL, NOON), NOON) is None
    assert wish(Metadata(), SnoozeRequest(UNTIL, NOON), NOON) is None


def test_a_beginning_that_lies_ahead_is_now():
    """The clock was set back since."""
    assert wish(live(entry()), SnoozeRequest(UNTIL, NOON + 86400), NOON) == SnoozeRequest(UNTIL, NOON)


def test_whoever_owns_the_annotation_has_snoozed():
    """Other fields of other managers say nothing about it."""
    other = entry("kubectl-edit", fields={"f:data": {"f:x": {}}})

    assert snoozed_by(live(other, entry())) == "kubectl-annotate"
    assert snoozed_by(live(other)) == ""
