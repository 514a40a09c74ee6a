"""What a file declares, what of it is invalid or none of ours, and the body that the API server is sent."""

import base64
import hashlib
import json

import orjson
import pytest
from driftwatch.manifests import parse
from driftwatch.model import DESIRED_HASH_ANNOTATION, ID_ANNOTATION, SOURCE_LABEL
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hypothesis_profiles import examples

ONE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


def read(text, path="app/file.yaml", *, known=False):
    return parse.read_file(path, text.encode(), "shop", "default", known=known)


def body(text):
    parsed = read(text)
    assert not parsed.invalid
    assert not parsed.passed_over
    (manifest,) = parsed.manifests
    return json.loads(manifest.body)


def reason(text):
    parsed = read(text)
    assert not parsed.manifests
    (invalid,) = parsed.invalid
    return invalid.reason


def test_d01_a_manifest_names_its_object_and_its_place():
    """Group, version, kind, namespace, name, file and line."""
    text = "# c\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n"
    (manifest,) = read(text).manifests
    assert (manifest.group, manifest.version, manifest.kind) == ("apps", "v1", "Deployment")
    assert (manifest.namespace, manifest.name) == ("shop", "web")
    assert (manifest.file, manifest.line) == ("app/file.yaml", 2)


def test_d01_lists_are_flattened_however_deep():
    """Each item of a List is an object of its own, with its own line."""
    text = f"""apiVersion: v1
kind: List
items:
- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}}}
- apiVersion: v1
  kind: List
  items:
  - {{apiVersion: v1, kind: Secret, metadata: {{name: b}}}}
- kind: nonsense
---
{ONE.replace("name: a", "name: c")}---
apiVersion: v1
kind: ConfigMapList
items:
- metadata: {{name: d}}
---
kind: List
apiVersion: v1
items: []
"""
    parsed = read(text)
    found = [(one.kind, one.name, one.line) for one in parsed.manifests]
    assert found == [("ConfigMap", "a", 4), ("Secret", "b", 8), ("ConfigMap", "c", 11), ("ConfigMap", "d", 18)]
    assert [(one.line, one.reason) for one in parsed.invalid] == [(9, "has kind but no apiVersion")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("replicaCount: 3\nimage: {tag: v1}\n", "no apiVersion and kind"),
        ("- a\n- b\n", "no apiVersion and kind"),
        ("just text\n", "no apiVersion and kind"),
        ("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n", "tool"),
        ("apiVersion: v1\nkind: Config\nclusters: []\n", "kubeconfig"),
        ("a: {% if x %}\n", "not YAML"),
        ("{{ if .Values.x }}\na: {{ .Values.a }}\n{{ end }}\n", "mapping key"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "LFS"),
    ],
)
def test_d01_what_is_no_manifest_is_passed_over_with_a_reason(text, words):
    """Values files, CI, kubeconfigs and templates are no errors."""
    parsed = read(text)
    assert not parsed.manifests
    assert not parsed.invalid
    assert words in parsed.passed_over[0].reason


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a/kustomization.yaml", "kustomization"),
        ("charts/web/Chart.yaml", "Helm chart"),
        ("charts/web/templates/deployment.yaml", "part of the Helm chart charts/web"),
        ("charts/web/values.yaml", "part of the Helm chart charts/web"),
        ("charts/other/deployment.yaml", ""),
        ("values.yaml", ""),
    ],
)
def test_d01_charts_and_kustomizations_are_known_by_their_files(path, words):
    """The files of a Helm chart are templates; they are not read as manifests."""
    found = parse.passed_over_by_name(path, frozenset({"charts/web"}))
    assert words in found
    assert bool(words) == bool(found)


def test_d01_a_values_file_may_be_unreadable_and_is_still_no_error():
    """A values file in which `apiVersion` occurs is no manifest either."""
    parsed = read("apiVersion: {{ x }}: y\n", "prod/values-eu.yaml")
    assert not parsed.invalid
    assert parsed.passed_over


def test_d05_a_file_that_gave_manifests_is_never_passed_over_when_it_breaks():
    """A truncated file does not look like a manifest, but it was one."""
    for text in ("apiV: [", "<<<<<<< HEAD\na: [", "version https://git-lfs.github.com/spec/v1\n"):
        parsed = read(text, known=True)
        assert parsed.invalid


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: ConfigMap\nmetadata: {name: a}\n", "has kind but no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "has apiVersion but no kind"),
        ("apiVersion: v1\nkind: ConfigMap\n", "without metadata.name"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", "metadata.name is missing"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 12}\n", "metadata.name is a number"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: on}\n", "metadata.name is a boolean"),
        ("apiVersion: batch/v1\nkind: Job\nmetadata: {generateName: a-}\n", "generateName"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: 1}\n", "metadata.namespace is a number"),
        ("apiVersion: 1\nkind: ConfigMap\nmetadata: {name: a}\n", "apiVersion is a number"),
        ("apiVersion: a/b/c\nkind: ConfigMap\nmetadata: {name: a}\n", "GROUP/VERSION"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {ok: x, num: 1}}\n",
            "the value of 'num'",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {b: on}}\n",
            "annotations: the value of 'b'",
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: [x]}\n", "labels is a list"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {pin: 1234}\n",
            "the value of 'pin'",
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: [1\n", "not YAML"),
        ('{"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "b": "\\ud800"}', "no form in JSON"),
    ],
)
def test_d04_what_should_be_a_manifest_and_is_not_is_told_with_a_reason(text, words):
    """The reason says which field, of which object, is wrong in which way."""
    assert words in reason(text)


@pytest.mark.parametrize(
    ("field", "name", "value", "words"),
    [
        ("annotations", "mode", "pasued", "annotation driftwatch.io/mode must be heal, observe, paused or ignore"),
        ("annotations", "mode", "Paused", "must be heal, observe, paused or ignore"),
        ("annotations", "mode", "", "must be heal, observe, paused or ignore"),
        ("annotations", "additions", "revertt", "driftwatch.io/additions must be revert, report or ignore"),
        ("annotations", "recreate", "yes-please", "driftwatch.io/recreate must be never or immutable"),
        ("annotations", "prune", "false", "driftwatch.io/prune must be disabled or confirmed"),
        ("annotations", "prune", "confirm", "driftwatch.io/prune must be disabled or confirmed"),
        ("annotations", "substitute", "off", "annotation driftwatch.io/substitute must be disabled"),
        ("labels", "substitute", "off", "label driftwatch.io/substitute must be disabled"),
        ("annotations", "snooze-until", "tomorrow", "driftwatch.io/snooze-until must be an RFC 3339 time"),
        ("annotations", "snooze-until", "2026-01-31T18:00:00", "driftwatch.io/snooze-until must be an RFC 3339 time"),
        ("annotations", "foo", "bar", "there is no annotation driftwatch.io/foo; there are the annotations driftw"),
        ("labels", "mode", "paused", "there is no label driftwatch.io/mode; there are the annotations driftwatch.io/a"),
    ],
)
def test_d04_an_option_that_is_not_known_is_told_with_what_may_be_said(field, name, value, words):
    """Nothing mistyped counts as unsaid. The object is named."""
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, {field}: {{driftwatch.io/{name}: '{value}'}}}}\n"
    said = reason(text)
    assert said.startswith("ConfigMap a: ")
    assert words in said


def test_d04_every_option_that_is_not_known_is_told_at_once():
    """Who mends one would otherwise find the next one after the next commit."""
    said = reason(ONE[:-2] + ", annotations: {driftwatch.io/mode: hunter2, driftwatch.io/foo: bar}}\n")
    assert "hunter2" not in said  # no value is told of what may be a Secret
    assert "driftwatch.io/mode must be" in said
    assert "there is no annotation driftwatch.io/foo" in said


def test_d04_every_option_that_is_known_and_what_is_ours_is_valid():
    """An object that somebody exported from the cluster carries our tracking, which is written anew."""
    options = {
        "mode": "observe", "additions": "report", "recreate": "immutable", "prune": "confirmed",
        "substitute": "disabled", "snooze-until": "2026-01-31T18:00:00Z", "id": "forged", "desired-hash": "forged",
    }  # fmt: skip
    annotations = {f"driftwatch.io/{name}": value for name, value in options.items()} | {"other.io/mode": "x"}
    labels = {"driftwatch.io/source": "forged", "driftwatch.io/substitute": "disabled", "driftwatch.io/demo": "true"}
    metadata = {"name": "a", "annotations": annotations, "labels": labels}
    sent = body(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}))["metadata"]
    assert sent["labels"] == labels | {"driftwatch.io/source": "shop"}
    assert sent["annotations"].keys() == annotations.keys() - {
        "driftwatch.io/snooze-until"
    }  # a live object alone may wish so
    assert "forged" not in sent["annotations"].values()
    assert body(ONE[:-2] + ", annotations: {driftwatch.io/mode: null}}\n")


def test_d04_no_message_has_a_value_of_a_secret():
    """Only keys and types are told."""
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: {pin: 4711}}\n"
    for text in (
        secret,
        secret.replace("labels", "x") + "stringData: {pin: 4711}\n",
        secret + "data: {a: 4711, a: 4711}\n",
    ):
        assert "4711" not in reason(text)


def test_d04_the_good_documents_of_a_file_are_used():
    """One invalid document is named with its line, the others are manifests."""
    parsed = read(f"{ONE}---\napiVersion: v1\nkind: ConfigMap\n---\n{ONE.replace('name: a', 'name: b')}")
    assert [one.name for one in parsed.manifests] == ["a", "b"]
    assert [(one.file, one.line) for one in parsed.invalid] == [("app/file.yaml", 5)]


def test_d06_string_data_is_merged_into_data():
    """The server would keep the two apart under server-side apply; stringData wins, as with the server."""
    head = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: QQ==, b: Qg==}\n"
    sent = body(head + "stringData: {b: é, c: '', d: null}\n")
    assert "stringData" not in sent
    assert sent["data"] == {"a": "QQ==", "b": base64.b64encode("é".encode()).decode(), "c": ""}


def test_d06_string_data_of_other_kinds_is_left_alone():
    """Only the Secret of the core group has the two fields."""
    assert body("apiVersion: x.io/v1\nkind: Secret\nmetadata: {name: a}\nstringData: {b: c}\n")["stringData"] == {
        "b": "c"
    }


def test_d06_nulls_status_and_server_owned_metadata_are_not_sent():
    """What is left is what Git declares: empty values, zero and false are declared."""
    text = """apiVersion: x.io/v1
kind: Thing
metadata:
  name: a
  namespace: shop
  creationTimestamp: null
  resourceVersion: "5"
  uid: u
  generation: 3
  selfLink: s
  managedFields: []
  finalizers: []
  ownerReferences: [{name: o}]
  labels: {keep: "", gone: null}
spec: {empty: {}, list: [], zero: 0, no: false, text: "", gone: null, deep: [{a: null, b: 1}], port: "80",
  status: x}
status: {a: 1}
"""
    sent = body(text)
    assert sent["spec"] == {
        "empty": {}, "list": [], "zero": 0, "false": False, "text": "", "deep": [{"b": 1}], "port": "80", "status": "x",
    }  # fmt: skip
    assert sent["metadata"].keys() == {"name", "finalizers", "ownerReferences", "labels", "annotations"}
    assert sent["metadata"]["labels"] == {"keep": "", SOURCE_LABEL: "shop"}
    assert "status" not in sent


def test_d06_same_port_in_two_protocols_and_duplicate_env_are_sent_as_they_are():
    """Lists are the server's to judge."""
    spec = {"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "env": [{"name": "A"}] * 2}
    text = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec})
    assert body(text)["spec"] == spec


def test_d06_the_namespace_is_the_manifests_or_the_sources():
    """It stands in the manifest, not in the body, since discovery decides whether the kind has namespaces."""
    (default,) = read(ONE).manifests
    (own,) = read(ONE.replace("name: a", "name: a, namespace: x")).manifests
    assert (default.namespace, own.namespace) == ("default", "x")
    assert "namespace" not in json.loads(own.body)["metadata"]


def test_the_body_names_its_source_itself_and_its_digest():
    """Tracking marks that come from Git, as in a copied manifest, are not believed."""
    marks = f'labels: {{{SOURCE_LABEL}: x}}, annotations: {{{ID_ANNOTATION}: v, {DESIRED_HASH_ANNOTATION}: w, a: "1"}}'
    (manifest,) = read(ONE.replace("name: a", f"name: a, {marks}")).manifests
    metadata = json.loads(manifest.body)["metadata"]
    assert metadata["labels"] == {SOURCE_LABEL: "shop"}
    assert metadata["annotations"] == {
        ID_ANNOTATION: "/ConfigMap/default/a", DESIRED_HASH_ANNOTATION: manifest.digest, "a": "1",
    }  # fmt: skip


def test_the_digest_is_of_the_body_without_the_digest():
    """Anyone can compute it again from a live annotation's body."""
    (manifest,) = read(ONE).manifests
    without = json.loads(manifest.body)
    del without["metadata"]["annotations"][DESIRED_HASH_ANNOTATION]
    canonical = orjson.dumps(without, option=orjson.OPT_SORT_KEYS)
    assert manifest.digest == hashlib.blake2b(canonical, digest_size=8).hexdigest()
    assert len(manifest.digest) == 16


_keys = st.text("abcdefgh", min_size=1, max_size=3)
_values = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=examples(50), deadline=None)
@given(spec=st.dictionaries(_keys, _values, max_size=4), order=st.randoms())
def test_the_digest_knows_content_and_not_the_order_of_keys(spec, order):
    """Reordering keys in Git changes nothing; what Git declares comes out as it went in."""
    document = {"apiVersion": "x/v1", "kind": "T", "metadata": {"name": "a"}, "spec": spec}
    keys = list(document)
    order.shuffle(keys)
    (one,) = read(json.dumps(document)).manifests
    (other,) = read(json.dumps({key: document[key] for key in keys})).manifests
    assert (one.body, one.digest) == (other.body, other.digest)
    assert json.loads(one.body)["spec"] == spec
