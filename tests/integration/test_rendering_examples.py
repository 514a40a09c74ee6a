"""The examples of docs/sources.md: each loads, and renders what the page says, from the repository beside it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from driftwatch.config import Config, load
from driftwatch.desired.snapshot import Snapshots
from driftwatch.git.repository import Repository
from driftwatch.tools import SOPS, ensure

from tests.support.charts import HttpRepository
from tests.support.desired_origin import Origin
from tests.support.tools import AGE_KEYGEN

EXAMPLES = Path(__file__).parents[2] / "config/examples"


def render(tmp_path: Path, name: str, **changes):
    """Render an example's source from the repository beside it; `changes` are made to the source."""
    [source] = load(EXAMPLES / name).sources
    changed = source.model_dump(exclude_unset=True) | {"repository": str(tmp_path / "git")} | changes
    [source] = Config.model_validate({"sources": [changed]}).sources
    origin = Origin(tmp_path / "git")
    shutil.copytree(EXAMPLES / "repository", origin.folder, dirs_exist_ok=True)
    if changes.get("sops"):
        _encrypt(origin.folder / "secrets/login.yaml", Path(changes["sops"]["ageKeyFile"]))
    origin.commit({})
    repository = Repository(source.spec(tmp_path / "mirrors"))
    change = Snapshots(source.spec(tmp_path / "mirrors"), repository).at(repository.sync())
    assert not change.invalid
    return {f"{one.kind}/{one.name}": json.loads(one.body) for one in change.upserts}, change


def _encrypt(file: Path, keys: Path) -> None:
    """As the page says."""
    subprocess.run([ensure(AGE_KEYGEN).path, "-o", keys], check=True, capture_output=True)
    recipient = next(line.split(": ")[1] for line in keys.read_text().splitlines() if "public key" in line)
    command = [ensure(SOPS).path, "--disable-version-check", "encrypt", "--in-place", "--age", recipient,
               "--encrypted-regex", "^(data|stringData)$", file]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    assert "not-a-real-one" not in file.read_text()


def test_d03_the_kustomize_example(tmp_path):
    """Prefix, image and replicas are the overlay's, and the generated ConfigMap is referred to by its hashed name."""
    made, _ = render(tmp_path, "kustomize.yaml")
    spec = made["Deployment/prod-shop"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    assert (spec["replicas"], container["image"]) == (3, "registry.example.com/shop:1.4")
    assert f"ConfigMap/{container['envFrom'][0]['configMapRef']['name']}" in made


def test_d03_the_helm_example(tmp_path):
    """Values of the file and of the configuration are in, the hook is passed over."""
    made, change = render(tmp_path, "helm.yaml")
    assert made.keys() == {"Deployment/prod"}
    spec = made["Deployment/prod"]["spec"]
    assert spec["replicas"] == 2
    assert spec["template"]["spec"]["containers"][0]["image"] == "registry.example.com/shop:1.4"
    assert ["Helm hook" in one.reason for one in change.passed_over] == [True]


def test_d03_the_example_of_a_chart_repository(tmp_path):
    """With the address of a repository that is there, and the password in a file."""
    charts = HttpRepository(tmp_path / "charts", closed=True)
    try:
        charts.publish("6.5.4")
        [source] = load(EXAMPLES / "helm-repository.yaml").sources
        word = tmp_path / "password"
        word.write_text("sesame-7531")
        helm = source.helm.model_dump(exclude_unset=True)
        helm |= {"repository": charts.url, "chart": "shop", "passwordFile": str(word)}
        made, _ = render(tmp_path, "helm-repository.yaml", helm=helm)
        assert "Service/podinfo-shop" in made
    finally:
        charts.stop()


def test_d03_the_example_of_variables(tmp_path):
    """Defined, defaulted and escaped."""
    made, _ = render(tmp_path, "variables.yaml")
    data = made["ConfigMap/settings"]["data"]
    assert data == {"region": "eu-1", "host": "shop.example.com", "script": "echo $HOME ${REGION}"}


def test_d03_the_example_of_sops(tmp_path):
    """Encrypted as the page says, and decrypted."""
    made, _ = render(tmp_path, "sops.yaml", sops={"ageKeyFile": str(tmp_path / "keys.txt")})
    assert made.keys() == {"Secret/login"}
    assert made["Secret/login"]["data"].keys() == {"password"}


@pytest.mark.parametrize("name", sorted(file.name for file in EXAMPLES.glob("*.yaml")))
def test_every_example_loads(name):
    """Whatever it is about."""
    assert load(EXAMPLES / name).sources
