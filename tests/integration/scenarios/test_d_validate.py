"""`driftwatch validate`: everything that is wrong, at once, with file and line, before it is merged."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from driftwatch.localcluster import LocalCluster
from tests.support.audit import AuditTrail
from tests.support.daemon import AGENT
from tests.support.fork_server import run
from tests.support.kubectl import Kubectl
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, crd, deployment, manifest, namespace_of
from tests.support.repository import Repository

VALID, INVALID, UNCHECKED = 0, 1, 2
PASSWORD = "correct-horse-battery"


class Pipeline:
    """A source and the commands that a pipeline runs about it."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder = folder
        self.repository = Repository(folder / "git")
        self.settings: dict[str, Any] = {
            "cluster": {"kubeconfig": str(kubeconfig)},
            "sources": [{"name": "shop", "repository": "git"}],
        }

    def run(self, command: str, *arguments: str, status: int) -> subprocess.CompletedProcess[str]:
        """Run a command of driftwatch, which ends with this status."""
        file = self.folder / "driftwatch.yaml"
        if self.settings:
            file.write_text(yaml.safe_dump(self.settings))
        done = run(
            command, "--config=driftwatch.yaml", *arguments, warnings_are="error", timeout=120, folder=self.folder
        )
        assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def validate(self, *arguments: str, status: int) -> dict[str, Any]:
        """What `driftwatch validate` finds, as JSON."""
        return json.loads(self.run("validate", "--output=json", *arguments, status=status).stdout)


@pytest.fixture
def pipeline(tmp_path: Path, cluster: LocalCluster) -> Pipeline:
    """A repository that nothing follows."""
    return Pipeline(tmp_path, cluster.kubeconfig)


def errors(found: dict[str, Any]) -> dict[str, str]:
    """What is wrong, by place."""
    return {f"{each['file']}:{each['line']}": each["message"] for each in found["errors"]}


def test_d04_validate_names_every_error_with_file_and_line(pipeline: Pipeline, namespace: str) -> None:
    """Unreadable YAML, what is no manifest, and what is declared twice are all named in one run; status 1."""
    twice = config_map("twice", namespace)
    commit = pipeline.repository.commit(
        {
            "a/good.yaml": [namespace_of(namespace), config_map("good", namespace), twice],
            "a/syntax.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n\tname: x\n",
            "b/many.yaml": "kind: ConfigMap\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: x-}\n",
            "b/twice.yaml": twice,
            "ci.yaml": "stages: [build]\n",
        }
    )

    found = pipeline.validate(status=INVALID)

    assert found["valid"] is False
    assert errors(found).keys() == {"a/syntax.yaml:4", "b/many.yaml:1", "b/many.yaml:3", "b/twice.yaml:1"}
    assert "a/good.yaml" in errors(found)["b/twice.yaml:1"]
    [source] = found["sources"]
    assert (source["name"], source["commit"], source["objects"]) == ("shop", commit, 3)
    assert [each["file"] for each in source["passedOver"]] == ["ci.yaml"]
    done = pipeline.run("validate", "--verbose", status=INVALID)
    assert "a/syntax.yaml:4: error: not YAML: " in done.stdout
    assert "ci.yaml:1: passed over: no apiVersion and kind [shop]" in done.stdout
    assert done.stderr.splitlines()[-1] == "4 errors"


def test_d04_validate_of_what_is_valid_ends_with_0_and_asks_no_cluster(
    pipeline: Pipeline, audit: AuditTrail, namespace: str
) -> None:
    """Without --cluster the API server is not even asked, and need not be there."""
    pipeline.repository.commit({"all.yaml": [namespace_of(namespace), deployment("web", namespace)]})

    found = pipeline.validate(status=VALID)

    assert (found["valid"], found["errors"], found["notChecked"], found["cluster"]) == (True, [], [], None)
    assert audit.events(agent=AGENT) == []
    pipeline.settings["cluster"]["kubeconfig"] = "nowhere"
    assert pipeline.run("validate", status=VALID).stderr.splitlines()[-1] == "valid"


def test_d04_validate_names_every_option_that_is_not_known(pipeline: Pipeline, namespace: str) -> None:
    """On a cluster as without one: the API server takes any annotation, and a word that we do not know is a mistake."""
    options = {"mode": "pasued", "additions": "revertt", "recreate": "yes-please", "prune": "confirm", "foo": "bar"}
    files: dict[str, Any] = {"0.yaml": [namespace_of(namespace), config_map("good", namespace)]}
    for name, value in options.items():
        files[f"{name}.yaml"] = config_map(name, namespace)
        files[f"{name}.yaml"]["metadata"]["annotations"] = {f"driftwatch.io/{name}": value}
    pipeline.repository.commit(files)

    for arguments in ([], ["--cluster"]):
        found = pipeline.validate(*arguments, status=INVALID)
        said = errors(found)
        assert said.keys() == {f"{name}.yaml:1" for name in options}
        for name in ("mode", "additions", "recreate", "prune"):
            assert f"ConfigMap {name}: the annotation driftwatch.io/{name} must be " in said[f"{name}.yaml:1"]
        assert "there is no annotation driftwatch.io/foo" in said["foo.yaml:1"]


def test_d04_validate_names_each_mistake_of_the_configuration(pipeline: Pipeline) -> None:
    """A configuration with two mistakes gives two errors with their lines; status 1."""
    (pipeline.folder / "driftwatch.yaml").write_text(
        "sources:\n- name: shop\n  repository: git\n  revison: x\nservr: {}\n"
    )
    pipeline.settings = {}

    found = pipeline.validate(status=INVALID)

    assert errors(found) == {
        "driftwatch.yaml:4": "unknown key `sources[0].revison`",
        "driftwatch.yaml:5": "unknown key `servr`",
    }


def test_d08_validate_tells_what_is_wrong_from_what_could_not_be_looked_at(pipeline: Pipeline) -> None:
    """A revision that is not there is an error, a remote or a cluster that does not answer could not be checked."""
    pipeline.repository.commit({"all.yaml": config_map("settings", "default")})
    pipeline.settings["sources"].append({"name": "typo", "repository": "git", "revision": "no-such-branch"})
    [error] = pipeline.validate(status=INVALID)["errors"]
    assert (error["source"], "no-such-branch" in error["message"]) == ("typo", True)

    pipeline.settings["sources"][1] = {"name": "away", "repository": "https://127.0.0.1:9/x.git", "timeout": "20s"}
    found = pipeline.validate(status=UNCHECKED)
    assert (found["errors"], [each["source"] for each in found["notChecked"]]) == ([], ["away"])
    configured = (pipeline.folder / "driftwatch.yaml").read_text().splitlines()
    assert found["notChecked"][0]["file"] == "driftwatch.yaml"
    assert configured[found["notChecked"][0]["line"] - 1] == "- name: away"

    pipeline.settings["cluster"]["kubeconfig"] = "nowhere"
    found = pipeline.validate("--source=shop", "--cluster", status=UNCHECKED)
    assert "the cluster cannot be used: no kubeconfig at" in found["notChecked"][0]["message"]


def test_d05_validate_gives_a_source_that_cannot_be_read_the_place_to_mend_it(pipeline: Pipeline) -> None:
    """A file of the repository where the tool names one, else where the source is configured; in text and in JSON."""
    pipeline.repository.commit(
        {
            "k/kustomization.yaml": "resources: [web.yaml]\n",
            "k/web.yaml": "a: 1\nb: [\n",
            "h/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
            "h/templates/web.yaml": "a: 1\nb: {{ .Values.none.port }}\n",
        }
    )
    (pipeline.folder / "driftwatch.yaml").write_text(
        "sources:\n"
        "- {name: k, repository: git, path: k}\n"
        "- {name: h, repository: git, path: h}\n"
        "# two that are configured wrongly\n"
        "- name: folder\n"
        "  repository: git\n"
        "  path: nowhere\n"
        "- {name: values, repository: git, path: h, helm: {valuesFiles: [no.yaml]}}\n"
    )
    pipeline.settings = {}

    found = pipeline.validate(status=INVALID)

    assert {each["source"]: f"{each['file']}:{each['line']}" for each in found["errors"]} == {
        "k": "k/web.yaml:2",
        "h": "h/templates/web.yaml:2",
        "folder": "driftwatch.yaml:5",
        "values": "driftwatch.yaml:8",
    }
    printed = pipeline.run("validate", status=INVALID).stdout
    assert "driftwatch.yaml:5: error: source folder: " in printed
    assert "driftwatch.yaml:8: error: source values: h cannot be rendered: there is no values file h/no.y" in printed
    assert "/driftwatch-" not in printed, "a folder that is gone by now"
    assert "driftwatch.yaml:5: error: source folder: " in pipeline.run("render", status=UNCHECKED).stderr


def _tried(namespace: str) -> dict[str, Manifest]:
    typo = deployment("typo", namespace)
    typo["spec"]["replicsa"] = 3
    variables = deployment("variables", namespace)
    variables["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}] * 2
    return {
        "typo": typo,
        "variables": variables,
        "port": manifest("v1", "Service", "port", namespace, spec={"ports": [{"port": 99999}]}),
        "secret": manifest(
            "v1", "Secret", "secret", namespace, type="kubernetes.io/tls", stringData={"tls.crt": PASSWORD}
        ),
        "quoted": manifest(
            "v1", "Secret", "quoted", namespace, data={"word": {"list": [PASSWORD]}, "pin": 735573557355}
        ),
        "kind": manifest("nowhere.example.com/v1", "Nothing", "kind", namespace),
        "lost": config_map("lost", f"{namespace}-undeclared"),
    }


@pytest.mark.parametrize("exists", [True, False], ids=["namespace exists", "namespace is declared"])
def test_d04_validate_asks_the_api_server_what_it_would_refuse(
    pipeline: Pipeline, live: Live, audit: AuditTrail, namespace: str, exists: bool
) -> None:
    """A dry run finds typos, variables named twice, wrong values and kinds that there are not, namespace or none."""
    refused = _tried(namespace)
    if exists:
        live.patch(namespace_of(namespace), namespace_of(namespace), manager="tests", kind="apply")
    pipeline.repository.commit(
        {
            "good.yaml": [namespace_of(namespace), config_map("good", namespace), deployment("web", namespace)],
            **{f"{name}.yaml": each for name, each in refused.items()},
        }
    )
    audit.mark()

    found = pipeline.validate("--cluster", status=INVALID)

    assert found["cluster"]["accepted"] == 3
    assert found["notChecked"] == []
    reasons = {each["name"]: each["message"] for each in found["errors"]}
    assert reasons.keys() == refused.keys()
    assert "replicsa" in reasons["typo"]
    assert 'name="A"' in reasons["variables"]
    assert "99999" in reasons["port"]
    assert "does not serve Nothing at nowhere.example.com/v1" in reasons["kind"]
    assert f"namespace {namespace}-undeclared is not in the cluster" in reasons["lost"]
    assert all(each["file"] == f"{each['name']}.yaml" for each in found["errors"])
    assert "<hidden>" in reasons["quoted"], "the API server quotes values of this one"
    for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), "735573557355"):
        assert secret not in json.dumps(found)
    writes = [event for event in audit.events(agent=AGENT) if event["verb"] not in ("get", "list", "watch")]
    assert writes
    assert all("dryRun=All" in event["requestURI"] for event in writes)
    assert live.get(deployment("web", namespace)) is None


def test_d04_validate_waits_for_no_definition_that_git_brings_along(
    pipeline: Pipeline, kubectl: Kubectl, namespace: str
) -> None:
    """A custom resource whose CRD is in Git and not yet served is no error; once it is, unknown fields are."""
    definition = crd("sprockets", "d04.example.com", "Sprocket")
    custom = manifest("d04.example.com/v1", "Sprocket", "one", namespace, spec={"size": 1, "colour": "red"})
    pipeline.repository.commit({"all.yaml": [definition, namespace_of(namespace), custom]})
    found = pipeline.validate("--cluster", status=VALID)
    assert (found["cluster"]["accepted"], found["cluster"]["waiting"]) == (2, 1)

    kubectl("apply", "-f", "-", input=json.dumps(definition))
    kubectl("wait", "--for=condition=Established", "crd/sprockets.d04.example.com")

    [error] = pipeline.validate("--cluster", status=INVALID)["errors"]
    assert (error["name"], "spec.colour" in error["message"]) == ("one", True)


def test_d04_validate_without_the_right_to_apply_could_not_check(
    pipeline: Pipeline, kubectl: Kubectl, namespace: str
) -> None:
    """An account that may not patch is told so with status 2, and nothing is called wrong."""
    kubectl("create", "ns", namespace)
    kubectl("create", "sa", "ci", "-n", namespace)
    token = kubectl("create", "token", "ci", "-n", namespace).stdout.strip()
    document = yaml.safe_load(kubectl.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    (pipeline.folder / "ci.kubeconfig").write_text(yaml.safe_dump(document))
    pipeline.settings["cluster"]["kubeconfig"] = "ci.kubeconfig"
    pipeline.repository.commit({"all.yaml": config_map("settings", namespace)})

    found = pipeline.validate("--cluster", status=UNCHECKED)

    assert found["errors"] == []
    assert 'cannot patch resource "configmaps"' in found["notChecked"][0]["message"]


def test_d05_a_clone_is_checked_in_place_of_the_repository(pipeline: Pipeline) -> None:
    """What a pipeline has checked out, shallow and with a detached HEAD, is read; the repository need not answer."""
    pipeline.repository.commit({"app/a.yaml": config_map("settings", "default")})
    bad = pipeline.repository.commit({"app/b.yaml": "apiVersion: v1\nkind: ConfigMap\n"})
    clone = pipeline.folder / "clone"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    url = f"file://{pipeline.repository.folder}"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", url, clone], check=True, env=environment)
    subprocess.run(["git", "-C", clone, "checkout", "--quiet", "--detach"], check=True, env=environment)
    good = pipeline.repository.commit({"app/b.yaml": None})
    pipeline.settings["sources"] = [
        {"name": "shop", "repository": str(pipeline.repository.folder), "path": "app", "revision": "main"},
        {"name": "other", "repository": "https://127.0.0.1:9/x.git"},
    ]

    assert pipeline.validate("--source=shop", status=VALID)["sources"][0]["commit"] == good
    found = pipeline.validate("--source=shop", "--repository=clone", status=INVALID)

    assert found["sources"][0]["commit"] == bad
    assert errors(found).keys() == {"app/b.yaml:1"}
    assert pipeline.validate("--source=shop", f"--revision={bad}", status=INVALID)["sources"][0]["commit"] == bad
    ambiguous = pipeline.run("validate", "--repository=clone", status=UNCHECKED)
    assert "choose it with --source: shop, other" in ambiguous.stderr
    unknown = pipeline.run("validate", "--source=shp", status=UNCHECKED)
    assert "no such source; it has shop, other" in unknown.stderr


def test_d01_render_prints_what_kubectl_can_apply(
    pipeline: Pipeline, live: Live, kubectl: Kubectl, namespace: str
) -> None:
    """What is printed is what would be applied: piped into kubectl, the cluster is as the daemon would leave it."""
    texts = {"plain": "x", "number": "1e3", "octal": "0o17", "letter": "y", "on": "on", "lines": "a\n b\n", "empty": ""}
    declared = [
        namespace_of(namespace),
        config_map("texts", namespace, **texts),
        manifest("v1", "Secret", "login", namespace, stringData={"password": PASSWORD}),
        deployment("web", namespace),
        manifest("rbac.authorization.k8s.io/v1", "ClusterRole", namespace, rules=[]),
    ]
    as_json = "\n".join(json.dumps(each) for each in declared)  # PyYAML leaves `1e3` and `y` without quotes
    pipeline.repository.commit({"app/all.json": as_json, "b.yaml": config_map("other", namespace)})

    text = pipeline.run("render", "--show-secrets", status=VALID).stdout

    for output in (text, pipeline.run("render", "--show-secrets", "--output=json", status=VALID).stdout):
        kubectl("apply", "--server-side", "--field-manager=driftwatch", "--force-conflicts", "-f", "-", input=output)
    for each in declared:
        if each["kind"] == "Secret":
            each["data"] = {"password": base64.b64encode(each.pop("stringData")["password"].encode()).decode()}
        assert live.difference(each, "shop") == ""
    assert [line for line in text.splitlines() if line.startswith("# ")][:2] == [
        "# app/all.json:1 (shop)",
        "# app/all.json:2 (shop)",
    ]
    assert live.get(declared[1])["data"] == texts  # type: ignore[index]
    kubectl("delete", "clusterrole", namespace)


def test_b05_render_masks_secrets_unless_asked(pipeline: Pipeline, namespace: str) -> None:
    """Values of Secrets and of sensitive fields are hidden in YAML and JSON; names stay."""
    noted = {"annotations": {"note": PASSWORD}}
    secret = manifest("v1", "Secret", "login", namespace, metadata=noted, stringData={"password": PASSWORD})
    pipeline.settings["ignore"] = [{"paths": ["$.data.token"], "sensitive": True}]
    pipeline.repository.commit({"all.yaml": [secret, config_map("settings", namespace, token=PASSWORD, colour="red")]})
    for output in ("yaml", "json"):
        text = pipeline.run("render", f"--output={output}", status=VALID).stdout
        assert PASSWORD not in text
        assert base64.b64encode(PASSWORD.encode()).decode() not in text
        found = list(yaml.safe_load_all(text))
        login, settings = found if output == "yaml" else found[0]["items"]
        assert login["data"] == {"password": "<hidden>"}
        assert settings["data"] == {"token": "<hidden>", "colour": "red"}
        for one in (login, settings):
            found = one["metadata"]["annotations"]
            assert found["driftwatch.io/id"] == f"/{one['kind']}/{namespace}/{one['metadata']['name']}"
            assert found["driftwatch.io/desired-hash"] == "<hidden>", "a guess could be tried by it"
    shown = pipeline.run("render", "--show-secrets", "--kind=secret", status=VALID).stdout
    assert [each["kind"] for each in yaml.safe_load_all(shown)] == ["Secret"]
    assert PASSWORD in shown


def test_d04_render_prints_the_good_and_names_the_bad(pipeline: Pipeline) -> None:
    """An invalid manifest is named on standard error with status 1; a source that cannot be read gives status 2."""
    pipeline.repository.commit({"a.yaml": config_map("good", "default"), "b.yaml": "kind: ConfigMap\n"})
    done = pipeline.run("render", status=INVALID)
    assert [each["metadata"]["name"] for each in yaml.safe_load_all(done.stdout)] == ["good"]
    assert "b.yaml:1: error: has kind but no apiVersion [shop]" in done.stderr
    pipeline.settings["sources"].append({"name": "typo", "repository": "git", "path": "nowhere"})
    assert "source typo" in pipeline.run("render", status=UNCHECKED).stderr
    assert "matches the filters" in pipeline.run("render", "--source=shop", "--name=none", status=UNCHECKED).stderr


def test_d03_validate_and_render_take_variables_from_the_cluster_where_it_is_asked(
    pipeline: Pipeline, live: Live, namespace: str
) -> None:
    """With --cluster the values that the cluster has are put in; without it that source could not be checked."""
    values = config_map("values", namespace, COLOUR="blue")
    for one in (namespace_of(namespace), values):
        live.patch(one, one, manager="tests", kind="apply")
    reference = {"configMap": "values", "namespace": namespace}
    pipeline.settings["sources"][0]["varsFrom"] = [reference]
    pipeline.repository.commit({"a.yaml": config_map("painted", namespace, colour="${COLOUR}")})

    found = pipeline.validate("--cluster", status=VALID)
    assert found["sources"][0]["objects"] == 1
    assert "colour: blue" in pipeline.run("render", "--cluster", status=VALID).stdout

    [error] = pipeline.validate(status=UNCHECKED)["notChecked"]
    assert "not asked here" in error["message"]
