"""Values that are easily lost on the way from Git to the API server arrive, and are in sync afterwards."""

import json
from typing import Any

import yaml
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT, WRITES
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, deployment, manifest, namespace_of, pod_spec, pod_template
from tests.support.scene import NewDaemon

WITH_NULLS = """\
apiVersion: v1
kind: Secret
metadata:
  name: login
  creationTimestamp: null
  annotations: null
type: Opaque
immutable: null
data: {kept: a2VwdA==, both: b2xk, gone: null}
stringData: {both: new, text: é, empty: "", nothing: null}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, labels: {empty: "", nothing: null}}
spec:
  replicas: 0
  paused: false
  minReadySeconds: 0
  revisionHistoryLimit: null
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 25%, maxUnavailable: 1}}
  selector: {matchLabels: {app: edge}}
  template:
    metadata: {labels: {app: edge}, annotations: {}}
    spec:
      automountServiceAccountToken: false
      nodeSelector: {}
      tolerations: []
      securityContext: {}
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: registry.example.com/app:1.0
        args: []
        env: [{name: EMPTY, value: ""}, {name: NOTHING, value: null}]
        resources: {}
        ports: [{containerPort: 53}, {containerPort: 53, protocol: UDP}, {name: web, containerPort: 8080}]
        readinessProbe: {httpGet: {port: web, path: /}, initialDelaySeconds: 0}
        livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 010}
      volumes:
      - {name: scratch, emptyDir: {}}
      - {name: config, configMap: {name: empty, defaultMode: 0440, optional: yes}}
status: {replicas: 7}
---
apiVersion: v1
kind: Service
metadata: {name: dns}
spec:
  selector: {app: edge}
  ports:
  - {name: tcp, port: 53}
  - {name: udp, port: 53, protocol: UDP, targetPort: dns}
  - {name: web, port: 80, targetPort: 8080}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: empty}
data: {}
binaryData: {raw: AP8=}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: texts}
data: {on: "on", number: "1e3", time: "12:30", date: "2001-01-01", nul: "~", empty: "", lines: "a\\n  b\\n"}
"""


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _expected(namespace: str) -> dict[str, Manifest]:
    """What the text means, in the words of the API server."""
    text = WITH_NULLS.replace("periodSeconds: 010", "periodSeconds: 8").replace("data: {on:", 'data: {"true":')
    found = {}
    for document in yaml.safe_load_all(text):
        each = _without_nulls(document)
        assert isinstance(each, dict)
        each["metadata"]["namespace"] = namespace
        each.pop("status", None)
        found[each["metadata"]["name"]] = each
    del found["login"]["stringData"]
    found["login"]["data"] = {"kept": "a2VwdA==", "both": "bmV3", "text": "w6k=", "empty": ""}
    return found


def _owned(found: Manifest | None) -> dict[str, Any]:
    """The fields that are ours, as `managedFields` has them."""
    assert found is not None
    [entry] = [each for each in found["metadata"]["managedFields"] if each["manager"] == "driftwatch"]
    return entry["fieldsV1"]


def test_d06_nulls_empties_zeros_and_defaults_are_in_sync(
    new_daemon: NewDaemon, live: Live, audit: AuditTrail, namespace: str
) -> None:
    """Each object is applied once, into the source's namespace, as it stands in Git; nothing is found to drift."""
    expected = _expected(namespace)
    daemon = new_daemon(options={"namespace": namespace, "interval": "1h"})
    daemon.commit({"all.yaml": WITH_NULLS, "namespace.yaml": namespace_of(namespace)})

    daemon.start()

    daemon.wait_in_sync(*expected.values())
    live_edge = live.get(expected["edge"])
    assert live_edge is not None
    spec, pod = live_edge["spec"], live_edge["spec"]["template"]["spec"]
    assert (spec["replicas"], spec["strategy"]["rollingUpdate"]) == (0, {"maxSurge": "25%", "maxUnavailable": 1})
    [container] = pod["containers"]
    assert [(each["containerPort"], each["protocol"]) for each in container["ports"]] == [
        (53, "TCP"),
        (53, "UDP"),
        (8080, "TCP"),
    ]
    assert (container["readinessProbe"]["httpGet"]["port"], container["livenessProbe"]["periodSeconds"]) == ("web", 8)
    assert (pod["automountServiceAccountToken"], pod["terminationGracePeriodSeconds"]) == (False, 0)
    assert pod["volumes"][1]["configMap"] == {"name": "empty", "defaultMode": 0o440, "optional": True}
    secret = _owned(live.get(expected["login"]))
    assert secret["f:data"].keys() == {"f:kept", "f:both", "f:text", "f:empty"}
    assert secret.keys() == {"f:metadata", "f:data", "f:type"}, "stringData and what is null are not ours"
    service = live.get(expected["dns"])
    assert service is not None
    assert [(each["port"], each["protocol"]) for each in service["spec"]["ports"]] == [
        (53, "TCP"),
        (53, "UDP"),
        (80, "TCP"),
    ]
    events = audit.events(agent=AGENT, namespace=namespace)
    written = sorted(event["objectRef"]["name"] for event in events if event["verb"] in WRITES)
    assert written == sorted([*expected, namespace])
    live.request("DELETE", live.path(expected["dns"]))
    daemon.wait_drift(namespace=namespace, name="dns")
    daemon.wait_in_sync(*expected.values())
    assert daemon.drift_total(namespace=namespace) == 1


def test_d06_a_field_that_becomes_null_or_empty_is_taken_away(
    new_daemon: NewDaemon, live: Live, namespace: str
) -> None:
    """A commit that sets a field to null or to nothing removes it; an empty string stays an empty string."""
    before = config_map("settings", namespace, gone="1", empty="1", kept="1")
    before["metadata"]["labels"] = {"gone": "1", "kept": ""}
    daemon = new_daemon()
    daemon.commit({"all.yaml": [namespace_of(namespace), before]})
    daemon.start()
    daemon.wait_in_sync(before)

    after = json.loads(json.dumps(before))
    after["data"] |= {"gone": None, "empty": ""}
    after["metadata"]["labels"]["gone"] = None
    daemon.commit({"all.yaml": [namespace_of(namespace), after]})

    expected = config_map("settings", namespace, empty="", kept="1")
    daemon.wait(lambda: (live.get(before) or {}).get("data") == expected["data"], "the key is gone")
    found = live.get(before)
    assert found is not None
    assert "gone" not in found["metadata"]["labels"]
    daemon.commit({"all.yaml": [namespace_of(namespace), manifest("v1", "ConfigMap", "settings", namespace, data={})]})
    daemon.wait(lambda: "data" not in (live.get(before) or {"data": ""}), "all keys are gone")
    assert daemon.drift_total(namespace=namespace) == 0


def test_d06_what_cannot_be_kept_is_refused_with_its_reason(new_daemon: NewDaemon, live: Live, namespace: str) -> None:
    """A generated name, a variable twice, a number as a label, a list under stringData: named, and the rest is applied.

    A namespace on a kind that has none is left out.
    """
    twice = deployment("twice", namespace)
    twice["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}] * 2
    generated = manifest("batch/v1", "Job", "x", namespace, spec={"template": pod_template("x")})
    generated["metadata"] = {"generateName": "job-", "namespace": namespace}
    role = manifest("rbac.authorization.k8s.io/v1", "ClusterRole", namespace, "elsewhere", rules=[])
    good = manifest("v1", "Pod", "good", namespace, spec=pod_spec())
    daemon = new_daemon(options={"interval": "1h"})
    daemon.commit(
        {
            "good.yaml": [namespace_of(namespace), role, good],
            "generated.yaml": generated,
            "label.yaml": manifest("v1", "ConfigMap", "label", namespace, metadata={"labels": {"version": 1}}),
            "secret.yaml": manifest("v1", "Secret", "list", namespace, stringData={"a": ["hidden-value"]}),
            "twice.yaml": twice,
        }
    )

    daemon.start()

    del role["metadata"]["namespace"]
    daemon.wait_in_sync(good, role)
    reasons = {line["file"]: line["error"] for line in daemon.events("invalid manifest")}
    assert "each apply would create another object" in reasons["generated.yaml:1"]
    assert "labels: the value of 'version' is a number; quote it" in reasons["label.yaml:1"]
    assert "stringData: the value of 'a' is a list" in reasons["secret.yaml:1"]
    [refused] = daemon.events("not applied")
    assert (refused["name"], refused["file"], 'name="A"' in refused["error"]) == ("twice", "twice.yaml:1", True)
    assert "hidden-value" not in daemon.text()
    assert daemon.metric("driftwatch_source_invalid_manifests", source=daemon.source) == 3
    daemon.stop()
    live.request("DELETE", live.path(role))
