"""Who may hold healing up, where and for how long: paused, snoozed, outside of a window, another configuration."""

import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, namespace_of
from tests.support.repository import Repository
from tests.support.scene import NewDaemon

SNOOZE = "driftwatch.io/snooze-until"


def _edit(live: Live, declared: Manifest, colour: str = "blue") -> None:
    live.patch(declared, {"data": {"colour": colour}}, manager="kubectl-edit")


def _colour(live: Live, declared: Manifest) -> str:
    return str((live.get(declared) or {})["data"]["colour"])


def _writes(audit: AuditTrail, namespace: str) -> set[str]:
    """What the daemon has written to, dry runs aside."""
    return {
        event["objectRef"]["name"]
        for event in audit.events(agent=AGENT, namespace=namespace)
        if event["verb"] in WRITES and "dryRun=All" not in event["requestURI"]
    }


def _reconfigure(daemon: Daemon, *, by_signal: bool = False, **source: Any) -> None:
    """Change settings of the first source, and wait until the daemon has taken them in."""
    reloads = daemon.metric("driftwatch_config_reloads_total", result="success")
    daemon.configuration["sources"][0] |= source
    (daemon.folder / "driftwatch.yaml").write_text(yaml.safe_dump(daemon.configuration))
    if by_signal:
        daemon.signal(signal.SIGHUP)
    daemon.wait(
        lambda: daemon.metric("driftwatch_config_reloads_total", result="success") > reloads, "it is reconfigured"
    )


def _until(**delta: float) -> str:
    return (datetime.now(UTC) + timedelta(**delta)).isoformat(timespec="seconds").replace("+00:00", "Z")


def test_b07_paused_source_and_object_are_left_alone(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, kubectl: Kubectl, namespace: str
) -> None:
    """A source that is paused, and an object that Git pauses, are neither healed nor created; all else is."""
    resting, healed, paused = (config_map(name, namespace) for name in ("resting", "healed", "paused"))
    daemon = new_daemon()
    still = Repository(daemon.folder / "still")
    daemon.configuration["sources"].append({"name": "still", "repository": str(still.folder), "interval": "250ms"})
    daemon.commit({"all.yaml": [namespace_of(namespace), healed, paused]})
    still.commit({"all.yaml": resting})
    daemon.start()
    daemon.wait_in_sync(healed, paused)
    daemon.wait_in_sync(resting, source="still")
    paused["metadata"]["annotations"] = {"driftwatch.io/mode": "paused"}
    healed["data"] = {"colour": "red", "size": "1"}
    daemon.commit({"all.yaml": [namespace_of(namespace), healed, paused]})
    daemon.wait_in_sync(healed)
    daemon.configuration["sources"][1]["mode"] = "paused"
    _reconfigure(daemon)
    audit.mark()

    for one in (resting, paused, healed):
        _edit(live, one)
    daemon.wait_drift(namespace=namespace, name="healed")
    kubectl("delete", "configmap", "resting", "paused", "-n", namespace)
    _edit(live, healed, "green")
    daemon.wait(lambda: daemon.drift_total(namespace=namespace) == 2, "the other object is healed again")

    assert _writes(audit, namespace) == {"healed"}
    assert {line["name"] for line in daemon.drifts(namespace=namespace)} == {"healed"}
    assert live.get(resting) is None

    daemon.configuration["sources"][1]["mode"] = "heal"
    _reconfigure(daemon)
    daemon.wait_in_sync(resting, source="still")
    assert live.get(paused) is None


def test_b07_objects_that_a_rule_pauses_are_left_alone(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, kubectl: Kubectl, namespace: str
) -> None:
    """A rule pauses what it selects and nothing else, and when it is gone, what has drifted meanwhile is healed."""
    paused, gone, healed = (config_map(name, namespace) for name in ("paused-1", "paused-2", "healed"))
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), paused, gone, healed]})
    daemon.start()
    daemon.wait_in_sync(paused, gone, healed)
    daemon.configuration["ignore"] = [{"namespace": namespace, "name": "paused-*", "mode": "paused"}]
    _reconfigure(daemon)
    audit.mark()

    for one in (paused, healed):
        _edit(live, one)
    kubectl("delete", "configmap", "paused-2", "-n", namespace)
    daemon.wait_drift(namespace=namespace, name="healed")
    _edit(live, healed, "green")
    daemon.wait(lambda: daemon.drift_total(namespace=namespace) == 2, "the other object is healed again")

    assert _writes(audit, namespace) == {"healed"}
    assert {line["name"] for line in daemon.drifts(namespace=namespace)} == {"healed"}
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0
    assert _colour(live, paused) == "blue"
    assert live.get(gone) is None

    del daemon.configuration["ignore"]
    _reconfigure(daemon)
    daemon.wait_in_sync(paused, gone)
    for name in ("paused-1", "paused-2"):
        daemon.wait(lambda name=name: daemon.drifts(namespace=namespace, name=name), f"{name} is told")
    assert {line["name"] for line in daemon.drifts(namespace=namespace)} == {"healed", "paused-1", "paused-2"}


def test_b07_snooze_holds_healing_up_until_it_ends(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A snoozed object is not healed, whoever set the snooze is named, and when it is over the drift is healed."""
    snoozed, awake = config_map("snoozed", namespace), config_map("awake", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), snoozed, awake]})
    daemon.start()
    daemon.wait_in_sync(snoozed, awake)

    until = _until(seconds=4)
    live.patch(snoozed, {"metadata": {"annotations": {SNOOZE: until}}}, manager="kubectl-annotate")
    _edit(live, snoozed)
    [said] = daemon.wait(lambda: daemon.events("snoozed", namespace=namespace), "the snooze is reported")
    assert (said["name"], said["manager"]) == ("snoozed", "kubectl-annotate")
    assert datetime.fromisoformat(said["until"]) == datetime.fromisoformat(until)
    _edit(live, awake)
    daemon.wait_drift(namespace=namespace, name="awake")
    assert _colour(live, snoozed) == "blue" or datetime.now(UTC) >= datetime.fromisoformat(until)

    daemon.wait_drift(namespace=namespace, name="snoozed")
    assert datetime.now(UTC) >= datetime.fromisoformat(until)
    daemon.wait_in_sync(snoozed)
    assert len(daemon.events("snoozed", namespace=namespace)) == 1
    assert daemon.metric("driftwatch_snoozes_total", namespace=namespace) == 1


def test_b07_snooze_is_capped_and_ends_when_it_is_taken_away(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Nobody snoozes longer than the configuration allows; taken away or unreadable, a snooze holds nothing up."""
    capped, freed, wrong = (config_map(name, namespace) for name in ("capped", "freed", "wrong"))
    daemon = new_daemon()
    daemon.configuration["drift"] = {"maxSnooze": "3s"}
    daemon.commit({"all.yaml": [namespace_of(namespace), capped, freed, wrong]})
    daemon.start()
    daemon.wait_in_sync(capped, freed, wrong)

    for one, wish in ((wrong, "tomorrow"), (capped, _until(days=300))):
        live.patch(one, {"metadata": {"annotations": {SNOOZE: wish}}}, manager="kubectl-annotate")
        _edit(live, one)
    daemon.wait_drift(namespace=namespace, name="wrong")
    daemon.wait_drift(namespace=namespace, name="capped")
    [said] = daemon.events("snoozed", namespace=namespace, name="capped")
    assert datetime.fromisoformat(said["until"]) < datetime.now(UTC) + timedelta(minutes=1)

    daemon.configuration["drift"] = {"maxSnooze": "1h"}
    _reconfigure(daemon)
    live.patch(freed, {"metadata": {"annotations": {SNOOZE: _until(days=1)}}}, manager="kubectl-annotate")
    _edit(live, freed)
    daemon.wait(lambda: daemon.events("snoozed", namespace=namespace, name="freed"), "the snooze is reported")
    live.patch(freed, {"metadata": {"annotations": {SNOOZE: None}}}, manager="kubectl-annotate")
    daemon.wait_drift(namespace=namespace, name="freed")
    daemon.wait_in_sync(freed)


def test_b07_snooze_that_names_no_time_is_said_once(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """Whoever wrote it counts on it: it is said at once who did and what is wanted, before anything is reverted."""
    vague, local, secret = config_map("vague", namespace), config_map("local", namespace), config_map("s", namespace)
    secret |= {"kind": "Secret", "data": {"colour": "cmVk"}}
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), vague, local, secret]})
    daemon.start()
    daemon.wait_in_sync(vague, local, secret)

    def snooze(declared: Manifest, wish: str | None) -> None:
        live.patch(declared, {"metadata": {"annotations": {SNOOZE: wish}}}, manager="kubectl-annotate")

    def said(name: str) -> list[dict[str, Any]]:
        return daemon.events("snooze cannot be read", namespace=namespace, name=name)

    for one, wish in ((vague, "tomorrow"), (local, "2099-01-01T00:00:00"), (secret, "hunter2")):
        snooze(one, wish)
    for one, wish in (("vague", "tomorrow"), ("local", "2099-01-01T00:00:00"), ("s", "<hidden>")):
        [line] = daemon.wait(lambda one=one: said(one), f"it is said of {one}")
        assert (line["level"], line["until"], line["manager"]) == ("warning", wish, "kubectl-annotate")
        assert "driftwatch.io/snooze-until must be an RFC 3339 time with an offset" in line["next"]
    assert "hunter2" not in daemon.text()
    _edit(live, vague)
    daemon.wait_drift(namespace=namespace, name="vague")
    _edit(live, vague, "green")
    daemon.wait(lambda: daemon.drift_total(namespace=namespace, kind="ConfigMap") == 2, "it is healed again")
    assert len(said("vague")) == 1
    event = _event_about(live, namespace, "vague", daemon)
    assert (event["type"], event["action"]) == ("Warning", "Snooze")
    assert "is not snoozed by kubectl-annotate: driftwatch.io/snooze-until must be" in event["note"]

    snooze(vague, None)
    snooze(vague, "tomorrow")
    daemon.wait(lambda: len(said("vague")) == 2, "who tries it again is told again")
    snooze(vague, _until(hours=1))
    _edit(live, vague)
    daemon.wait(lambda: daemon.events("snoozed", namespace=namespace, name="vague"), "a time is one")
    daemon.stop()
    daemon.start()
    assert [len(said(name)) for name in ("vague", "local")] == [0, 1]


def _event_about(live: Live, namespace: str, name: str, daemon: Daemon) -> dict[str, Any]:
    """The Event that says of an object that its snooze cannot be read."""

    def found() -> list[dict[str, Any]]:
        items = live.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")[1]["items"]
        return [each for each in items if (each["reason"], each["regarding"]["name"]) == ("SnoozeUnreadable", name)]

    [event] = daemon.wait(found, "the Event is written")
    return event


def test_b07_snooze_survives_a_restart(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A daemon that has just started keeps from reverting what was added to a snoozed object, and says as before."""
    snoozed, awake = config_map("snoozed", namespace), config_map("awake", namespace)
    daemon = new_daemon()
    daemon.configuration["drift"] = {"maxSnooze": "10m"}
    daemon.commit({"all.yaml": [namespace_of(namespace), snoozed, awake]})
    daemon.start()
    daemon.wait_in_sync(snoozed, awake)
    daemon.stop()
    live.patch(snoozed, {"metadata": {"annotations": {SNOOZE: _until(hours=1)}}}, manager="kubectl-annotate")
    asked = datetime.now(UTC)
    for one in (snoozed, awake):
        live.patch(one, {"data": {"extra": "1"}}, manager="kubectl-edit")

    daemon.start()

    daemon.wait_drift(namespace=namespace, name="awake", type="added")
    [before] = daemon.wait(lambda: daemon.events("snoozed", namespace=namespace), "the snooze is reported")
    assert datetime.fromisoformat(before["until"]) <= asked + timedelta(minutes=10), "since it was set, not seen"
    assert (live.get(snoozed) or {})["data"]["extra"] == "1"

    time.sleep(1.1)  # an owner's time has whole seconds
    live.patch(snoozed, {"data": {"other": "1"}}, manager="kubectl-annotate")
    daemon.stop()
    daemon.start()
    _edit(live, awake)
    daemon.wait_drift(namespace=namespace, name="awake", type="modified")
    [after] = daemon.wait(lambda: daemon.events("snoozed", namespace=namespace), "the snooze is reported again")
    assert (after["name"], after["until"]) == ("snoozed", before["until"])
    assert (live.get(snoozed) or {})["data"]["extra"] == "1"


def test_b07_cap_on_a_snooze_does_not_begin_anew_with_a_restart(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """Once it is over it is over, also where nobody owns the annotation any more."""
    owned, nobodys = config_map("owned", namespace), config_map("nobodys", namespace)
    daemon = new_daemon()
    daemon.configuration["drift"] = {"maxSnooze": "3s"}
    daemon.commit({"all.yaml": [namespace_of(namespace), owned, nobodys]})
    daemon.start()
    daemon.wait_in_sync(owned, nobodys)
    for one in (owned, nobodys):
        live.patch(one, {"metadata": {"annotations": {SNOOZE: "2030-01-01T00:00:00Z"}}}, manager="kubectl-annotate")
        _edit(live, one)
    live.patch(nobodys, {"metadata": {"managedFields": [{}]}}, manager="kubectl-edit")
    for one in (owned, nobodys):
        daemon.wait(lambda one=one: _colour(live, one) == "red", "it is healed when the cap is over")
    assert {line["name"] for line in daemon.events("snoozed", namespace=namespace)} == {"owned", "nobodys"}
    daemon.stop()
    for one in (owned, nobodys):
        _edit(live, one, "green")

    daemon.start()

    for one in (owned, nobodys):
        daemon.wait(lambda one=one: _colour(live, one) == "red", "it is healed at the start")
    assert not daemon.events("snoozed", namespace=namespace)


def test_b07_snooze_that_git_declares_holds_nothing_up(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """It is a wish of the live object: in a manifest it is left out, and one that is there stays."""
    settings = config_map("settings", namespace)
    settings["metadata"]["annotations"] = {SNOOZE: "2099-01-01T00:00:00Z", "example.com/note": "kept"}
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync({**settings, "metadata": {**settings["metadata"], "annotations": {"example.com/note": "kept"}}})
    assert SNOOZE not in (live.get(settings) or {})["metadata"]["annotations"]

    _edit(live, settings)
    daemon.wait_drift(namespace=namespace, name="settings")
    assert not daemon.events("snoozed", namespace=namespace)

    live.patch(settings, {"metadata": {"annotations": {SNOOZE: _until(hours=1)}}}, manager="kubectl-annotate")
    _edit(live, settings)
    [said] = daemon.wait(lambda: daemon.events("snoozed", namespace=namespace), "the snooze is reported")
    assert said["manager"] == "kubectl-annotate"


def test_b08_modes_change_without_a_restart(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Heal → observe → heal: what is only reported is not written to, and is healed as soon as that is allowed."""
    web, settings = deployment("web", namespace), config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), web, settings]})
    daemon.start()
    daemon.wait_in_sync(web, settings)

    audit.mark()
    _reconfigure(daemon, mode="observe")
    _edit(live, settings)
    daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="settings"), "the drift is reported")
    assert [line["name"] for line in daemon.drifts(namespace=namespace)] == ["settings"]
    assert _writes(audit, namespace) == set()
    assert daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1

    _reconfigure(daemon, mode="heal", by_signal=True)
    daemon.wait_in_sync(web, settings)
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0, "nothing differs")
    _edit(live, settings, "green")
    daemon.wait_drift(namespace=namespace, name="settings", type="modified")
    assert daemon.drift_total(namespace=namespace, kind="Deployment") == 0


def test_b08_additions_and_rules_change_without_a_restart(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """What was only reported is reverted when that is wanted, and what is ignored from now on stays."""
    settings = config_map("settings", namespace, colour="red", size="4")
    daemon = new_daemon(options={"additions": "report"})
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    live.patch(settings, {"data": {"extra": "1"}}, manager="kubectl-edit")
    daemon.wait(lambda: daemon.events("drift", namespace=namespace, type="added"), "the addition is reported")

    _reconfigure(daemon, additions="revert", ignore=[{"pointers": ["/data/size"]}])

    daemon.wait(lambda: "extra" not in (live.get(settings) or {})["data"], "the addition is reverted")
    live.patch(settings, {"data": {"size": "9", "colour": "blue"}}, manager="kubectl-edit")
    daemon.wait_drift(namespace=namespace, name="settings", type="modified")
    assert (live.get(settings) or {})["data"] == {"colour": "red", "size": "9"}


def test_b08_invalid_configuration_changes_nothing(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A file that cannot be used is named with its line and counted, and the configuration in force stays."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    file = daemon.folder / "driftwatch.yaml"
    good = file.read_text()

    file.write_text(good.replace("interval: 250ms", "interval: 250ms\n  mode: sleep"))
    [said] = daemon.wait(lambda: daemon.events("configuration cannot be used"), "the mistake is reported")

    assert f"{file}:" in said["error"]
    assert "mode" in said["error"]
    assert daemon.metric("driftwatch_config_reloads_total", result="failure") == 1
    _edit(live, settings)
    daemon.wait_drift(namespace=namespace, name="settings")
    file.unlink()
    daemon.wait(lambda: len(daemon.events("configuration cannot be used")) == 2, "the missing file is reported")
    _edit(live, settings)
    daemon.wait(lambda: daemon.drift_total(namespace=namespace) == 2, "healing goes on")
    _reconfigure(daemon, mode="paused")


def test_b10_drift_outside_of_the_windows_is_healed_when_one_opens(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, kubectl: Kubectl, namespace: str
) -> None:
    """Closed: drift is reported, mended by hand it is gone; a commit is applied all the same. Open: it is healed."""
    web, settings, mended = (
        deployment("web", namespace),
        config_map("settings", namespace),
        deployment("mended", namespace),
    )
    everything = [namespace_of(namespace), web, settings, mended]
    yesterday = (datetime.now(UTC) - timedelta(days=2)).strftime("%-d %-m")
    daemon = new_daemon(options={"windows": [{"schedule": f"0 0 {yesterday} *", "duration": "1m"}]})
    daemon.commit({"all.yaml": everything})
    daemon.start()
    daemon.wait_in_sync(web, settings, mended)
    audit.mark()

    for name in ("web", "mended"):
        kubectl("scale", f"deploy/{name}", "--replicas=5", "-n", namespace)
        daemon.wait(lambda name=name: daemon.events("drift", namespace=namespace, name=name), "the drift is reported")
    kubectl("scale", "deploy/mended", "--replicas=2", "-n", namespace)
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1, "one is mended by hand")
    assert _writes(audit, namespace) == set()
    settings["data"] = {"colour": "green"}
    daemon.commit({"all.yaml": everything})
    daemon.wait_in_sync(settings)
    kubectl("delete", "configmap", "settings", "-n", namespace)
    daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="settings"), "the deletion is reported")
    assert live.get(settings) is None

    _reconfigure(daemon, windows=[{"schedule": "* * * * *", "duration": "1h"}])

    daemon.wait_in_sync(web, settings, mended)
    daemon.wait(lambda: daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 0, "nothing differs")
    assert daemon.drift_total(namespace=namespace) == 3


def test_b10_a_window_opens_by_the_clock_of_its_time_zone(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """One schedule in two zones: open now where clocks show it, closed where they do not, until that zone is meant."""
    kolkata = "Asia/Kolkata"
    opened = datetime.now(ZoneInfo(kolkata)) - timedelta(minutes=10)
    window = {"schedule": f"{opened:%-M} {opened:%-H} * * *", "duration": "1h"}
    here, elsewhere = config_map("here", namespace, colour="red"), config_map("elsewhere", namespace, colour="red")
    daemon = new_daemon(options={"windows": [{**window, "timezone": "America/New_York"}]})
    open_now = Repository(daemon.folder / "open")
    open_now.commit({"all.yaml": [here]})
    daemon.configuration["sources"].append(
        {
            "name": f"{daemon.source}-open",
            "repository": str(open_now.folder),
            "windows": [{**window, "timezone": kolkata}],
        }
    )
    daemon.commit({"all.yaml": [namespace_of(namespace), elsewhere]})
    daemon.start()
    daemon.wait_in_sync(elsewhere)
    daemon.wait_in_sync(here, source=f"{daemon.source}-open")
    audit.mark()

    _edit(live, elsewhere)
    daemon.wait(lambda: daemon.events("drift", namespace=namespace, name="elsewhere"), "the drift is reported")
    _edit(live, here)
    daemon.wait_drift(namespace=namespace, name="here", type="modified")

    assert (_colour(live, here), _colour(live, elsewhere)) == ("red", "blue")
    assert _writes(audit, namespace) == {"here"}
    _reconfigure(daemon, windows=[{**window, "timezone": kolkata}])
    daemon.wait_in_sync(elsewhere)
