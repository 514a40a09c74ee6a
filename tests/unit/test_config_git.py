"""What the configuration says of hosts: what cannot work is refused with file and line, and shows no secret."""

import pytest
from driftwatch.config import ConfigError, load
from driftwatch.secret import SecretRef
from driftwatch.source_spec import Verification, VerifyMode, carries_credentials, transport

HTTPS, SSH, PATH = "https://git.example.com/apps.git", "git@git.example.com:apps.git", "apps.git"


@pytest.fixture
def source(tmp_path):
    def read(repository, *lines):
        file = tmp_path / "driftwatch.yaml"
        file.write_text("\n".join(["sources:", "- name: apps", f"  repository: {repository}", *lines, ""]))
        return load(file).sources[0]

    return read


@pytest.mark.parametrize(
    ("address", "by"),
    [
        (HTTPS, "https"), (SSH, "ssh"), ("ssh://git@host/x", "ssh"), ("git+ssh://host/x", "ssh"), ("host:x", "ssh"),
        ("file:///x", "file"), ("/x", ""), ("./a:b", ""), ("ext::sh -c x", "ext"), ("HTTP://host/x", "http"),
    ],
)  # fmt: skip
def test_d07_the_transport_is_told_from_the_address(address, by):
    """As Git does it."""
    assert transport(address) == by


@pytest.mark.parametrize(
    ("address", "secret"),
    [
        ("https://user:pw@host/x", True), ("https://token@host/x", True), ("https://host/x?private_token=s", True),
        ("ssh://git:pw@host/x", True), ("ssh://git@host/x", False), (SSH, False), (HTTPS, False), ("/a/b@c", False),
        ("https://[bad@x", True),
    ],
)  # fmt: skip
def test_d07_credentials_in_an_address_are_seen(address, secret):
    """The user name of an ssh address is no secret."""
    assert carries_credentials(address) is secret


def test_d07_everything_reaches_the_desired_state_process(source, tmp_path):
    """Paths are relative to the file's folder."""
    spec = source(
        HTTPS, "  semver: '>=1.2 <2'", "  caFile: ca.crt", "  auth: {usernameEnv: U, passwordFile: p}",
        "  proxy: {url: 'http://proxy:3128/', usernameFile: pu, passwordEnv: PP}",
        "  verify: {gpgKeysFile: keys.asc, mode: tag}",
    ).spec(tmp_path)  # fmt: skip
    assert (spec.semver, spec.access.ca_file) == (">=1.2 <2", str(tmp_path / "ca.crt"))
    assert spec.access.username == SecretRef(variable="U")
    assert spec.access.password == SecretRef(file=str(tmp_path / "p"))
    assert spec.access.proxy == "http://proxy:3128"
    assert spec.access.proxy_username == SecretRef(file=str(tmp_path / "pu"))
    assert spec.access.proxy_password == SecretRef(variable="PP")
    assert spec.verification == Verification(VerifyMode.TAG, str(tmp_path / "keys.asc"))


def test_d09_keys_alone_mean_the_commit(source, tmp_path):
    """Without keys nothing is verified."""
    assert source(PATH).spec(tmp_path).verification is None
    found = source(PATH, "  verify: {sshAllowedSignersFile: s}").spec(tmp_path).verification
    assert found == Verification(VerifyMode.HEAD, "", str(tmp_path / "s"))


@pytest.mark.parametrize(
    ("repository", "line", "words"),
    [
        ("https://user:hunter2@host/x", "", ":3: sources[0].repository: credentials do not belong into the address"),
        ("https://hunter2@host/x", "", ":3: sources[0].repository: credentials do not belong into the address"),
        ("ext::sh -c hunter2", "", ":3: sources[0].repository: 'ext' is no way to a repository"),
        ("fd::17/foo", "", ":3: sources[0].repository: 'fd' is no way to a repository"),
        ("s3://bucket/x", "", ":3: sources[0].repository: 's3' is no way to a repository"),
        ("https://[host/x", "", ":3: sources[0].repository: Invalid IPv6 URL"),
        (HTTPS, "semver: latest", ":4: sources[0].semver: 'latest' is no version"),
        (HTTPS, "semver: '1'\n  revision: main", "revision and semver both say which commit is meant"),
        (HTTPS, "auth: {tokenFile: a, tokenEnv: B}", "tokenFile and tokenEnv both name the same thing"),
        (HTTPS, "auth: {tokenFile: a, passwordFile: b, usernameFile: c}", "there is a token and a password"),
        (HTTPS, "auth: {passwordFile: b}", "a password goes with usernameFile or usernameEnv"),
        (HTTPS, "auth: {usernameFile: b}", "a user name goes with a password or a token"),
        (HTTPS, "auth: {tokenEnv: 'A B'}", ":4: sources[0].auth.tokenEnv: string should match pattern"),
        (HTTPS, "auth: {token: hunter2}", "unknown key `sources[0].auth.token`"),
        (
            HTTPS,
            "auth: {sshKeyFile: a, knownHostsFile: b}",
            "sshKeyEnv and knownHostsFile is for an ssh address",
        ),
        (SSH, "auth: {sshKeyFile: a}", "a key for ssh goes with knownHostsFile; `ssh-keyscan HOST` prints"),
        (SSH, "auth: {tokenFile: a}", "password and token is for an https address"),
        (SSH, "proxy: {url: 'http://p:1'}", "for ssh, ~/.ssh/config has ProxyJump"),
        (PATH, "caFile: a", "caFile is for an https address"),
        (HTTPS, "proxy: {url: 'p:1'}", "a proxy is SCHEME://HOST:PORT"),
        (HTTPS, "proxy: {url: 'http://u:hunter2@p:1'}", "credentials do not belong into the address; use usernameFile"),
        (HTTPS, "proxy: {usernameFile: a, passwordFile: b}", "credentials for a proxy go with its url"),
        (HTTPS, "proxy: {url: 'http://p:1', usernameFile: a}", "a user name and a password go together"),
        (HTTPS, "verify: {mode: head}", "without keys nothing is taken"),
        (HTTPS, "verify: {mode: all, gpgKeysFile: a}", ":4: sources[0].verify.mode: input should be 'head', 'tag'"),
        (HTTPS, "webhook: {secretFile: a, secretEnv: B}", "secretFile and secretEnv both name the same thing"),
    ],
)
def test_d07_what_cannot_work_is_refused_at_the_start(source, repository, line, words):
    """With file and line, and without repeating what may be secret."""
    with pytest.raises(ConfigError) as caught:
        source(repository, f"  {line}")
    message = str(caught.value)
    assert words in message
    assert "driftwatch.yaml:" in message
    assert "hunter2" not in message
