"""Repositories on real hosts: https with credentials, a private authority, a proxy; ssh with key and known hosts."""

import sys
import threading
from pathlib import Path

import pytest
from driftwatch.git.credentials import Environment
from driftwatch.git.errors import (
    AccessDenied,
    GitError,
    NotARepository,
    RemoteUntrusted,
    Unreachable,
)
from driftwatch.git.repository import Repository
from driftwatch.git.runner import GitRunner, TimedOut
from driftwatch.secret import SecretRef
from driftwatch.source_spec import GitAccess

from tests.support.authority import Authority
from tests.support.desired_origin import Origin, config_map
from tests.support.git_http import GitHost, Proxy, basic, serving
from tests.support.git_ssh import keypair, ssh_host
from tests.support.waiting import until

USER, PASSWORD = "robot", "p@ss:w\"ord $HOME 'x' %41 \\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def origin(tmp_path):
    origin = Origin(tmp_path / "git" / "origin")
    origin.commit({"a.yaml": config_map("a")})
    return origin


@pytest.fixture
def host(tmp_path, authority):
    host = GitHost(tmp_path / "git", authority.server_context)
    host.credentials = (USER, PASSWORD)
    with serving(host.server):
        yield host


@pytest.fixture(scope="module")
def ssh_server(tmp_path_factory):
    with ssh_host(tmp_path_factory.mktemp("ssh") / "host") as host:
        yield host


@pytest.fixture
def secret(tmp_path):
    def write(name, value):
        file = tmp_path / "secrets" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(value)
        return SecretRef(file=str(file))

    return write


@pytest.fixture
def follow():
    """Make mirrors, and close their connections at the end."""
    made = []

    def make(spec):
        made.append(Repository(spec))
        return made[-1]

    yield make
    for mirror in made:
        mirror.interrupt()


@pytest.fixture
def repository(origin, tmp_path, follow):
    return lambda address, **access: follow(
        origin.spec(tmp_path / "mirrors", repository=address, access=GitAccess(**access))
    )


def files(repository):
    commit = repository.sync()
    return [entry.path for entry in repository.tree(commit)]


# --- https ---


def test_d07_https_with_user_name_and_password_and_a_private_authority(repository, host, secret, authority):
    """A password with whatever characters, from files that end in a line break, reaches the host as it is."""
    mirror = repository(
        host.url("origin"), username=secret("u", f"{USER}\n"), password=secret("p", f"{PASSWORD}\n"),
        ca_file=str(authority.certificate),
    )  # fmt: skip
    assert files(mirror) == ["a.yaml"]


def test_d07_https_with_a_token(repository, host, secret, authority, monkeypatch):
    """It is sent as a password under the name that hosts take; from a file, or from an environment variable."""
    host.credentials = ("x-access-token", "t0ken")
    address, authority_file = host.url("origin"), str(authority.certificate)
    assert files(repository(address, token=secret("t", "t0ken\n"), ca_file=authority_file)) == ["a.yaml"]
    monkeypatch.setenv("APPS_TOKEN", "t0ken")
    assert files(repository(address, token=SecretRef(variable="APPS_TOKEN"), ca_file=authority_file)) == ["a.yaml"]
    host.credentials = ("oauth2", "t0ken")
    mirror = repository(address, token=secret("t", "t0ken"), username=secret("u", "oauth2"), ca_file=authority_file)
    assert files(mirror) == ["a.yaml"]


def test_d07_rotated_credentials_count_at_the_next_look(repository, host, secret, origin, authority):
    """The file is read anew each time: refused with the old token, taken with the new one, without a restart."""
    host.credentials = ("x-access-token", "old")
    mirror = repository(host.url("origin"), token=secret("t", "old"), ca_file=str(authority.certificate))
    mirror.sync()
    host.credentials = ("x-access-token", "new")
    with pytest.raises(AccessDenied, match="wrong, expired, or may not read"):
        mirror.sync()
    secret("t", "new")
    commit = origin.commit({"b.yaml": config_map("b")})
    assert mirror.sync() == commit


def test_d07_the_credential_helpers_of_the_user_are_not_asked(
    repository, host, secret, authority, tmp_path, monkeypatch
):
    """A source with credentials of its own uses these and no others, and tells them to no helper."""
    marker = tmp_path / "asked"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[credential]\n\thelper = "!touch {marker}; true"\n')
    monkeypatch.setenv("HOME", str(home))
    mirror = repository(
        host.url("origin"), username=secret("u", USER), password=secret("p", PASSWORD),
        ca_file=str(authority.certificate),
    )  # fmt: skip
    mirror.sync()
    assert not marker.exists()


def test_d07_credentials_do_not_follow_a_redirect_to_another_host(repository, host, secret, authority):
    """They are bound to the host of the address."""
    elsewhere = GitHost(host.root, authority.server_context)
    elsewhere.credentials = ("x-access-token", "t0ken")
    host.redirect = f"https://127.0.0.1:{elsewhere.port}"
    mirror = repository(host.url("origin"), token=secret("t", "t0ken"), ca_file=str(authority.certificate))
    with serving(elsewhere.server), pytest.raises(GitError):
        mirror.sync()
    assert elsewhere.requests
    assert all(given == "" for _, _, given in elsewhere.requests)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_d07_no_secret_is_in_an_argument_or_a_file(repository, host, secret, authority, tmp_path):
    """While git waits for the host, the arguments of every process and the whole mirror are searched for it."""
    host.credentials = ("x-access-token", "s3cr3t-t0ken")
    access = {"token": secret("t", "s3cr3t-t0ken"), "ca_file": str(authority.certificate)}
    repository(host.url("origin"), **access).sync()
    mirror = repository(host.url("origin"), **access)  # the first look after a start is git's
    host.answering.clear()
    looking = threading.Thread(target=mirror.sync)
    asked = len(host.requests)
    looking.start()
    try:
        until(lambda: len(host.requests) > asked, "git asks the host")
        arguments = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if _readable(file)]
    finally:
        host.answering.set()
        looking.join()
    assert any(b"ls-remote" in each for each in arguments)
    assert not [each for each in arguments if b"s3cr3t" in each]
    written = [file for file in tmp_path.rglob("*") if file.is_file() and b"s3cr3t" in file.read_bytes()]
    assert written == [tmp_path / "secrets" / "t"]


def _readable(file):
    try:
        return file.read_bytes() is not None
    except OSError:
        return False


def test_d07_what_a_host_repeats_of_a_secret_is_hidden(tmp_path):
    """An error never has it, even if the other side says it."""
    echo = ["sh", "-c", 'echo "remote: you said $DRIFTWATCH_GIT_PASSWORD" >&2; exit 1']
    environment = Environment({"DRIFTWATCH_GIT_PASSWORD": "s3cr3t"}, ("s3cr3t",))
    with pytest.raises(GitError, match=r"you said \*\*\*"):
        GitRunner(tmp_path / "mirror").run_program(echo, "sh", environment=environment)


def _rename_the_file(_host, access, _secret):
    Path(access["password"].file).rename(f"{access['password'].file}.old")


def _refuse_everybody(host, _access, _secret):
    host.answer = 403


def _break_the_host(host, _access, _secret):
    host.answer = 503


BREAKINGS = {
    "password": (
        lambda _host, _access, secret: secret("p", "wrong-one"),
        AccessDenied, "the credentials are wrong, expired, or may not read this repository",
    ),
    "no credentials": (
        lambda _host, access, _secret: (access.pop("username"), access.pop("password")),
        AccessDenied, "auth.tokenFile, or auth.usernameFile and auth.passwordFile, name them",
    ),
    "no file": (
        _rename_the_file,
        AccessDenied, "cannot be read: No such file or directory; it is looked for again at the next try",
    ),
    "empty file": (lambda _host, _access, secret: secret("p", "\n"), AccessDenied, "is empty; it is looked for again"),
    "two lines": (lambda _host, _access, secret: secret("p", "a\nb\n"), AccessDenied, "holds more than one line"),
    "no authority": (
        lambda _host, access, _secret: access.pop("ca_file"),
        RemoteUntrusted, "caFile names the authority to trust",
    ),
    "no authority file": (
        lambda _host, access, _secret: access.update(ca_file="/nowhere/ca.crt"),
        AccessDenied, "caFile: file /nowhere/ca.crt cannot be read",
    ),
    "forbidden": (_refuse_everybody, AccessDenied, "403"),
    "broken": (_break_the_host, Unreachable, "503"),
}  # fmt: skip


@pytest.mark.parametrize("breaking", BREAKINGS)
def test_d08_what_is_wrong_with_the_way_to_a_host_is_said(repository, host, secret, authority, breaking):
    """One clear message for each: what git or the host said, and what to do."""
    access = {"username": secret("u", USER), "password": secret("p", PASSWORD), "ca_file": str(authority.certificate)}
    change, error, words = BREAKINGS[breaking]
    change(host, access, secret)
    with pytest.raises(error) as caught:
        repository(host.url("origin"), **access).sync()
    assert words in str(caught.value)
    assert type(caught.value) is error
    assert not [value for value in (PASSWORD, "wrong-one") if value in str(caught.value)]


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [("{}nothing", NotARepository, "not found"), ("https://127.0.0.1:1/origin", Unreachable, "127.0.0.1 port 1")],
)
def test_d08_a_wrong_address_is_said(repository, host, secret, authority, address, error, words):
    """A repository that is not there, and a host that is not there."""
    token, host.credentials = secret("t", "x"), ("x-access-token", "x")
    with pytest.raises(error, match=words):
        repository(address.format(host.url("")), token=token, ca_file=str(authority.certificate)).sync()


def test_d08_a_host_that_says_nothing_is_given_up(origin, host, secret, authority, tmp_path, follow):
    """After the source's timeout, and the next look finds it answering again."""
    access = GitAccess(username=secret("u", USER), password=secret("p", PASSWORD), ca_file=str(authority.certificate))
    spec = origin.spec(tmp_path / "mirrors", repository=host.url("origin"), access=access)
    mirror = follow(spec)
    commit = mirror.sync()
    host.answering.clear()
    with pytest.raises(TimedOut, match=r"did not answer within 0\.5 s"):
        mirror.sync(0.5)
    host.answering.set()
    assert mirror.sync() == commit


# --- a look without news ---


@pytest.mark.parametrize("changes", [{}, {"revision": "HEAD"}, {"semver": "1.x"}, {"revision": "v1.0.0"}])
def test_d07_a_look_without_news_is_one_request_and_no_git(
    origin, host, secret, authority, tmp_path, monkeypatch, follow, changes
):
    """Over a connection that stays open. What is new, and a token that is refused, git finds out as ever."""
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    host.credentials = ("x-access-token", "t")
    origin.git("tag", "--annotate", "--message", "one", "v1.0.0")
    access = GitAccess(token=secret("t", "t"), ca_file=str(authority.certificate))
    mirror = follow(origin.spec(tmp_path / "mirrors", repository=host.url("origin"), access=access, **changes))
    commit = mirror.sync()
    assert mirror.sync() == commit
    asked = len(host.requests)
    with monkeypatch.context() as without_git:
        without_git.setattr(GitRunner, "run", None)
        assert [mirror.sync() for _ in range(3)] == [commit] * 3
    assert [request[:2] for request in host.requests[asked:]] == [("POST", "/origin/git-upload-pack")] * 3
    newer = origin.commit({"b.yaml": config_map("b")})
    origin.git("tag", "--force", "--annotate", "--message", "two", "v1.0.0")
    assert mirror.sync() == newer
    host.credentials = ("x-access-token", "other")
    with pytest.raises(AccessDenied):
        mirror.sync()
    host.credentials = ("x-access-token", "t")
    assert mirror.sync() == newer


def test_d08_a_host_that_cannot_be_glanced_at_is_asked_by_git_alone(
    origin, host, authority, tmp_path, monkeypatch, follow
):
    """An odd answer is no answer; it is not tried again for a while."""
    monkeypatch.setattr("driftwatch.git.ls_refs.LsRefsClient.possible", lambda _self: True)
    host.credentials = None
    access = GitAccess(ca_file=str(authority.certificate))
    mirror = follow(origin.spec(tmp_path / "mirrors", repository=host.url("origin"), access=access))
    commit = mirror.sync()
    monkeypatch.setattr("driftwatch.git.ls_refs._request", lambda *_arguments: b"garbage")
    assert mirror.sync() == commit
    assert mirror._ls_refs._not_before > 0


# --- the proxy ---


@pytest.fixture
def proxy():
    proxy = Proxy()
    with serving(proxy.server):
        yield proxy


def test_d07_https_through_a_proxy(repository, host, secret, authority, proxy, monkeypatch):
    """Also where the environment says that this host needs none; the proxy's credentials are its own."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    proxy.credentials = ("me@corp", "pr:oxy/p@ss")
    mirror = repository(
        host.url("origin"), username=secret("u", USER), password=secret("p", PASSWORD),
        ca_file=str(authority.certificate), proxy=proxy.url, proxy_username=secret("pu", "me@corp\n"),
        proxy_password=secret("pp", "pr:oxy/p@ss\n"),
    )  # fmt: skip
    assert files(mirror) == ["a.yaml"]
    assert {address for address, _ in proxy.connects} == {f"127.0.0.1:{host.port}"}
    assert {given for _, given in proxy.connects} <= {"", basic("me@corp", "pr:oxy/p@ss")}
    assert {given for _, _, given in host.requests} == {"", basic(USER, PASSWORD)}


def test_d08_a_proxy_that_refuses_or_is_not_there_is_named(repository, host, secret, authority, proxy):
    """What is wrong is said of the proxy, not of the repository."""
    proxy.credentials = ("me", "right")
    access = {"token": secret("t", "x"), "ca_file": str(authority.certificate)}
    with pytest.raises(AccessDenied, match=r"the proxy refuses; proxy\.usernameFile"):
        repository(host.url("origin"), proxy=proxy.url, **access).sync()
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1 port 1"):
        repository(host.url("origin"), proxy="http://127.0.0.1:1", **access).sync()


# --- ssh ---


def test_d07_ssh_with_key_and_known_hosts(repository, ssh_server, origin):
    """Only the source's key and the source's known hosts are used, whatever the user has."""
    mirror = repository(
        ssh_server.url(origin.folder), ssh_key_file=str(ssh_server.identity),
        known_hosts_file=str(ssh_server.known_hosts),
    )  # fmt: skip
    assert files(mirror) == ["a.yaml"]
    commit = origin.commit({"b.yaml": config_map("b")})
    assert mirror.sync() == commit


def test_d07_ssh_with_a_key_in_an_environment_variable(repository, ssh_server, origin, monkeypatch):
    """The key is read anew at each look, is on no disk, and one that is not set is said to be."""
    commit = origin.commit({"a.yaml": "a: 1\n"})
    source = repository(
        ssh_server.url(origin.folder), ssh_key_variable="SHOP_KEY", known_hosts_file=str(ssh_server.known_hosts)
    )
    with pytest.raises(AccessDenied, match="environment variable SHOP_KEY is not set"):
        source.sync()

    monkeypatch.setenv("SHOP_KEY", ssh_server.identity.read_text())
    assert source.sync() == commit
    later = origin.commit({"a.yaml": "a: 2\n"})
    assert source.sync() == later


def test_d07_ssh_files_in_folders_with_awkward_names(repository, ssh_server, origin, tmp_path):
    """Spaces, quotes and percent signs are part of a path and nothing else."""
    folder = tmp_path / "a %h \"b\" 'c' $HOME"
    folder.mkdir()
    for file in (ssh_server.identity, ssh_server.known_hosts):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o600)
    mirror = repository(
        ssh_server.url(origin.folder), ssh_key_file=str(folder / "identity"),
        known_hosts_file=str(folder / "known_hosts"),
    )  # fmt: skip
    assert files(mirror) == ["a.yaml"]


@pytest.mark.parametrize(
    ("breaking", "error", "words"),
    [
        ("unknown host", RemoteUntrusted, "the host's key is not in auth.knownHostsFile"),
        ("other host key", RemoteUntrusted, "or another one is"),
        ("no known hosts", AccessDenied, "auth.knownHostsFile: file"),
        ("empty known hosts", AccessDenied, "is empty"),
        ("other key", AccessDenied, "the host does not take the key of auth.sshKeyFile"),
        ("no key", AccessDenied, "auth.sshKeyFile: file"),
        ("open key", AccessDenied, "has mode 0644: ssh takes no key that others may read; chmod 600 it"),
        ("port", Unreachable, "Connection refused"),
        ("path", NotARepository, "does not appear to be a git repository"),
    ],
)
def test_d08_what_is_wrong_with_the_way_over_ssh_is_said(
    repository, ssh_server, origin, tmp_path, breaking, error, words
):
    """An unknown host is refused, never asked about or remembered."""
    known_hosts, key = tmp_path / "known_hosts", tmp_path / "key"
    known_hosts.write_text(ssh_server.known_hosts.read_text())
    key.write_bytes(ssh_server.identity.read_bytes())
    key.chmod(0o600)
    address = ssh_server.url(origin.folder)
    match breaking:
        case "unknown host":
            known_hosts.write_text(known_hosts.read_text().replace(str(ssh_server.port), "1"))
        case "other host key":
            public = keypair(tmp_path / "other").with_suffix(".pub").read_text()
            known_hosts.write_text(f"[127.0.0.1]:{ssh_server.port} {public}")
        case "no known hosts":
            known_hosts.unlink()
        case "empty known hosts":
            known_hosts.write_text("")
        case "other key":
            key.write_bytes(keypair(tmp_path / "other").read_bytes())
        case "no key":
            key.unlink()
        case "open key":
            key.chmod(0o644)
        case "port":
            address = address.replace(f":{ssh_server.port}", ":1")
            known_hosts.write_text(known_hosts.read_text().replace(str(ssh_server.port), "1"))
        case "path":
            address += "/nowhere"
    before = known_hosts.read_text() if known_hosts.exists() else ""
    with pytest.raises(error) as caught:
        repository(address, ssh_key_file=str(key), known_hosts_file=str(known_hosts)).sync()
    assert words in str(caught.value)
    assert type(caught.value) is error
    assert (known_hosts.read_text() if known_hosts.exists() else "") == before


def test_d08_a_revoked_key_is_refused_at_the_next_look(ssh_server, repository, origin, tmp_path):
    """What was fetched before stays."""
    mirror = repository(
        ssh_server.url(origin.folder), ssh_key_file=str(ssh_server.identity),
        known_hosts_file=str(ssh_server.known_hosts),
    )  # fmt: skip
    mirror.keep(mirror.sync(), {})
    keys = ssh_server.authorized.read_bytes()
    ssh_server.authorized.write_bytes(keypair(tmp_path / "other").with_suffix(".pub").read_bytes())
    try:
        with pytest.raises(AccessDenied, match="Permission denied"):
            mirror.sync()
    finally:
        ssh_server.authorized.write_bytes(keys)
    assert mirror.good() == mirror.sync()
