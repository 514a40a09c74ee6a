"""Kustomizations, built by the real kustomize: what comes out, what it is cached by, what is refused."""

import json
import shutil

import pytest
from driftwatch.git.errors import RenderError
from driftwatch.source_spec import KustomizeSpec

from tests.support.rendering import CHART, KUSTOMIZATION, Source, found, places, service


@pytest.fixture
def kustomized(tmp_path):
    return Source(tmp_path, path="overlays/prod")


def test_d03_a_kustomize_overlay_is_built_with_base_component_generator_and_patches(kustomized):
    """Namespace, prefix, labels, patches and the hash of the generated ConfigMap are those of `kustomize build`."""
    made = found(kustomized.commit(KUSTOMIZATION))
    [settings] = [name for name in made if name.startswith("ConfigMap/")]
    assert made.keys() == {"Service/prod-web", "Service/prod-api", settings}
    assert settings.startswith("ConfigMap/prod-settings-")
    assert made[settings]["data"] == {"app.conf": "level=info\n"}
    assert made["Service/prod-api"]["spec"]["ports"] == [{"port": 443}]
    assert made["Service/prod-api"]["metadata"]["labels"]["stage"] == "prod"
    assert made["Service/prod-api"]["metadata"]["annotations"]["team"] == "payments"
    assert not any("config.kubernetes.io/origin" in json.dumps(one) for one in made.values())


def test_d03_an_object_of_a_kustomization_is_led_back_to_file_and_line(kustomized):
    """Each comes from the file that declares it in the base, or from the kustomization that generates it."""
    change = kustomized.commit(KUSTOMIZATION)
    where = {name.removesuffix(name[-11:]) if "ConfigMap" in name else name: at for name, at in places(change).items()}
    assert where == {
        "Service/prod-web": "base/app.yaml:2",
        "Service/prod-api": "base/app.yaml:11",
        "ConfigMap/prod-settings": "base/kustomization.yaml:1",
    }


def test_d03_a_commit_that_touches_no_input_renders_nothing(kustomized):
    """A file elsewhere in the repository starts no tool; one in the base does, and only its objects change."""
    kustomized.commit(KUSTOMIZATION)
    assert kustomized.snapshots.renderings == 1
    change = kustomized.commit({"unrelated/readme.yaml": "a: 2\n"})
    assert (found(change), change.removed, kustomized.snapshots.renderings) == ({}, [], 1)
    change = kustomized.commit(
        {"components/tls/port.yaml": "- op: replace\n  path: /spec/ports/0/port\n  value: 8443\n"}
    )
    assert (set(found(change)), kustomized.snapshots.renderings) == ({"Service/prod-web", "Service/prod-api"}, 2)
    change = kustomized.commit({"components/tls/port.yaml": KUSTOMIZATION["components/tls/port.yaml"]})
    assert (set(found(change)), kustomized.snapshots.renderings) == ({"Service/prod-web", "Service/prod-api"}, 3)


def test_d08_a_restart_renders_nothing_and_needs_neither_tool_nor_git(kustomized, monkeypatch):
    """The rendered snapshot is whole on disk."""
    first = kustomized.commit(KUSTOMIZATION)
    shutil.rmtree(kustomized.origin.folder)
    monkeypatch.setattr("driftwatch.render.renderer.program", _no_tool)
    kustomized.restart()
    again = kustomized.snapshots.at(kustomized.repository.good(), last_rendered=True)
    assert (found(again), again.full) == (found(first), True)


def _no_tool(_tool):
    raise RenderError("no such tool", passes=True)


def test_d05_a_kustomization_that_does_not_build_is_told_with_kustomizes_words_and_tried_once(kustomized):
    """The source and the path are named; the same failure costs no second run; the next commit is whole again."""
    kustomized.commit(KUSTOMIZATION)
    kustomized.origin.commit({"overlays/prod/api.yaml": None})
    for _ in range(2):
        with pytest.raises(RenderError, match=r"source shop: overlays/prod cannot be rendered: .*api\.yaml") as error:
            kustomized.look()
    assert "\n" not in str(error.value)
    assert kustomized.snapshots.renderings == 2
    change = kustomized.commit({"overlays/prod/api.yaml": KUSTOMIZATION["overlays/prod/api.yaml"]})
    assert (found(change), kustomized.snapshots.renderings) == ({}, 2)


BROKEN = f"{service('web')}---\na: [\n"
OVERLAY = KUSTOMIZATION["overlays/prod/kustomization.yaml"]


@pytest.mark.parametrize(
    ("files", "place", "words"),
    [
        ({"overlays/prod/api.yaml": None}, "overlays/prod/kustomization.yaml:1", "'overlays/prod/api.yaml'"),
        ({"base/app.yaml": None}, "base/kustomization.yaml:1", "'base/app.yaml'"),
        ({"base/app.yaml": BROKEN}, "base/app.yaml:9", "File: app.yaml"),
        ({"base/app.yaml": "a: 1\n"}, "base/app.yaml:1", "missing Resource metadata"),
        ({"base/kustomization.yaml": "resorces: []\n"}, "base/kustomization.yaml:1", 'unknown field "resorces"'),
        (
            {"overlays/prod/kustomization.yaml": f"{OVERLAY}\t- x\n"},
            f"overlays/prod/kustomization.yaml:{OVERLAY.count(chr(10)) + 1}",
            "invalid Kustomization",
        ),
        ({"components/tls/port.yaml": "- a\nb\n"}, "components/tls/port.yaml:2", "parse"),
    ],
    ids=["patch gone", "resource gone", "no YAML", "no manifest", "unknown field", "a tab", "no patch"],
)
def test_d04_kustomizes_words_lead_to_a_file_of_the_repository(kustomized, tmp_path, files, place, words):
    """The file to mend is named with a line, also of a base; no word of the folder that it was built in."""
    kustomized.commit(KUSTOMIZATION)
    kustomized.origin.commit(files)
    with pytest.raises(RenderError) as error:
        kustomized.look()
    assert f"{error.value.file}:{error.value.line}" == place
    assert words in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_d03_own_build_metadata_and_a_kustomization_in_one_line_are_kept(tmp_path):
    """Origin annotations that the kustomization itself asks for stay; other metadata does as well."""
    source = Source(tmp_path)
    base = {"web.yaml": service("web")}
    made = found(source.commit({**base, "kustomization.yaml": "{resources: [web.yaml], namePrefix: x-}"}))
    assert "config.kubernetes.io/origin" not in made["Service/x-web"]["metadata"]["annotations"]
    text = "resources: [web.yaml]\nbuildMetadata: [originAnnotations]\n"
    made = found(source.commit({"kustomization.yaml": text}))
    assert made["Service/web"]["metadata"]["annotations"]["config.kubernetes.io/origin"] == "path: web.yaml\n"
    text = "resources: [web.yaml]\nbuildMetadata: [managedByLabel]\n"
    change = source.commit({"kustomization.yaml": text})
    assert "app.kubernetes.io/managed-by" in found(change)["Service/web"]["metadata"]["labels"]
    assert places(change) == {"Service/web": "web.yaml:1"}


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("https://git.example.com/base.git//app?ref=v1", "git"),
        ("https://git.example.com/app.yaml", "git.example.com"),
        ("../../../../../etc", "outside of the repository"),
        ("/etc", "outside of the repository"),
    ],
)
def test_d12_a_base_elsewhere_is_refused_while_the_network_is_not_allowed(kustomized, reference, words):
    """Nothing is fetched and nothing outside of the repository is read."""
    kustomized.origin.commit({**KUSTOMIZATION, "overlays/prod/kustomization.yaml": f"resources: ['{reference}']\n"})
    with pytest.raises(RenderError, match=words):
        kustomized.look()


def test_d12_a_link_that_leads_out_of_the_repository_is_not_followed(kustomized, tmp_path):
    """A generator that reads through it fails, and its contents are nowhere."""
    (tmp_path / "secret").write_text("sesame")
    (kustomized.origin.folder / "base").mkdir()
    (kustomized.origin.folder / "base/stolen").symlink_to(tmp_path / "secret")
    kustomized.origin.commit(
        {**KUSTOMIZATION, "base/kustomization.yaml": "configMapGenerator:\n- name: x\n  files: [stolen]\n"}
    )
    with pytest.raises(RenderError, match="the symbolic link base/stolen leads out of the repository"):
        kustomized.look()


def test_d03_a_kustomization_inflates_a_chart_of_the_repository_where_that_is_allowed(tmp_path):
    """Without the setting kustomize says that it is needed."""
    files = {
        "kustomization.yaml": "helmGlobals: {chartHome: charts}\nhelmCharts:\n- {name: shop, releaseName: one}\n",
        **{f"charts/{name}": text for name, text in CHART.items()},
    }
    source = Source(tmp_path)
    source.origin.commit(files)
    with pytest.raises(RenderError, match="must specify --enable-helm"):
        source.look()
    source.restart(kustomize=KustomizeSpec(helm=True))
    made = found(source.look())
    assert "Service/one-shop" in made
    assert "Job/migrate" not in made
