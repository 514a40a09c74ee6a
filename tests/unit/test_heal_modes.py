"""What may be done about an object now: healing windows across time zones and clock changes, and snoozes."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from driftwatch.drift import snooze
from driftwatch.drift.policy import Policy
from driftwatch.drift.snooze import SnoozeRequest, Window
from driftwatch.model import Mode
from driftwatch.reconcile.schedule import Schedule
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hypothesis_profiles import examples

BERLIN = "Europe/Berlin"  # clocks went forward on 29 March 2026 at 2:00, and go back on 25 October at 3:00


class Clock:
    def __init__(self, at="2026-06-01T12:00:00+00:00"):
        self.now = datetime.fromisoformat(at)

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("window", "at", "is_open"),
    [
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-01T08:00:00+02:00", True),
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-01T07:59:59+02:00", False),
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-01T17:59:59+02:00", True),
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-01T18:00:00+02:00", False),
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-01T06:00:00Z", True),
        (Window("0 8 * * 1-5", 36000, BERLIN), "2026-06-06T09:00:00+02:00", False),
        (Window("0 8 * * 1-5", 36000, "UTC"), "2026-06-01T08:00:00+02:00", False),
        (Window("0 8 * * *", 3600, "Asia/Kolkata"), "2026-06-01T02:30:00Z", True),
        # It is 7:30 UTC in winter and 6:30 UTC in summer.
        (Window("30 8 * * *", 3600, BERLIN), "2026-03-28T07:30:00Z", True),
        (Window("30 8 * * *", 3600, BERLIN), "2026-03-29T06:30:00Z", True),
        (Window("30 8 * * *", 3600, BERLIN), "2026-03-29T07:30:00Z", False),
        # A window lasts as long as it says, whatever the clock on the wall does meanwhile.
        (Window("0 1 * * *", 7200, BERLIN), "2026-03-29T01:59:59Z", True),
        (Window("0 1 * * *", 7200, BERLIN), "2026-03-29T02:00:00Z", False),
        (Window("0 1 * * *", 10800, BERLIN), "2026-10-25T01:59:59Z", True),
        (Window("0 1 * * *", 10800, BERLIN), "2026-10-25T02:00:00Z", False),
        (Window("0 0 1 1 *", 60, "UTC"), "2026-06-01T00:00:00Z", False),
        # Longer than from one opening to the next: it never closes.
        (Window("0 * * * *", 7200, "UTC"), "2026-06-01T10:59:59Z", True),
    ],
)
def test_b10_a_window_opens_by_the_clock_of_its_zone(window, at, is_open):
    """From its opening on for as long as it lasts, and not a second more."""
    assert window.is_open(datetime.fromisoformat(at)) is is_open


def test_b10_the_zone_in_which_the_time_is_told_does_not_matter():
    """Two times in one zone differ by the clock on the wall, which is not how long a window has been open."""
    window = Window("0 1 * * *", 7200, BERLIN)
    for at in ("2026-03-29T01:59:59+00:00", "2026-03-29T02:00:00+00:00", "2026-10-25T00:59:59+00:00"):
        now = datetime.fromisoformat(at)
        assert window.is_open(now) == window.is_open(now.astimezone(ZoneInfo(BERLIN)))


@settings(max_examples=examples(60))
@given(
    st.integers(0, 364 * 86400).map(lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Asia/Kolkata"]),
    st.integers(0, 23),
    st.integers(1, 20),
)
def test_b10_a_daily_window_is_open_for_its_hours(now, zone, hour, hours):
    """Compare with looking back for the minute in which it opened, away from the days when clocks change."""
    local = ZoneInfo(zone)
    if len({(now - timedelta(hours=back)).astimezone(local).utcoffset() for back in range(49)}) > 1:
        return
    window = Window(f"0 {hour} * * *", hours * 3600.0, zone)
    opened = now.astimezone(local).replace(hour=hour, minute=0, second=0, microsecond=0)
    if opened > now:
        opened -= timedelta(days=1)

    assert window.is_open(now) == (now - opened < timedelta(hours=hours))


def test_b10_outside_of_its_windows_a_source_is_observed():
    """One of several windows is enough, and what is not to be healed anyway does not change."""
    clock = Clock("2026-06-01T12:00:00+00:00")
    windows = {"shop": (Window("0 8 * * *", 3600), Window("0 20 * * *", 3600)), "lab": (Window("0 12 * * *", 60),)}
    modes = Schedule(windows, now=clock)

    assert modes.now("shop", Policy()) is Mode.OBSERVE
    assert modes.now("lab", Policy()) is Mode.HEAL
    assert modes.now("other", Policy()) is Mode.HEAL
    for mode in (Mode.OBSERVE, Mode.PAUSED, Mode.IGNORE):
        assert modes.now("shop", Policy(mode)) is mode
    clock.now += timedelta(hours=8)
    assert modes.now("shop", Policy()) is Mode.HEAL


def wish(until, began=0):
    """A wish that began so many seconds before noon."""
    return SnoozeRequest(until, Clock()().timestamp() - began)


def test_a_snooze_lasts_until_its_time():
    """It says how long that is, and is nothing once it is over."""
    clock = Clock()
    modes = Schedule(now=clock)

    snooze = modes.snoozed(wish("2026-06-01T14:30:00+02:00"))
    assert snooze is not None
    assert snooze.seconds == 1800
    clock.now += timedelta(seconds=1800)
    assert modes.snoozed(wish("2026-06-01T14:30:00+02:00")) is None


@pytest.mark.parametrize("until", ["tomorrow", "2026-06-02T12:00:00", "", "2026-13-01T00:00:00Z", "12"])
def test_a_snooze_that_is_no_time_is_none(until):
    """RFC 3339, with an offset; anything else holds nothing up, nor does a wish that nobody has."""
    assert Schedule(now=Clock()).snoozed(wish(until)) is None
    assert Schedule(now=Clock()).snoozed(None) is None


def test_a_snooze_is_cut_to_the_cap_from_when_it_began():
    """Whoever looks, and how often: it ends when it ends. One that is yet to begin lasts no longer either."""
    clock = Clock()
    modes = Schedule(longest_snooze=60, now=clock)

    assert modes.snoozed(wish("2099-01-01T00:00:00Z", began=20)).seconds == 40
    assert modes.snoozed(wish("2099-01-01T00:00:00Z", began=20)).until == "2026-06-01T12:00:40+00:00"
    assert modes.snoozed(wish("2026-06-01T12:00:30Z", began=20)).until == "2026-06-01T12:00:30+00:00"
    assert modes.snoozed(wish("2099-01-01T00:00:00Z", began=60)) is None
    for ahead in (-3600, -math.inf):
        assert modes.snoozed(wish("2099-01-01T00:00:00Z", began=ahead)).seconds == 60


def test_h12_a_window_reads_its_schedule_once_a_minute(monkeypatch):
    """It is asked for every heal and every second, and walks back to the last opening: up to 1.5 ms each time."""
    read = []
    cron = snooze.CronSim
    monkeypatch.setattr(snooze, "CronSim", lambda *given, **named: read.append(given) or cron(*given, **named))
    window = Window("0 3 29 2 *", 90.5, "Europe/Rome")
    start = datetime.fromisoformat("2028-02-29T03:01:00+01:00")
    asked = [window.is_open(start + timedelta(seconds=second)) for second in range(60)]
    assert asked == [True] * 31 + [False] * 29
    assert len(read) <= 2
