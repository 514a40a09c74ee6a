"""Who is told of drift: Events, the journal and receivers of notifications."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support import schemas
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, Daemon
from tests.support.kubectl import Kubectl
from tests.support.live import Live
from tests.support.manifests import config_map, deployment, manifest, namespace_of
from tests.support.receiver import Receiver, receiver
from tests.support.scene import NewDaemon, daemons
from tests.support.waiting import until
from tests.support.webhook import certificate

EVENTS = "/apis/events.k8s.io/v1/namespaces/{}/events"
WORDS = ("sesame", "caraway", "open-up")
JOURNAL_SCHEMA = json.loads((schemas.DOCS / "journal.schema.json").read_text())


class Stage(NamedTuple):
    """A daemon that tells everyone, and those whom it tells."""

    daemon: Daemon
    journal: Path
    hook: Receiver
    slack: Receiver
    alerts: Receiver
    secret: str


@pytest.fixture(scope="module")
def stage(cluster: LocalCluster, live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run a daemon with a journal, CloudEvents by TLS, Slack by a secret address, Alertmanager, and a dead receiver."""
    folder = tmp_path_factory.mktemp("receivers")
    certificate(folder)
    secret = "T00/B00/sesame-address"
    with (
        receiver(folder / "webhook.crt", folder / "webhook.key") as hook,
        receiver() as slack,
        receiver() as alerts,
        daemons(cluster, live, tmp_path_factory) as new,
    ):
        (folder / "url").write_text(f"{slack.url}/services/{secret}")
        daemon = new()
        daemon.configuration["journal"] = {"file": str(daemon.folder / "journal.jsonl")}
        daemon.configuration["notifications"] = [
            {"name": "hook", "type": "webhook", "url": hook.url, "caFile": str(folder / "webhook.crt"),
             "batchWindow": "10ms"},
            {"name": "chat", "type": "slack", "urlFile": str(folder / "url"), "batchWindow": "10ms"},
            {"name": "alerts", "type": "alertmanager", "url": alerts.url, "batchWindow": "10ms"},
            {"name": "dead", "type": "teams", "url": "http://127.0.0.1:9/"},
        ]  # fmt: skip
        daemon.commit({"README.md": "Nothing is declared yet."})
        daemon.start()
        yield Stage(daemon, daemon.folder / "journal.jsonl", hook, slack, alerts, secret)


def lines(file: Path, **fields: Any) -> list[dict[str, Any]]:
    """Lines of the journal with these fields; `name` and `namespace` are those of the object."""
    found = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [
        line for line in found if all(({**line, **line["object"]})[name] == value for name, value in fields.items())
    ]


def events(live: Live, namespace: str, **fields: str) -> list[dict[str, Any]]:
    """Events of a namespace that driftwatch has written, with these fields."""
    code, found = live.request("GET", EVENTS.format(namespace))
    assert code == 200
    return [
        event
        for event in found["items"]
        if event["reportingController"] == "driftwatch.io/driftwatch"
        and all(event.get(name) == value for name, value in fields.items())
    ]


def stamps(found: list[dict[str, Any]]) -> list[datetime]:
    """When the API server received these requests."""
    return [datetime.fromisoformat(each["requestReceivedTimestamp"]) for each in found]


def about(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Those that are about an object of this name."""
    return [event for event in found if event["regarding"]["name"] == name]


def test_b05_everyone_is_told_who_drifted_what(stage: Stage, live: Live, kubectl: Kubectl, namespace: str) -> None:
    """One edit is an Event that kubectl describe shows, a line of the journal, a CloudEvent, a message and an alert."""
    web = deployment("web", namespace)
    stage.daemon.declare(namespace_of(namespace), web, file=f"{namespace}.yaml")
    kubectl("scale", "deploy/web", "--replicas=5", "-n", namespace)
    stage.daemon.wait_drift(namespace=namespace, name="web")

    [event] = stage.daemon.wait(lambda: events(live, namespace, reason="DriftHealed"), "the Event is written")
    assert (event["type"], event["action"], event["regarding"]["uid"]) == ("Normal", "Heal", live.uid(web))
    assert event["note"] == (f"Deployment {namespace}/web was modified by kubectl and put back: spec.replicas: 2 → 5")
    described = kubectl("describe", "deploy/web", "-n", namespace).stdout
    row = next(row for row in described.splitlines() if "DriftHealed" in row)
    assert "driftwatch.io/driftwatch" in row
    assert "modified by kubectl" in row

    [line] = stage.daemon.wait(lambda: lines(stage.journal, namespace=namespace), "a line is written")
    jsonschema.validate(line, JOURNAL_SCHEMA)
    assert (line["event"], line["type"], line["manager"], line["source"]) == (
        "healed",
        "modified",
        "kubectl",
        stage.daemon.source,
    )
    assert 0 < line["seconds"] < 60
    assert line["file"] == f"{namespace}.yaml"
    assert [field["subresource"] for field in line["fields"]] == ["scale"]

    def told(receiver: Receiver) -> list[str]:
        return [request.body for request in receiver.requests if namespace in request.body]

    [cloud_event] = stage.daemon.wait(lambda: told(stage.hook), "the webhook is told")
    assert {**json.loads(cloud_event)["data"], "message": ""} == {**line, "message": ""}
    [message] = stage.daemon.wait(lambda: told(stage.slack), "the chat is told")
    assert "modified by kubectl and put back in" in json.loads(message)["text"]
    [alerts] = stage.daemon.wait(lambda: told(stage.alerts), "Alertmanager is told")
    [alert] = json.loads(alerts)
    assert alert["labels"]["alertname"] == "DriftwatchHealed"
    stage.daemon.wait(
        lambda: stage.daemon.metric("driftwatch_notifications_total", receiver="hook", result="sent"), "it is counted"
    )
    assert stage.secret not in stage.daemon.text()
    stage.daemon.wait(
        lambda: stage.daemon.events("notification failed", receiver="dead"), "that nobody answers is said"
    )
    assert len(stage.daemon.events("notification failed", receiver="dead")) == 1


def test_b05_a_created_object_has_its_own_event(stage: Stage, live: Live, kubectl: Kubectl, namespace: str) -> None:
    """After a deletion the Event is about the new object, so that kubectl describe shows it there."""
    settings = config_map("settings", namespace)
    stage.daemon.declare(namespace_of(namespace), settings, file=f"{namespace}.yaml")
    uids = []
    for _ in range(2):
        uids.append(live.uid(settings))
        kubectl("delete", "configmap", "settings", "-n", namespace)
        stage.daemon.wait(lambda: live.uid(settings) not in ("", *uids), "it is created again")
        stage.daemon.wait(
            lambda: [each for each in events(live, namespace) if each["regarding"].get("uid") == live.uid(settings)],
            "the Event is written",
        )
    assert "DriftHealed" in kubectl("describe", "configmap/settings", "-n", namespace).stdout


def test_b05_what_repeats_itself_is_a_series(stage: Stage, live: Live, namespace: str) -> None:
    """The same edit five times is one Event with a count of five."""
    settings = config_map("settings", namespace)
    stage.daemon.declare(namespace_of(namespace), settings, file=f"{namespace}.yaml")
    for number in range(1, 6):
        live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
        stage.daemon.wait(
            lambda number=number: len(lines(stage.journal, namespace=namespace, event="healed")) == number,
            "the edit is healed",
        )
    [event] = stage.daemon.wait(
        lambda: [
            each for each in events(live, namespace, reason="DriftHealed") if each.get("series", {}).get("count") == 5
        ],
        "the series has all five",
    )
    assert len(events(live, namespace, reason="DriftHealed")) == 1
    assert event["series"]["lastObservedTime"] > event["eventTime"]


def test_b05_events_give_way_while_drift_is_healed(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """All that is deleted at once is put back before an Event says so, and each one is told of then."""
    maps = [config_map(f"settings-{number}", namespace) for number in range(60)]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *maps]})
    daemon.start()
    daemon.wait_in_sync(*maps)
    audit.mark()
    code, _ = live.request("DELETE", live.path(maps[0]).rpartition("/")[0])
    assert code == 200
    daemon.wait_in_sync(*maps)
    daemon.wait(lambda: len(events(live, namespace, reason="DriftHealed")) == len(maps), "all are told of")
    heals, written = (
        stamps(audit.wait(len(maps), agent=AGENT, namespace=namespace, resource=resource, code=201))
        for resource in ("configmaps", "events")
    )
    assert len(heals) == len(written) == len(maps)
    between = [heal for told in written for heal in heals if timedelta(0) < told - heal < timedelta(seconds=0.05)]
    assert len(between) < 5, "one or two may meet where the machine has much else to do; it was a hundred"


def test_b05_cluster_scoped_objects_have_their_events_in_default(stage: Stage, live: Live, namespace: str) -> None:
    """A ClusterRole whose name no Event may have is told of in the namespace default."""
    name = f"{namespace}:reader"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    role = manifest("rbac.authorization.k8s.io/v1", "ClusterRole", name, rules=[rule])
    stage.daemon.declare(role, file=f"{namespace}.yaml")
    live.request("DELETE", live.path(role))
    stage.daemon.wait_drift(name=name)
    [event] = stage.daemon.wait(lambda: about(events(live, "default"), name), "the Event is written")
    assert event["regarding"] == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "name": name,
        "uid": live.uid(role),
    }


def test_b05_a_refused_manifest_is_told_of(stage: Stage, live: Live, namespace: str) -> None:
    """What the API server refuses is a Warning, and a failed line with the server's words and no drift type."""
    wrong = config_map("wrong", namespace)
    wrong["data"] = {"no good key": "1"}
    good = config_map("good", namespace)
    stage.daemon.commit({f"{namespace}.yaml": [namespace_of(namespace), good, wrong]})
    [line] = stage.daemon.wait(lambda: lines(stage.journal, namespace=namespace, event="failed"), "a line is written")
    jsonschema.validate(line, JOURNAL_SCHEMA)
    assert line["type"] is None
    assert "no good key" in line["error"]
    [event] = stage.daemon.wait(lambda: events(live, namespace, reason="HealFailed"), "the Event is written")
    assert event["type"] == "Warning"
    alerts = stage.daemon.wait(
        lambda: [request for request in stage.alerts.requests if namespace in request.body], "the alert fires"
    )
    assert alerts[0].json[0]["labels"]["alertname"] == "DriftwatchHealFailed"

    wrong["data"] = {"good-key": "1"}
    stage.daemon.declare(namespace_of(namespace), good, wrong, file=f"{namespace}.yaml")


def test_b07_drift_of_a_snoozed_object_is_told_and_healed_when_it_ends(
    stage: Stage, live: Live, namespace: str
) -> None:
    """While it is snoozed it counts as drifting; one story with one id, from finding it to healing it."""
    settings = config_map("settings", namespace)
    stage.daemon.declare(namespace_of(namespace), settings, file=f"{namespace}.yaml")
    annotation = {"driftwatch.io/snooze-until": "2099-01-01T00:00:00Z"}
    live.patch(settings, {"metadata": {"annotations": annotation}, "data": {"colour": "blue"}}, manager="kubectl-edit")
    stage.daemon.wait(
        lambda: stage.daemon.metric("driftwatch_drifted_objects", namespace=namespace) == 1, "the gauge has it"
    )
    live.patch(
        settings, {"metadata": {"annotations": {"driftwatch.io/snooze-until": None}}}, manager="kubectl-annotate"
    )
    stage.daemon.wait_in_sync(settings)
    found = stage.daemon.wait(
        lambda: (said := lines(stage.journal, namespace=namespace)) and said[-1]["event"] == "healed" and said,
        "the heal is written",
    )
    assert [line["event"] for line in found] == ["snoozed", "drifted", "healed"]
    assert found[1]["id"] == found[2]["id"] != found[0]["id"]
    assert found[0]["until"].startswith("20")
    assert found[1]["since"] == found[2]["since"]


def test_b05_nobody_is_told_a_secrets_value(stage: Stage, live: Live, kubectl: Kubectl, namespace: str) -> None:
    """Edits, additions, a deletion and a refusal of a Secret: nothing that leaves the daemon has a value of it."""
    secret = manifest("v1", "Secret", "login", namespace, stringData={"word": "sesame", "user": "shop"})
    stage.daemon.commit({f"{namespace}.yaml": [namespace_of(namespace), secret]})
    stage.daemon.wait(lambda: live.get(secret), "the Secret is there")
    live.patch(secret, {"data": {"word": base64.b64encode(b"caraway").decode()}}, manager="kubectl-edit")
    stage.daemon.wait_drift(namespace=namespace, type="modified")
    live.patch(secret, {"stringData": {"extra": "open-up"}}, manager="kubectl-edit")
    stage.daemon.wait_drift(namespace=namespace, type="added")
    kubectl("delete", "secret", "login", "-n", namespace)
    stage.daemon.wait_drift(namespace=namespace, type="deleted")
    stage.daemon.commit(
        {f"{namespace}.yaml": [namespace_of(namespace), {**secret, "stringData": None, "data": {"word": "sesame!"}}]}
    )
    stage.daemon.wait(lambda: lines(stage.journal, namespace=namespace, event="failed"), "the refusal is written")
    stage.daemon.wait(lambda: len(events(live, namespace)) >= 4, "the Events are written")
    stage.daemon.wait(
        lambda: len([request for request in stage.hook.requests if namespace in request.body]) >= 4, "all are told"
    )
    said = "".join(
        [
            json.dumps(events(live, namespace)),
            stage.journal.read_text(),
            stage.hook.text_of_all,
            "".join(request.body for request in stage.slack.requests),
            stage.alerts.text_of_all,
            stage.daemon.get("/api/v1/status")[1],
            stage.daemon.text(),
        ]
    )
    assert "data.word" in said
    for word in WORDS:
        for form in (word, base64.b64encode(word.encode()).decode()):
            assert form not in said, f"{form} is shown"


def test_b06_observe_writes_no_event(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """In mode observe drift is in the journal, and no Event is written."""
    settings = config_map("settings", namespace)
    for one in (namespace_of(namespace), settings):
        kubectl("apply", "--server-side", "--field-manager=deployer", "-f", "-", input=json.dumps(one))
    daemon = new_daemon(options={"mode": "observe"})
    journal = daemon.folder / "journal.jsonl"
    daemon.configuration["journal"] = {"file": str(journal)}
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    for number, colour in enumerate(("blue", "green"), start=1):
        live.patch(settings, {"data": {"colour": colour}}, manager="kubectl-edit")
        daemon.wait(lambda number=number: len(lines(journal, event="drifted")) == number, "the drift is written down")
    live.patch(settings, {"data": {"colour": "red"}}, manager="kubectl-edit")
    daemon.wait(lambda: lines(journal, event="mended"), "that it is mended is written down")
    daemon.stop()
    assert audit.events(agent=AGENT, resource="events") == []
    assert daemon.events("event not written") == []


def test_e06_events_that_rbac_forbids_cost_one_line(
    new_daemon: NewDaemon, live: Live, kubectl: Kubectl, cluster: LocalCluster, audit: AuditTrail, namespace: str
) -> None:
    """Healing goes on, the missing right is named once, and nothing is tried again in a loop."""
    settings = config_map("settings", namespace)
    kubectl("create", "namespace", namespace)
    kubectl("create", "serviceaccount", "driftwatch", "-n", namespace)
    kubectl("create", "clusterrole", namespace, "--verb=*", "--resource=namespaces,configmaps")
    kubectl("create", "clusterrolebinding", namespace, f"--clusterrole={namespace}",
            f"--serviceaccount={namespace}:driftwatch")  # fmt: skip
    token = kubectl("create", "token", "driftwatch", "-n", namespace).stdout.strip()
    daemon = new_daemon()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    (daemon.folder / "kubeconfig").write_text(yaml.safe_dump(config))
    daemon.configuration["cluster"]["kubeconfig"] = str(daemon.folder / "kubeconfig")
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    for colour in ("blue", "green", "yellow"):
        live.patch(settings, {"data": {"colour": colour}}, manager="kubectl-edit")
        daemon.wait(
            lambda colour=colour: daemon.events("drift healed", fields=f'data.colour: "red" → "{colour}"'),
            "the edit is healed",
        )
    [said] = daemon.wait(lambda: daemon.events("event not written"), "the missing right is named")
    assert "cannot create resource" in said["error"]
    daemon.wait(
        lambda: daemon.metric("driftwatch_kubernetes_events_total", result="refused") == 3, "all three are given up"
    )
    user = f"system:serviceaccount:{namespace}:driftwatch"
    codes = [event["responseStatus"]["code"] for event in audit.events(user=user, resource="events")]
    assert set(codes) == {403}
    assert len(codes) < 3, "the next try comes ten seconds later, and each further one later still"


def test_a03_events_do_not_storm_a_terminating_namespace(
    new_daemon: NewDaemon, kubectl: Kubectl, audit: AuditTrail, namespace: str
) -> None:
    """While a namespace ends it takes no Event: it is not asked again and again, and nothing is said of it."""
    maps = [config_map(f"settings-{number}", namespace) for number in range(10)]
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), *maps]})
    daemon.start()
    daemon.wait_in_sync(*maps)
    audit.mark()
    kubectl("delete", "namespace", namespace)
    daemon.wait_in_sync(*maps)
    refused = audit.events(agent=AGENT, namespace=namespace, resource="events", code=403)
    assert len(refused) <= 2
    assert daemon.events("event not written") == []


def test_b08_outlets_change_without_a_restart(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A journal and a receiver that the configuration begins to name are told; one that it drops is not, any more."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.configuration["events"] = {"enabled": False}
    daemon.start()
    daemon.wait_in_sync(settings)
    journal = daemon.folder / "later.jsonl"

    def drift(colour: str) -> None:
        live.patch(settings, {"data": {"colour": colour}}, manager="kubectl-edit")
        daemon.wait(
            lambda: daemon.events("drift healed", fields=f'data.colour: "red" → "{colour}"'), "the edit is healed"
        )

    def reconfigure(count: int) -> None:
        (daemon.folder / "driftwatch.yaml").write_text(yaml.safe_dump(daemon.configuration))
        daemon.wait(lambda: len(daemon.events("configuration reloaded")) == count, "the file is read again")

    drift("blue")
    with receiver() as hook:
        daemon.configuration["journal"] = {"file": str(journal)}
        daemon.configuration["notifications"] = [
            {"name": "late", "type": "webhook", "url": hook.url, "batchWindow": "10ms"}
        ]
        reconfigure(1)
        drift("green")
        until(lambda: len(hook.requests) == 1, "the receiver is told", evidence=daemon.last_lines)
        daemon.configuration["notifications"] = []
        reconfigure(2)
        drift("yellow")
        daemon.wait(lambda: len(lines(journal)) == 2, "the journal has both")
        assert len(hook.requests) == 1
    assert 'receiver="late"' not in daemon.get("/metrics")[1]
    assert events(live, namespace) == []


def test_f07_a_journal_that_cannot_be_written_holds_up_nothing(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """On a full disk healing goes on, the trouble is said once, and the daemon ends well."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["journal"] = {"file": "/dev/full"}
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    for colour in ("blue", "green"):
        live.patch(settings, {"data": {"colour": colour}}, manager="kubectl-edit")
        daemon.wait(
            lambda colour=colour: daemon.events("drift healed", fields=f'data.colour: "red" → "{colour}"'),
            "the edit is healed",
        )
    daemon.wait(lambda: daemon.metric("driftwatch_journal_up") == 0, "the gauge says so")
    [said] = daemon.events("journal cannot be written")
    assert said["error"] == "No space left on device"
    daemon.stop()
    [lost] = daemon.events("journal: lines are lost")
    assert lost["lines"] == 2


def test_b05_the_journal_can_go_to_standard_output(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """With file: - each drift is a line of standard output, beside the log on standard error."""
    settings = config_map("settings", namespace)
    daemon = new_daemon()
    daemon.configuration["journal"] = {"file": "-"}
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    live.patch(settings, {"data": {"colour": "blue"}}, manager="kubectl-edit")
    [line] = daemon.wait(
        lambda: [line for line in daemon.log() if line.get("schema") == "driftwatch.io/journal/v2"], "a line is written"
    )
    jsonschema.validate({**line, "event": "healed"}, JOURNAL_SCHEMA)
    assert line["event"] == "healed"
