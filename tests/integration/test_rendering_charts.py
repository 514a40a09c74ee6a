"""Charts of an HTTP chart repository and of an OCI registry, real ones: fetched once, kept, and missed by nobody."""

import pytest
from driftwatch.git.errors import RenderError
from driftwatch.source_spec import HelmSpec

from tests.support.charts import PASSWORD, USER, HttpRepository, Registry
from tests.support.rendering import Source, found, places


@pytest.fixture
def repository(tmp_path):
    repository = HttpRepository(tmp_path / "charts")
    yield repository
    repository.stop()


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "registry")
    yield registry
    registry.stop()


def port(change):
    return found(change)["Service/shop-shop"]["spec"]["ports"][0]["port"]


def chart(repository, version, **more):
    return HelmSpec(chart="shop", repository=repository.url, version=version, **more)


def test_d03_a_chart_of_an_http_repository_is_fetched_once_and_rendered_with_values_of_the_source(tmp_path, repository):
    """The archive stays in the mirror: a changed value renders without asking, and so does a restart."""
    repository.publish("1.0.0", port=8080)
    source = Source(tmp_path, helm=chart(repository, "1.0.0", values_files=("values.yaml",)), kind="helm")
    change = source.commit({"values.yaml": "extra: false\n"})
    assert port(change) == 8080
    assert places(change)["Service/shop-shop"] == "shop/templates/service.yaml:1"
    asked = len(repository.paths)
    repository.stop()
    assert port(source.commit({"values.yaml": "port: 9090\n"})) == 9090
    source.restart()
    assert (port(source.look()), source.snapshots.renderings) == (9090, 0)
    assert len(repository.paths) == asked


def test_d03_a_chart_of_an_oci_registry_is_rendered(tmp_path, registry):
    """The same, from a registry; it may be gone afterwards."""
    registry.publish("1.0.0", port=8080)
    source = Source(tmp_path, helm=chart(registry, "1.0.0", plain_http=True), kind="helm")
    assert port(source.commit({"readme.md": "x"})) == 8080
    registry.stop()
    source.restart()
    assert (port(source.look()), source.snapshots.renderings) == (8080, 0)


def test_d03_a_range_of_versions_is_asked_again_and_what_it_meant_last_is_used_meanwhile(tmp_path, repository):
    """Without the repository the last chart stays in use, new commits are rendered with it, and the trouble is told."""
    repository.publish("1.0.0", port=1)
    helm = chart(repository, "^1.0.0", chart_interval=1e-6, values_files=("values.yaml",))
    source = Source(tmp_path, helm=helm, kind="helm")
    assert port(source.commit({"values.yaml": "extra: false\n"})) == 1
    repository.publish("1.1.0", port=2)
    assert source.snapshots.is_stale()
    assert port(source.look()) == 2
    assert source.snapshots.trouble == ""
    repository.stop()
    assert port(source.commit({"values.yaml": "port: 3\n"})) == 3
    assert "source shop: chart shop ^1.0.0 of http://127.0.0.1" in source.snapshots.trouble
    assert "the chart that was fetched last stays in use" in source.snapshots.trouble


def test_d03_a_range_is_not_asked_again_before_its_time(tmp_path, repository):
    """Rounds cost the chart repository nothing."""
    repository.publish("1.0.0", port=1)
    source = Source(tmp_path, helm=chart(repository, "1.x"), kind="helm")
    source.commit({"readme.md": "x"})
    asked = len(repository.paths)
    assert not source.snapshots.is_stale()
    source.commit({"readme.md": "y"})
    assert len(repository.paths) == asked


def test_d03_credentials_of_a_chart_repository_come_from_a_file_and_are_nowhere_else(tmp_path):
    """A wrong password is told with the server's words and without the password."""
    repository = HttpRepository(tmp_path / "charts", closed=True)
    try:
        repository.publish("1.0.0", port=8080)
        word = tmp_path / "password"
        word.write_text("wrong-7531\n")
        spec = chart(repository, "1.0.0", username=USER, password_file=str(word))
        source = Source(tmp_path, helm=spec, kind="helm")
        source.origin.commit({"readme.md": "x"})
        with pytest.raises(RenderError, match="401") as error:
            source.look()
        assert "wrong-7531" not in str(error.value)
        word.write_text(f"{PASSWORD}\n")
        assert port(source.look()) == 8080
        left = [file for file in (tmp_path / "mirrors").rglob("*") if file.is_file() and not file.match("objects/*/*")]
        assert not any(PASSWORD.encode() in file.read_bytes() for file in left)
    finally:
        repository.stop()


@pytest.mark.parametrize("version", ["9.9.9", "^9"])
def test_d05_a_chart_that_is_not_there_is_named(tmp_path, repository, version):
    """Chart, version and repository stand in the message."""
    repository.publish("1.0.0")
    source = Source(tmp_path, helm=chart(repository, version), kind="helm")
    source.origin.commit({"readme.md": "x"})
    with pytest.raises(
        RenderError, match=f"chart shop {version.replace('^', '.')} of {repository.url} cannot be fetched"
    ):
        source.look()


def test_d03_dependencies_of_a_chart_are_fetched_as_its_lock_says_where_the_network_is_allowed(tmp_path, repository):
    """Without network the setting that is missing is named."""
    repository.publish("1.0.0", port=8080)
    parent = (
        f"apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies:\n- {{name: shop, version: 1.0.0, "
        f"repository: '{repository.url}'}}\n"
    )
    source = Source(tmp_path, helm=HelmSpec(dependencies=True))
    source.origin.commit({"Chart.yaml": parent})
    with pytest.raises(RenderError, match="needs network: true"):
        source.look()
    source.restart(helm=HelmSpec(dependencies=True), network=True)
    change = source.look()
    assert port(change) == 8080
    assert places(change)["Service/shop-shop"] == "charts/shop/templates/service.yaml:1"
