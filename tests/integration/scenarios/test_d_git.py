"""Git on real hosts, as an operator meets it: pushes are applied at once, and healing goes on whatever Git does."""

import hashlib
import hmac
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.git_http import GitHost, serving
from tests.support.live import Live, Manifest
from tests.support.manifests import config_map, namespace_of
from tests.support.scene import NewDaemon
from tests.support.signing import SshKey

RESTART = 60.0  # seconds that a start may take on a busy machine
SECRET, TOKEN = "hook-s3cr3t", "t0ken-s3cr3t"


def _is_healed(daemon: Daemon, live: Live, declared: Manifest) -> None:
    """Delete the object, and wait until it is back."""
    uid = live.uid(declared)
    live.request("DELETE", live.path(declared))
    daemon.wait(lambda: live.uid(declared) not in ("", uid), f"{declared['metadata']['name']} is back")


def _push(daemon: Daemon, body: dict[str, Any], secret: str = SECRET) -> tuple[int, str]:
    """Tell the daemon of a push as GitHub does."""
    data = json.dumps(body).encode()
    signature = hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()
    address = daemon.events("listening")[-1]["address"]
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature}"}
    answer = urllib3.request("POST", f"http://{address}/hooks/{daemon.source}", body=data, headers=headers)
    return answer.status, answer.data.decode()


def test_d10_a_push_is_applied_without_waiting_for_the_interval(
    new_daemon: NewDaemon, live: Live, namespace: str, tmp_path: Path
) -> None:
    """The interval is an hour; a push to the branch is applied, one with a wrong signature or elsewhere is not."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    daemon = new_daemon(options={"interval": "1h", "webhook": {"secretFile": str(tmp_path / "secret")}})
    daemon.commit({"all.yaml": [namespace_of(namespace), config_map("settings", namespace)]})
    daemon.start()
    added = config_map("added", namespace)
    daemon.commit({"added.yaml": added})
    main = {"ref": "refs/heads/main", "repository": {"default_branch": "main"}}

    assert _push(daemon, main, "wrong") == (401, "refused\n")
    assert _push(daemon, {**main, "ref": "refs/heads/other"}) == (202, "ignored: refs/heads/other is not HEAD\n")
    assert live.uid(added) == ""
    assert _push(daemon, main) == (202, "the repository is looked at\n")

    daemon.wait_in_sync(added)
    counted = {result: daemon.metric("driftwatch_webhooks_total", result=result) for result in ("refused", "polled")}
    assert counted == {"refused": 1, "polled": 1}
    assert SECRET not in daemon.text()


def test_d09_with_signatures_required_the_last_signed_commit_stays_in_force(
    new_daemon: NewDaemon, live: Live, namespace: str, tmp_path: Path
) -> None:
    """An unsigned commit changes nothing and is said; healing goes on by the signed one, after a restart too."""
    ann = SshKey(tmp_path / "ann")
    (tmp_path / "signers").write_text(ann.signer)
    daemon = new_daemon(options={"verify": {"sshAllowedSignersFile": str(tmp_path / "signers")}})
    settings = config_map("settings", namespace)
    daemon.repository._git("config", "gpg.format", "ssh")
    daemon.repository._git("config", "user.signingKey", f"{tmp_path / 'ann'}.pub")
    daemon.repository._git("config", "commit.gpgSign", "true")
    signed = daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)

    daemon.repository._git("config", "commit.gpgSign", "false")
    evil = config_map("evil", namespace)
    unsigned = daemon.commit({"evil.yaml": evil, "all.yaml": [namespace_of(namespace)]})

    line = daemon.wait(lambda: daemon.events("source cannot be read", reason="signature"), "the commit is refused")[0]
    assert f"commit {unsigned[:12]} is refused: it is not signed" in line["error"]
    assert line["next"] == f"commit {signed[:12]} stays in force"
    assert daemon.metric("driftwatch_git_failures_total", source=daemon.source, reason="signature") >= 1
    _is_healed(daemon, live, settings)
    daemon.stop()
    live.request("DELETE", live.path(settings))
    daemon.start(ready=False)
    daemon.wait(lambda: live.uid(settings), "settings is back after the restart", timeout=RESTART)
    assert live.uid(evil) == ""


def test_d08_the_first_start_waits_for_a_host_that_is_away(new_daemon: NewDaemon, namespace: str) -> None:
    """With nothing on disk there is nothing to begin with; readiness names the host until it answers."""
    daemon = new_daemon()
    host = GitHost(daemon.folder)
    address = host.url("git")
    daemon.configuration["sources"][0]["repository"] = address
    settings = config_map("settings", namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    host.answer = 503
    with serving(host.server):
        daemon.start(ready=False)
        line = daemon.wait(lambda: daemon.events("source cannot be read")[1:], "it is tried again")[0]
        code, words = daemon.get("/readyz")
        host.answer = 0
        daemon.wait_in_sync(settings)
        daemon.wait(lambda: daemon.get("/readyz")[0] == 200, "the daemon is ready")

    assert line["reason"] == "unreachable"
    assert line["next"] == "nothing of this source is healed until it can be read"
    assert code == 503
    assert f"source {daemon.source}: " in words
    assert address in words


def test_d08_revoked_credentials_and_a_vanished_host_stop_no_healing(
    new_daemon: NewDaemon, live: Live, namespace: str, tmp_path: Path
) -> None:
    """Over https with a token, authority and all; then the token is revoked, the host goes, the daemon restarts."""
    authority = Authority(tmp_path / "ca")
    (tmp_path / "token").write_text(TOKEN)
    daemon = new_daemon()
    host = GitHost(daemon.folder, authority.server_context)
    host.credentials = ("x-access-token", TOKEN)
    daemon.configuration["sources"][0] |= {
        "repository": host.url("git"),
        "auth": {"tokenFile": str(tmp_path / "token")},
        "caFile": str(authority.certificate),
    }
    settings = config_map("settings", namespace)
    daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    with serving(host.server):
        daemon.start()
        daemon.wait_in_sync(settings)
        host.credentials = ("x-access-token", "another")
        line = daemon.wait(lambda: daemon.events("source cannot be read", reason="credentials"), "it is refused")[0]
        assert "the credentials are wrong, expired, or may not read this repository" in line["error"]
        _is_healed(daemon, live, settings)
        host.credentials = ("x-access-token", "t0ken-renewed")
        (tmp_path / "token").write_text("t0ken-renewed")
        added = config_map("added", namespace)
        daemon.commit({"added.yaml": added})
        daemon.wait_in_sync(added)
    daemon.wait(lambda: daemon.events("source cannot be read", reason="unreachable"), "the host is gone")
    _is_healed(daemon, live, settings)
    daemon.stop()
    live.request("DELETE", live.path(settings))
    daemon.start(ready=False)
    daemon.wait(lambda: live.uid(settings), "settings is back after a restart without Git", timeout=RESTART)
    daemon.wait(lambda: daemon.metric("driftwatch_git_failures_total", reason="unreachable"), "the failure is counted")
    _, metrics = daemon.get("/metrics")
    for secret in (TOKEN, "t0ken-renewed"):
        assert secret not in daemon.text() + metrics
        kept = [file for file in (daemon.folder / "state").rglob("*") if file.is_file()]
        assert kept, "the mirror is there"
        assert not [file for file in kept if secret.encode() in file.read_bytes()]


@pytest.mark.parametrize("away", ["gone", "corrupt"])
def test_d08_a_repository_or_mirror_that_breaks_stops_no_healing(
    new_daemon: NewDaemon, live: Live, namespace: str, away: str
) -> None:
    """One line for each look that fails, with what happens next; pauses between them grow."""
    daemon = new_daemon()
    settings = config_map("settings", namespace)
    commit = daemon.commit({"all.yaml": [namespace_of(namespace), settings]})
    daemon.start()
    daemon.wait_in_sync(settings)
    if away == "gone":
        daemon.repository.folder.rename(daemon.repository.folder.with_name("elsewhere"))
        line = daemon.wait(lambda: daemon.events("source cannot be read", reason="repository"), "it is gone")[0]
        assert line["next"] == f"commit {commit[:12]} stays in force"
        _is_healed(daemon, live, settings)
        daemon.repository.folder.with_name("elsewhere").rename(daemon.repository.folder)
    else:
        (mirror,) = (daemon.folder / "state").glob("*/mirrors/*")
        shutil.rmtree(mirror / "objects")
        _is_healed(daemon, live, settings)
    added = config_map("added", namespace)
    daemon.commit({"added.yaml": added})
    daemon.wait_in_sync(added)


def test_d07_the_highest_version_in_the_range_is_in_force(new_daemon: NewDaemon, namespace: str) -> None:
    """A new tag in the range is applied, one beyond it and a pre-release are not."""
    daemon = new_daemon(options={"semver": ">=1.2 <2"})

    def tag(name: str, value: str) -> Manifest:
        declared = config_map("settings", namespace, version=value)
        daemon.commit({"all.yaml": [namespace_of(namespace), declared]})
        daemon.repository._git("tag", name)
        return declared

    tag("v1.2.0", "one")
    tag("v2.0.0", "two")
    daemon.start()
    newer = tag("v1.10.0", "three")
    daemon.wait_in_sync(newer)
    tag("v1.11.0-rc.1", "four")
    tag("v2.1.0", "five")
    last = tag("v1.10.1", "six")
    daemon.wait_in_sync(last)
    assert len(daemon.events("snapshot")) == 3
