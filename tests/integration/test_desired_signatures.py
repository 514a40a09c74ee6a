"""Only commits that the right keys have signed are taken; with any other, the last good one stays in force."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from driftwatch.git.errors import SignatureRefused
from driftwatch.git.repository import Repository
from driftwatch.source_spec import Verification, VerifyMode

from tests.support.desired_origin import Origin, config_map
from tests.support.signing import GpgKey, SshKey, gpg_keys

needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="the program gpg is not installed")
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="the program ssh-keygen is not installed")


@pytest.fixture(scope="module")
def keyrings():
    with gpg_keys() as folder:
        yield folder


@pytest.fixture(scope="module")
def ann(keyrings):
    return GpgKey(keyrings / _made(keyrings, "ann"), "Ann <ann@example.com>")


@pytest.fixture(scope="module")
def mallory(keyrings):
    return GpgKey(keyrings / _made(keyrings, "mallory"), "Ann <ann@example.com>")


def _made(folder, name):
    (folder / name).mkdir(mode=0o700)
    return name


@pytest.fixture
def ssh_ann(tmp_path):
    return SshKey(tmp_path / "ann")


@pytest.fixture
def origin(tmp_path):
    return Origin(tmp_path / "origin")


@pytest.fixture
def repository(origin, tmp_path):
    def make(*, gpg=None, ssh=None, mode=VerifyMode.HEAD, **changes):
        gpg_file, ssh_file = tmp_path / "keys.asc", tmp_path / "allowed_signers"
        if gpg is not None:
            gpg_file.write_bytes(gpg)
        if ssh is not None:
            ssh_file.write_text(ssh)
        verification = Verification(
            mode, str(gpg_file) if gpg is not None else "", str(ssh_file) if ssh is not None else ""
        )
        return Repository(origin.spec(tmp_path / "mirrors", verification=verification, **changes))

    return make


def commit(origin, name, *options):
    """Commit a file, signed when `options` name a key; the commit's id."""
    (origin.folder / f"{name}.yaml").write_text(config_map(name))
    origin.git("add", "--all")
    origin.git(*options, "commit", "--quiet", *(["--gpg-sign"] if options else []), "--message", name)
    return origin.git("rev-parse", "HEAD")


def refused(mirror, words):
    """The mirror takes no commit, and says why."""
    with pytest.raises(SignatureRefused, match=words) as caught:
        mirror.sync()
    assert str(caught.value).startswith("source shop: ")
    return str(caught.value)


@needs_gpg
def test_d09_a_commit_signed_by_a_key_of_the_list_is_taken(origin, repository, ann):
    """Armoured or binary keys; git's own trust database plays no part."""
    signed = commit(origin, "a", *ann.options)
    assert repository(gpg=ann.public).sync() == signed
    assert repository(gpg=ann.gpg("--export")).sync() == signed


@needs_gpg
def test_d09_unsigned_and_wrongly_signed_commits_are_refused(origin, repository, ann, mallory):
    """Unsigned; signed by somebody with the same name and another key; and what was changed after signing."""
    signed = commit(origin, "a", *ann.options)
    mirror = repository(gpg=ann.public)
    mirror.keep(mirror.sync(), {})
    commit(origin, "b")
    refused(mirror, "is refused: it is not signed")
    commit(origin, "c", *mallory.options)
    refused(mirror, f"its key {mallory.fingerprint[-16:]} is not among those of .*keys.asc")
    text = origin.git("cat-file", "commit", signed).replace("\n\na", "\n\nb")
    forged = origin.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text + "\n")
    origin.git("update-ref", "refs/heads/main", forged)
    refused(mirror, "its signature is wrong")
    assert mirror.good() == signed
    assert repository(gpg=ann.public).good() == signed  # after a restart


@needs_gpg
def test_d09_an_expired_key_is_refused(origin, repository, keyrings):
    """Also for what it signed while it was valid: nobody can tell when that was."""
    old = GpgKey(keyrings / _made(keyrings, "old"), "Old <old@example.com>", expires="2020-06-01")
    commit(origin, "a", *old.options)
    refused(repository(gpg=old.public), f"its key {old.fingerprint[-16:]} has expired")


@needs_gpg
def test_d09_a_revoked_key_is_refused(origin, repository, keyrings):
    """The list says so itself, when it holds the revocation."""
    key = GpgKey(keyrings / _made(keyrings, "lost"), "Lost <lost@example.com>")
    commit(origin, "a", *key.options)
    revocation = (key.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev").read_text()
    (key.home / "revocation").write_text(re.sub(r"^:", "", revocation, flags=re.MULTILINE))
    key.gpg("--import", str(key.home / "revocation"))
    refused(repository(gpg=key.gpg("--export")), f"its key {key.fingerprint[-16:]} was revoked")


def test_d09_ssh_signatures_by_allowed_signers(origin, repository, ssh_ann, tmp_path):
    """Signed by a key of the file; by another; by one that the file allows only for a time that is over."""
    mallory = SshKey(tmp_path / "mallory")
    signed = commit(origin, "a", *ssh_ann.options)
    mirror = repository(ssh=ssh_ann.signer)
    assert mirror.sync() == signed
    commit(origin, "b")
    refused(mirror, "it is not signed")
    commit(origin, "c", *mallory.options)
    refused(mirror, r"its ED25519 key SHA256:\S+ is not among those of .*allowed_signers")
    commit(origin, "d", *ssh_ann.options)
    principal, key = ssh_ann.signer.split(" ", 1)
    refused(repository(ssh=f'{principal} valid-before="20200101" {key}'), "was not valid at the time of the commit")
    refused(repository(ssh=f'{principal} namespaces="file" {key}'), "is refused")


@needs_gpg
def test_d09_a_kind_of_key_that_is_not_listed_signs_nothing(origin, repository, ann, ssh_ann, tmp_path, monkeypatch):
    """Neither the user's keyring nor the allowed signers of the user's Git configuration make a signature good."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "signers").write_text(ssh_ann.signer)
    (home / ".gitconfig").write_text(f'[gpg "ssh"]\n\tallowedSignersFile = {home}/signers\n[gpg]\n\tprogram = true\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GNUPGHOME", str(ann.home))
    commit(origin, "a", *ann.options)
    refused(repository(ssh=ssh_ann.signer), r"its key \w+ is not among those of verify\.gpgKeysFile, which is not set")
    commit(origin, "b", *ssh_ann.options)
    refused(repository(gpg=ann.public), r"is not among those of verify\.sshAllowedSignersFile, which is not set")


def test_d09_signed_tags(origin, repository, ssh_ann, tmp_path):
    """The tag's signature counts, not the commit's; the tag object is the one of the ref's name."""
    commit(origin, "a")
    origin.git(*ssh_ann.options, "tag", "--sign", "--message", "one", "v1")
    tagged = origin.git("rev-parse", "HEAD")
    assert repository(ssh=ssh_ann.signer, mode=VerifyMode.TAG, revision="v1").sync() == tagged
    refused(repository(ssh=ssh_ann.signer, mode=VerifyMode.TAG_AND_HEAD, revision="v1"), "commit .* it is not signed")
    refused(repository(ssh=ssh_ann.signer, mode=VerifyMode.TAG, revision="main"), "the revision is no tag")
    newest = repository(ssh=ssh_ann.signer, mode=VerifyMode.TAG, semver="1.x")
    assert newest.sync() == tagged
    commit(origin, "b")
    origin.git("tag", "v1.1")
    refused(newest, r"tag v1\.1 is refused: it is not annotated")
    origin.git("tag", "--force", "--annotate", "--message", "two", "v1.1")
    refused(newest, r"tag v1\.1 is refused: it is not signed")
    origin.git("update-ref", "refs/tags/v1.1", origin.git("rev-parse", "v1"))
    refused(newest, r"tag v1\.1 is refused: the tag object is one of another name")
    origin.git(*SshKey(tmp_path / "mallory").options, "tag", "--force", "--sign", "--message", "two", "v1.1")
    refused(newest, r"tag v1\.1 is refused: its ED25519 key")
    origin.git(*ssh_ann.options, "tag", "--force", "--sign", "--message", "two", "v1.1")
    assert newest.sync() == origin.git("rev-parse", "HEAD")


def test_d09_a_commit_that_served_unverified_does_not_serve_when_signatures_are_asked_for(origin, repository, ssh_ann):
    """Neither is one found that was accepted under a signature when none is asked for: they are other settings."""
    first = commit(origin, "a")
    unverified = repository(ssh=ssh_ann.signer)
    spec = unverified.spec
    plain = Repository(origin.spec(unverified.mirror.parent))
    plain.keep(plain.sync(), {})
    assert Repository(plain.spec).good() == first
    assert Repository(spec).good() is None


@pytest.mark.parametrize("broken", ["missing", "garbage"])
def test_d09_a_list_that_cannot_be_used_takes_nothing(origin, repository, ssh_ann, tmp_path, broken):
    """Until it is mended."""
    signed = commit(origin, "a", *ssh_ann.options)
    mirror = repository(ssh=ssh_ann.signer)
    file = tmp_path / "allowed_signers"
    if broken == "missing":
        file.unlink()
        refused(mirror, "allowed_signers cannot be read: No such file or directory; no commit is taken without it")
    else:
        file.write_text("what is this")
        refused(mirror, "is refused")
    file.write_text(ssh_ann.signer)
    assert mirror.sync() == signed


@needs_gpg
def test_d09_a_gpg_list_without_keys_takes_nothing(origin, repository, ann):
    """The message has the words of gpg."""
    commit(origin, "a", *ann.options)
    refused(repository(gpg=b"not a key"), r"keys\.asc holds no public keys that gpg takes: .*no valid OpenPGP data")


@needs_gpg
def test_d09_nothing_of_a_check_is_left_behind(origin, repository, ann, monkeypatch):
    """No keyring, and no agent of gpg."""
    with tempfile.TemporaryDirectory() as folder:  # gpg takes no homes whose path is longer than a socket's may be
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        commit(origin, "a", *ann.options)
        repository(gpg=ann.public).sync()
        assert list(Path(folder).iterdir()) == []
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        assert f"{folder}/driftwatch-keys-" not in running
