"""Somebody who changes an object again and again: named, never let through, slowed down at a machine's pace."""

from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.support.clock import Clock
from tests.support.daemon import Daemon
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.meanwhile import meanwhile
from tests.support.scene import NewDaemon
from tests.support.waiting import until


def _controller(live: Live, declared: Manifest) -> AbstractContextManager[None]:
    """A controller that wants another value, and writes it as soon as it is gone."""

    def fight() -> None:
        found = live.get(declared)
        if found and found["data"]["colour"] != "green":
            live.patch(declared, {"data": {"colour": "green"}}, manager="painter")

    return meanwhile(fight)


def _heals(daemon: Daemon, namespace: str) -> float:
    return daemon.metric("driftwatch_heals_total", source=daemon.source, namespace=namespace, result="success")


@pytest.mark.alone
def test_e03_a_person_who_edits_again_and_again_is_named_and_healed_at_full_speed(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """From the fifth heal within a minute on it is said who contests the object; each edit is put back at once."""
    settings = config_map("settings", namespace, colour="blue")
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()

    for _ in range(12):
        live.patch(settings, {"data": {"colour": "green"}}, manager="kubectl-edit")
        until(lambda: live.get(settings)["data"]["colour"] == "blue", "it is put back")

    daemon.wait(lambda: daemon.events("contested"), "it is said who contests it")
    [contested] = daemon.events("contested")
    assert (contested["name"], contested["manager"]) == ("settings", "kubectl-edit")
    assert "at once" in contested["next"]
    assert daemon.metric("driftwatch_contested_objects", source=daemon.source, namespace=namespace) == 1
    assert all(line["seconds"] < 1.0 for line in daemon.events("drift healed"))


@pytest.mark.alone
def test_e03_a_controller_that_fights_is_slowed_down_until_a_new_commit(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """A hundred heals, then each waits longer; others are healed meanwhile, and a new commit is applied at once."""
    settings, other = config_map("settings", namespace, colour="blue"), config_map("other", namespace, colour="blue")
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings, other]})
    daemon.start()

    with _controller(live, settings):
        daemon.wait(lambda: [line for line in daemon.events("contested") if "every 4 s" in line["next"]], "slower")
        healed = _heals(daemon, namespace)
        drifted = daemon.metric("driftwatch_drifted_objects", source=daemon.source, namespace=namespace)
        live.patch(other, {"data": {"colour": "green"}}, manager="kubectl-edit")
        until(lambda: live.get(other)["data"]["colour"] == "blue", "what nobody contests is healed")
        assert _heals(daemon, namespace) <= healed + 2
        assert drifted == 1, "what is not healed is reported"
    assert 100 <= healed <= 130
    assert {line["manager"] for line in daemon.events("contested")} == {"painter"}

    daemon.commit({"all.yaml": [namespace_of(namespace), {**settings, "data": {"colour": "red"}}, other]})
    until(lambda: live.get(settings)["data"]["colour"] == "red", "a new commit is applied at once")
    daemon.wait(lambda: daemon.events("calm again", name="settings"), "the fight is over")
    live.patch(settings, {"data": {"colour": "green"}}, manager="kubectl-edit")
    until(lambda: live.get(settings)["data"]["colour"] == "red", "and drift is healed at full speed again")


def test_e03_a_fight_is_over_when_it_is_calm(new_daemon: NewDaemon, live: Live, tmp_path: Path, namespace: str) -> None:
    """Who was slowed down and gives up is not forgotten at once; after minutes without a change all is as before."""
    clock = Clock(tmp_path)
    settings = config_map("settings", namespace, colour="blue")
    daemon = new_daemon()
    daemon.environment |= clock.environment
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()

    def contested() -> float:
        return daemon.metric("driftwatch_contested_objects", source=daemon.source, namespace=namespace)

    def edited() -> None:
        before = len(daemon.log())
        live.patch(settings, {"data": {"colour": "green"}}, manager="kubectl-edit")
        until(lambda: live.get(settings)["data"]["colour"] == "blue", "it is put back")
        daemon.wait(lambda: any(line["event"] == "drift healed" for line in daemon.log()[before:]), "that is told")
        told = [line["event"] for line in daemon.log()[before:] if line["event"] in ("drift", "drift healed")]
        assert told == ["drift healed"], "at once: drift that has to wait is told beforehand"

    with _controller(live, settings):
        daemon.wait(lambda: [line for line in daemon.events("contested") if "every 4 s" in line["next"]], "slower")
    daemon.wait(lambda: live.get(settings)["data"]["colour"] == "blue", "the last edit of the controller is put back")
    assert contested() == 1

    clock.skip(90)
    edited()
    edited()  # the first one would be at full speed anyway, since it has waited for so long
    assert contested() == 1, "a hundred heals are not forgotten in a minute and a half"
    assert daemon.events("calm again") == []

    clock.skip(400)
    [calm] = daemon.wait(lambda: daemon.events("calm again"), "nobody has changed it for long")
    assert (calm["name"], calm["namespace"]) == ("settings", namespace)
    assert contested() == 0
    known = len(daemon.events("contested"))
    edited()
    edited()
    assert contested() == 0, "two edits are no fight"
    assert len(daemon.events("contested")) == known
