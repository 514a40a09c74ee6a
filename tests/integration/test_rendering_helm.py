"""Charts, rendered by the real helm: what comes out, hooks, values, what is refused and what is bounded."""

import pytest
from driftwatch.git.errors import RenderError
from driftwatch.source_spec import ClusterCapabilities, HelmSpec, ToolLimits

from tests.support.desired_origin import config_map
from tests.support.rendering import CHART, Source, found, places

DEPENDENCY = "dependencies:\n- {name: db, version: 1.0.0, repository: 'https://charts.example.com'}\n"
SWELL = '{{ range until 2000000 }}{{ repeat 1000 "x" }}{{ end }}'
LOOP = "{{ range until 20000 }}{{ range until 20000 }}{{ end }}{{ end }}"


@pytest.fixture
def charted(tmp_path):
    return Source(tmp_path, path="shop")


def test_d03_a_chart_of_the_repository_is_rendered_and_its_hooks_and_tests_are_passed_over(charted):
    """The release is named as the source; CRDs are declared; notes are nothing."""
    change = charted.commit(CHART)
    made = found(change)
    assert made.keys() == {"Service/shop-shop", "CustomResourceDefinition/carts.shop.example.com"}
    assert made["Service/shop-shop"]["spec"] == {"ports": [{"port": 80}]}
    assert places(change) == {
        "Service/shop-shop": "shop/templates/service.yaml:2",
        "CustomResourceDefinition/carts.shop.example.com": "shop/crds/crd.yaml:1",
    }
    assert sorted(one.reason for one in change.passed_over) == [
        "Job migrate is a Helm hook (pre-install, pre-upgrade), no desired state",
        "Pod try is a Helm hook (test), no desired state",
    ]


def test_d03_values_files_inline_values_release_and_cluster_reach_the_templates(charted):
    """Inline values win over files, which win over the chart's; what the cluster serves is seen by templates."""
    spec = HelmSpec(
        release_name="prod",
        namespace="store",
        values_files=("prod.yaml", "../shared.yaml"),
        values='{"port": 443}',
        include_crds=False,
        include_hooks=True,
    )
    charted.restart(helm=spec)
    charted.snapshots.surround(ClusterCapabilities("1.31.4", ("x.io/v1",)))
    files = {"shop/prod.yaml": "port: 81\nextra: false\n", "shared.yaml": "extra: true\n"}
    change = charted.commit({**CHART, **files})
    made = found(change)
    assert made.keys() == {"Service/prod-shop", "ConfigMap/extra", "Job/migrate"}
    assert made["Service/prod-shop"]["spec"] == {"ports": [{"port": 443}]}
    assert {one.namespace for one in change.upserts} == {"store"}
    assert made["ConfigMap/extra"]["data"] == {"kube": "v1.31.4", "has": "true"}
    assert not charted.snapshots.is_stale()
    charted.snapshots.surround(ClusterCapabilities("1.32.0", ("x.io/v1",)))
    assert charted.snapshots.is_stale()
    assert found(charted.look())["ConfigMap/extra"]["data"]["kube"] == "v1.32.0"


def test_d03_only_changes_of_chart_and_values_render(charted):
    """Values files beside the chart count, other folders do not."""
    charted.restart(helm=HelmSpec(values_files=("../shared.yaml",)))
    charted.commit({**CHART, "shared.yaml": "port: 1\n", "other/x.yaml": "a: 1"})
    assert found(charted.commit({"other/x.yaml": "a: 2"})) == {}
    assert charted.snapshots.renderings == 1
    assert found(charted.commit({"shared.yaml": "port: 2\n"}))["Service/shop-shop"]["spec"]["ports"] == [{"port": 2}]


def test_d04_an_invalid_document_of_a_template_keeps_its_last_good_version(charted):
    """The template is named, with the line in what it renders to; its other objects are in force."""
    two = CHART["shop/templates/service.yaml"] + f"---\n{config_map('extra', a='1')}"
    charted.commit({**CHART, "shop/templates/service.yaml": two})
    broken = (
        CHART["shop/templates/service.yaml"].replace("80", "81") + "---\napiVersion: v1\nkind: ConfigMap\ndata: {}\n"
    )
    change = charted.commit({"shop/templates/service.yaml": broken})
    [invalid] = change.invalid
    assert (invalid.file, "metadata.name" in invalid.reason) == ("shop/templates/service.yaml", True)
    assert change.removed == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"shop/templates/service.yaml": "{{ .Values.none.port }}"}, "service.yaml:1:"),
        ({"shop/templates/a.tpl": '{{ define "a" }}{{ include "a" . }}{{ end }}',
          "shop/templates/service.yaml": '{{ include "a" . }}'}, "nested reference"),
        ({"shop/templates/service.yaml": '{{ fail "no port was given" }}'}, "no port was given"),
        ({"shop/Chart.yaml": None}, "it has no Chart.yaml"),
        ({"shop/values.yaml": "a: ["}, "values.yaml"),
        ({"shop/Chart.yaml": f"{CHART['shop/Chart.yaml']}{DEPENDENCY}"}, "db"),
    ],
)  # fmt: skip
def test_d05_a_chart_that_does_not_render_is_told_in_helms_words(charted, files, words):
    """The last good snapshot is the base of the next."""
    charted.restart(kind="helm")
    charted.commit(CHART)
    charted.origin.commit(files)
    with pytest.raises(RenderError, match=words):
        charted.look()


INCLUDED = '{{ define "port" }}\n{{ .Values.none.port }}{{ end }}'


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ({"templates/service.yaml": "a: 1\nb: {{ .Values.none.port }}"}, "templates/service.yaml:2"),
        ({"templates/_.tpl": INCLUDED, "templates/service.yaml": '{{ include "port" . }}'}, "templates/_.tpl:2"),
        ({"templates/service.yaml": "a: 1\n{{ if }}"}, "templates/service.yaml:2"),
        ({"templates/service.yaml": '\n{{ fail "see values.yaml" }}'}, "templates/service.yaml:2"),
        ({"templates/service.yaml": "a: 1\nb: [\n"}, "templates/service.yaml:2"),
        ({"templates/service.yaml": "# {{ .Release.Name }}\na: : {{ .Release.Name }}"}, "templates/service.yaml:1"),
        ({"values.yaml": "a: 1\nb: ["}, "values.yaml:2"),
        ({"prod.yaml": "a: 1\nb: ["}, "prod.yaml:2"),
        ({"Chart.yaml": f"{CHART['shop/Chart.yaml']}{DEPENDENCY}"}, "Chart.yaml:1"),
        ({"prod.yaml": None}, ""),
        ({"values.schema.json": '{"required": ["size"]}'}, ""),
    ],
    ids=[
        "value",
        "include",
        "parse",
        "fail",
        "rendered",
        "templated",
        "values",
        "file",
        "dependency",
        "none",
        "schema",
    ],
)
def test_d04_helms_words_lead_to_a_file_of_the_repository(tmp_path, files, place):
    """The file to mend is named with its line, the chart's folder whatever its name; what is in none has no place."""
    source = Source(tmp_path, path="charts/web", kind="helm", helm=HelmSpec(values_files=("prod.yaml",)))
    chart = {name.removeprefix("shop/"): text for name, text in CHART.items()} | {"prod.yaml": "port: 81\n"}
    source.origin.commit({f"charts/web/{name}": text for name, text in {**chart, **files}.items() if text})
    with pytest.raises(RenderError) as error:
        source.look()
    where = f"charts/web/{place}" if place else ":0"
    assert f"{error.value.file}:{error.value.line}" == where
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize(
    ("template", "limits", "words"),
    [
        (LOOP, ToolLimits(timeout=2.0), "not done within 2 s"),
        (SWELL, ToolLimits(memory=200 * 2**20), "more than 200 MiB of memory"),
        ('a: "{{ repeat 5000000 "x" }}"', ToolLimits(output=2**20), "wrote more than 1 MiB"),
    ],
    ids=["time", "memory", "output"],
)  # fmt: skip
def test_d12_a_chart_that_loops_or_swells_is_ended(charted, template, limits, words):
    """Time, memory and output of a run are bounded, and the setting that bounds them is named."""
    charted.restart(limits=limits)
    charted.origin.commit({**CHART, "shop/templates/loop.yaml": template})
    with pytest.raises(RenderError, match=words):
        charted.look()


def test_d12_a_tool_sees_nothing_of_our_environment(charted, monkeypatch):
    """A chart that prints the environment finds none of ours; a lookup finds no cluster."""
    monkeypatch.setenv("DRIFTWATCH_SESAME", "open")
    text = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: env}\n"
        'data: {env: "{{ env "DRIFTWATCH_SESAME" }}", found: "{{ lookup "v1" "Namespace" "" "default" }}"}\n'
    )
    charted.origin.commit({**CHART, "shop/templates/env.yaml": text})
    with pytest.raises(RenderError, match='function "env" not defined'):
        charted.look()
    made = found(charted.commit({"shop/templates/env.yaml": text.replace('{{ env "DRIFTWATCH_SESAME" }}', "")}))
    assert made["ConfigMap/env"]["data"] == {"env": "", "found": "map[]"}
