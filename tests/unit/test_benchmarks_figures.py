"""The benchmarks' arithmetic: what is said of a run must follow from what was measured in it."""

import pytest
from benchmarks import audit, objects
from benchmarks.figures import Check, Duel, Results, memory_check, p99
from benchmarks.report import markdown


def test_p99_of_few_values_is_the_greatest_of_them():
    assert p99([3.0, 1.0, 2.0]) == 3.0


def test_p99_of_many_values_leaves_one_in_a_hundred_out():
    assert p99([float(number) for number in range(1, 201)]) == 198.0


def test_a_duel_is_won_within_both_ratios():
    assert Duel("x", floor=[1.0, 1.0, 2.0], daemon=[2.0, 2.0, 6.0]).met


@pytest.mark.parametrize("daemon", [[2.1, 2.1, 2.1], [1.0, 1.0, 6.1]])
def test_a_duel_is_lost_by_the_median_or_by_the_p99(daemon):
    assert not Duel("x", floor=[1.0, 1.0, 2.0], daemon=daemon).met


def test_a_burst_has_one_ratio():
    assert Duel("x", floor=[2.0], daemon=[3.0], budgets=(1.5, None)).met


def test_ends_are_told_only_of_enough_repetitions():
    assert Duel("x", daemon=[1.0] * 19).ends is None
    assert Duel("x", daemon=[1.0] * 10 + [5.0] * 30 + [2.0] * 10).ends == (1.0, 2.0)


def test_the_memory_budget_grows_with_the_objects():
    assert memory_check(10_000, 100_000_000, 0, "").met
    assert not memory_check(100, 80_300_000, 0, "").met


def test_requests_are_counted_by_agent_and_time(tmp_path):
    when = '"requestReceivedTimestamp":"2026-01-01T00:00:%sZ"'
    event = '{"userAgent":"%s","verb":"%s","requestURI":"/api","objectRef":{"resource":"x"},' + when + "}\n"
    log = tmp_path / "audit.log"
    log.write_text(
        event % ("driftwatch/1", "patch", "10.500000")
        + event % ("driftwatch/1", "patch", "30.000000")
        + event % ("kubectl/1", "patch", "10.000000")
        + event % ("driftwatch/1", "list", "11.000000")
        + '{"userAgent":"driftwatch/1","verb":"get","requestReceivedTimestamp":"2026-01-01T00:00:10.000000Z"}\n'
    )
    midnight = 1767225600.0
    assert audit.requests(log, midnight + 5, midnight + 20) == {"patch": 1, "list": 1, "discovery": 1}


@pytest.mark.parametrize("body", objects.contested("x", 0))
def test_what_is_declared_has_the_declared_value(body):
    assert objects.value_of(body) == objects.declared_value(body["kind"])


def test_every_object_has_a_file_of_its_own():
    assert len(objects.files(objects.many("x", 250))) == 250


def test_the_page_has_every_row_with_its_verdict():
    results = Results(
        duels=[Duel("One thing deleted", floor=[0.004] * 50, daemon=[0.006] * 50, toy=[2.5])],
        checks=[Check("Something else", "5 s", "1 s", met=False)],
    )
    page = markdown(results, {"CPU": "two"}, (0.1, 0.2))
    assert "| One thing deleted | 4.0 / 4.0 | 6.0 / 6.0 | 1.50 / 1.50 | ≤ 2 / 3 | yes | 2,500.0 (of 1) |" in page
    assert "| Something else | 5 s | 1 s | **no** |" in page
    assert "| One thing deleted | 6.0 | 6.0 |" in page


def test_the_page_shows_how_cost_grows():
    results = Results()
    results.grew("A scrape", 1_000, "5 ms")
    results.grew("A scrape", 100, "4 ms")
    results.grew("First sync", 1_000, "3 s")
    page = markdown(results, {}, (0.1, 0.2))
    assert "| what | 100 objects | 1,000 objects |" in page
    assert "| A scrape | 4 ms | 5 ms |" in page
    assert "| First sync |  | 3 s |" in page


@pytest.mark.parametrize(("load", "provisional"), [(0.3, False), (8.2, True)])
def test_a_page_of_a_busy_machine_says_so(load, provisional):
    page = markdown(Results(), {}, (load, 2.0))
    assert ("provisional" in page) is provisional


def test_the_page_names_what_failed():
    assert "Failed, and not all there: churn, storm." in markdown(
        Results(failed={"churn": "x", "storm": "y"}), {}, (0, 0)
    )
    assert "Failed" not in markdown(Results(), {}, (0, 0))
