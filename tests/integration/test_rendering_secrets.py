"""Variables and SOPS: what is replaced and decrypted, in memory only, and what is said when it cannot be."""

import base64
import json
import os
import subprocess

import pytest
from driftwatch.model import InvalidManifest
from driftwatch.source_spec import ClusterCapabilities, RenderSpec, SopsSpec, VariablesFrom
from driftwatch.tools import SOPS, ensure

from tests.support.desired_origin import config_map
from tests.support.rendering import CHART, KUSTOMIZATION, Source, found, places, service
from tests.support.tools import AGE_KEYGEN

FROM = (VariablesFrom("ConfigMap", "default", "cluster-vars"),)


def around(**variables):
    return ClusterCapabilities(variables={"shop": variables})


def invalid(change):
    return [(one.file, one.line, one.reason) for one in change.invalid]


# --- Variables --------------------------------------------------------------------------------------------------------


def test_d03_variables_are_replaced_in_plain_manifests_and_lines_stay(tmp_path):
    """Numbers become numbers where they stand without quotes; the configuration's win over the cluster's."""
    source = Source(tmp_path, variables={"PORT": "443"}, variables_from=FROM)
    source.snapshots.surround(around(PORT="1", NAME="web"))
    change = source.commit(
        {"a.yaml": f"# ${{UNUSED}} in a comment\n{service('${NAME}', '${PORT}')}---\n{service('b')}"}
    )
    assert found(change)["Service/web"]["spec"]["ports"] == [{"port": 443}]
    assert places(change) == {"Service/web": "a.yaml:2", "Service/b": "a.yaml:10"}
    assert not change.invalid


def test_d03_without_variables_nothing_is_replaced(tmp_path):
    """A script in a ConfigMap is as it was written."""
    change = Source(tmp_path).commit({"a.yaml": config_map("a", script="echo ${HOME} $${X}")})
    assert found(change)["ConfigMap/a"]["data"]["script"] == "echo ${HOME} $${X}"


def test_d04_an_undefined_variable_makes_its_manifest_invalid_and_no_other(tmp_path):
    """File, line and variable are named, the last good version stays in force, and it heals when the variable comes."""
    source = Source(tmp_path, variables={"A": "1"}, variables_from=FROM)
    source.commit({"a.yaml": f"{config_map('a', x='1')}---\n{config_map('b', x='1')}"})
    change = source.commit({"a.yaml": f"{config_map('a', x='${B}')}---\n{config_map('b', x='${A}2')}"})
    [(file, line, reason)] = invalid(change)
    assert (file, line) == ("a.yaml", 4)
    assert "the variable B is not defined" in reason
    assert (found(change).keys(), change.removed) == ({"ConfigMap/b"}, [])
    assert not source.snapshots.is_stale()
    source.snapshots.surround(around(B="2"))
    assert source.snapshots.is_stale()
    again = source.look()
    assert (again.invalid, found(again)["ConfigMap/a"]["data"]) == ([], {"x": "2"})


def test_d03_a_changed_variable_changes_only_what_uses_it_and_renders_nothing(tmp_path):
    """The rendered files stay as they are; the documents with the variable are read again."""
    source = Source(tmp_path, path="overlays/prod", variables_from=FROM)
    source.snapshots.surround(around(TEAM="one"))
    files = {**KUSTOMIZATION, "base/more.yaml": config_map("more", team="${TEAM}")}
    files["base/kustomization.yaml"] = files["base/kustomization.yaml"].replace("[app.yaml]", "[app.yaml, more.yaml]")
    files["base/kustomization.yaml"] = files["base/kustomization.yaml"].replace("- app.yaml", "- app.yaml\n- more.yaml")
    assert found(source.commit(files))["ConfigMap/prod-more"]["data"] == {"team": "one"}
    source.snapshots.surround(around(TEAM="two"))
    change = source.look()
    assert (found(change).keys(), source.snapshots.renderings) == ({"ConfigMap/prod-more"}, 1)
    assert places(change) == {"ConfigMap/prod-more": "base/more.yaml:1"}


def test_d03_a_document_can_opt_out_of_variables(tmp_path):
    """By a label or an annotation, also by that of Flux."""
    for number, name in enumerate(("driftwatch.io/substitute", "kustomize.toolkit.fluxcd.io/substitute")):
        text = config_map("a", x="${A}").replace("name: a", f"name: a, annotations: {{{name}: disabled}}")
        source = Source(tmp_path / str(number), variables={"A": "1"})
        assert found(source.commit({"a.yaml": text}))["ConfigMap/a"]["data"] == {"x": "${A}"}


def test_d05_variables_of_an_object_that_is_not_there_keep_the_source_from_rendering(tmp_path):
    """The words are those of the daemon, which has looked."""
    source = Source(tmp_path, variables_from=FROM)
    source.origin.commit({"a.yaml": config_map("a")})
    source.snapshots.surround(
        ClusterCapabilities(missing={"shop": "ConfigMap default/cluster-vars is not in the cluster"})
    )
    with pytest.raises(Exception, match="source shop: ConfigMap default/cluster-vars is not in the cluster"):
        source.look()


# --- SOPS -------------------------------------------------------------------------------------------------------------

SECRET = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\nstringData:\n  word: {word}\n"


class Age:
    """An age identity in a file, and sops that encrypts for it."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "keys.txt"
        subprocess.run([ensure(AGE_KEYGEN).path, "-o", self.file], check=True, capture_output=True)
        self.recipient = next(
            line.split(": ")[1] for line in self.file.read_text().splitlines() if "public key" in line
        )

    def encrypt(self, text, kind="yaml"):
        command = [ensure(SOPS).path, "--disable-version-check", "encrypt", f"--age={self.recipient}",
                   f"--filename-override=a.{kind}", "--encrypted-regex=^(data|stringData)$"]  # fmt: skip
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def age(tmp_path_factory):
    return Age(tmp_path_factory.mktemp("age"))


@pytest.fixture
def encrypted(tmp_path, age):
    return Source(tmp_path, sops=SopsSpec(age_key_file=str(age.file)))


def words(change):
    """The Secrets' values, which are base64 in a body."""
    return {
        name: base64.b64decode(body["data"]["word"]).decode()
        for name, body in found(change).items()
        if name.startswith("Secret/")
    }


def test_d03_an_encrypted_file_of_several_documents_is_decrypted(encrypted, age):
    """Each document has its own line; a plain document in another file is no matter."""
    text = age.encrypt(f"{SECRET.format(name='a', word='sesame-a')}---\n{SECRET.format(name='b', word='sesame-b')}")
    change = encrypted.commit({"secrets.yaml": text, "plain.yaml": config_map("c")})
    assert words(change) == {"Secret/a": "sesame-a", "Secret/b": "sesame-b"}
    starts = [text[: text.index(f"name: {name}")].count("\n") - 2 for name in "ab"]
    assert places(change)["Secret/a"] == f"secrets.yaml:{starts[0] + 0}"
    assert places(change)["Secret/b"] == f"secrets.yaml:{starts[1] + 0}"


def test_d03_an_encrypted_json_file_is_decrypted(encrypted, age):
    """As sops writes it."""
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"word": "sesame"}}
    assert words(encrypted.commit({"a.json": age.encrypt(json.dumps(body), "json")})) == {"Secret/a": "sesame"}


def test_d03_encrypted_documents_of_a_kustomization_and_a_chart_are_decrypted_after_rendering(tmp_path, age):
    """What kustomize has renamed is decrypted without its authentication code, and nothing decrypted is on disk."""
    sops = SopsSpec(age_key_file=str(age.file))
    secret = age.encrypt(SECRET.format(name="login", word="sesame-7531"))
    files = {**KUSTOMIZATION, "overlays/prod/login.yaml": secret}
    files["overlays/prod/kustomization.yaml"] = files["overlays/prod/kustomization.yaml"].replace(
        "[../../base]", "[../../base, login.yaml]"
    )
    source = Source(tmp_path / "kustomize", path="overlays/prod", sops=sops)
    change = source.commit(files)
    assert words(change) == {"Secret/prod-login": "sesame-7531"}
    assert places(change)["Secret/prod-login"] == "overlays/prod/login.yaml:1"
    charted = Source(tmp_path / "helm", path="shop", sops=sops)
    assert words(charted.commit({**CHART, "shop/templates/login.yaml": secret})) == {"Secret/login": "sesame-7531"}
    _assert_nowhere(tmp_path, b"sesame-7531", b"c2VzYW1lLTc1MzE")


def _assert_nowhere(folder, *needles):
    """No file below the folder has any of these, the objects of Git unpacked."""
    for mirror in folder.glob("*/mirrors/shop"):
        listing = subprocess.run(
            ["git", f"--git-dir={mirror}", "cat-file", "--batch-all-objects", "--batch"],
            capture_output=True,
            check=True,
        ).stdout
        assert b"Service" in listing
        assert not any(needle in listing for needle in needles)
    for file in folder.rglob("*"):
        if file.is_file():
            assert not any(needle in file.read_bytes() for needle in needles), file


def test_d04_what_cannot_be_decrypted_is_invalid_and_keeps_its_last_good_version(tmp_path, encrypted, age):
    """Another recipient, a changed value and a missing key each name the file; a key that comes later decrypts."""
    encrypted.commit({"a.yaml": age.encrypt(SECRET.format(name="a", word="one")), "b.yaml": config_map("b")})
    other = Age(tmp_path / "other")
    change = encrypted.commit({"a.yaml": other.encrypt(SECRET.format(name="a", word="two"))})
    [(file, line, reason)] = invalid(change)
    assert (file, line, change.removed) == ("a.yaml", 1, [])
    assert reason.startswith("cannot be decrypted: Failed to get the data key")
    with age.file.open("a") as keys:
        keys.write(other.file.read_text())
    assert encrypted.snapshots.is_stale()
    assert words(encrypted.look()) == {"Secret/a": "two"}
    tampered = age.encrypt(SECRET.format(name="a", word="three")).replace("name: a", "name: a2")
    [(_, _, reason)] = invalid(encrypted.commit({"a.yaml": tampered}))
    assert "MAC mismatch" in reason
    encrypted.spec = encrypted.origin.spec(tmp_path / "keyless", render=RenderSpec())
    encrypted.restart()
    [(_, _, reason)] = invalid(encrypted.look())
    assert reason == "is encrypted by SOPS, and the source has no key: set sops.ageKeyFile or sops.gnupgHome"


def test_d03_a_file_encrypted_for_a_pgp_key_is_decrypted_and_no_agent_is_left(tmp_path):
    """The key ring is the one that the source names."""
    # A socket's path is short, and pytest's folders are not.
    home = tmp_path.parent.parent / f"g{os.getpid()}"
    home.mkdir(mode=0o700)
    try:
        gpg = ["gpg", f"--homedir={home}", "--batch", "--quiet"]
        subprocess.run([*gpg, "--passphrase=", "--quick-gen-key", "t@example.com", "rsa2048", "encrypt"],
                       check=True, capture_output=True)  # fmt: skip
        listing = subprocess.run([*gpg, "--list-keys", "--with-colons"], check=True, capture_output=True, text=True)
        print_ = next(line.split(":")[9] for line in listing.stdout.splitlines() if line.startswith("fpr"))
        command = [
            ensure(SOPS).path,
            "--disable-version-check",
            "encrypt",
            f"--pgp={print_}",
            "--filename-override=a.yaml",
        ]
        environment = {**os.environ, "GNUPGHOME": str(home)}
        plain = SECRET.format(name="a", word="pgp")
        done = subprocess.run(command, input=plain, check=True, capture_output=True, text=True, env=environment)
        subprocess.run(["gpgconf", f"--homedir={home}", "--kill", "all"], check=True)
        source = Source(tmp_path, sops=SopsSpec(gnupg_home=str(home)))
        # Every value is encrypted, the name as well: sops is what makes it a manifest.
        assert words(source.commit({"a.yaml": done.stdout})) == {"Secret/a": "pgp"}
        assert not (home / "S.gpg-agent").exists()
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


def test_secrets_are_in_no_reason(encrypted, age):
    """A decrypted document that is no manifest is told without its values."""
    text = age.encrypt("apiVersion: v1\nkind: Secret\nmetadata: {}\nstringData: {word: sesame-7531}\n")
    [one] = encrypted.commit({"a.yaml": text}).invalid
    assert isinstance(one, InvalidManifest)
    assert "sesame" not in one.reason
