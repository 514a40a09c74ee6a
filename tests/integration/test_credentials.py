"""Credentials that rotate while a session is open: no restart, no request that fails for it."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import yaml
from driftwatch.cluster import credentials
from driftwatch.cluster.errors import ApiError, Unreachable
from driftwatch.cluster.session import Session
from driftwatch.localcluster import LocalCluster
from driftwatch.localcluster.certificates import Pki
from driftwatch.localcluster.layout import Layout

from tests.support.account import Account
from tests.support.kubectl import Kubectl

WHO_AM_I = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
REFUSED = "not.a.token"


@pytest.fixture
def account(kubectl: Kubectl, tmp_path: Path, namespace: str) -> Iterator[Account]:
    """A service account that may do nothing but what everybody may."""
    kubectl("create", "namespace", namespace)
    kubectl("create", "serviceaccount", "driftwatch", "-n", namespace)
    yield Account(kubectl, tmp_path, namespace)
    kubectl("delete", "namespace", namespace, "--wait=false")


def _files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def _ask(session: Session) -> int:
    return (await session.request("GET", session.url("/apis"))).code


async def test_f01_replaced_token_of_a_kubeconfig_is_taken_after_a_refusal(account: Account) -> None:
    """A token that has ended is read again from its file at once, and the requests are sent again."""
    account.put(REFUSED)
    session = await Session.open(str(account.kubeconfig))
    try:
        account.rotate()

        assert await asyncio.gather(*(_ask(session) for _ in range(8))) == [200] * 8
    finally:
        await session.close()


async def test_f01_refusal_without_a_new_token_is_told(account: Account) -> None:
    """Where the file has nothing new, the API server's refusal is the answer; a later token helps without a restart."""
    account.put(REFUSED)
    session = await Session.open(str(account.kubeconfig))
    try:
        with pytest.raises(ApiError) as refusal:
            await _ask(session)
        assert refusal.value.code == 401

        account.rotate()
        assert await _ask(session) == 200
    finally:
        await session.close()


async def test_f01_token_file_is_looked_at_every_minute(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is replaced before it ends; one that cannot be read leaves the last one in force, and is told once."""
    session = await Session.open(str(account.kubeconfig))
    monkeypatch.setattr(credentials, "REFRESH", 0.0)
    try:
        account.token_file.unlink()
        with structlog.testing.capture_logs() as logs:
            assert [await _ask(session), await _ask(session)] == [200, 200]
        (said,) = [line for line in logs if line["event"] == "token file cannot be read"]
        assert (said["file"], said["next"]) == (str(account.token_file), "the last token is used")

        account.put(REFUSED)
        with pytest.raises(ApiError):
            await _ask(session)
        account.rotate()
        assert await _ask(session) == 200
    finally:
        await session.close()


async def test_in_cluster_credentials_are_a_pods_files(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Host and port from the environment, CA and token from the files, with or without a newline at its end."""
    host, port = account.server.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(credentials.incluster_config, "SERVICE_TOKEN_FILENAME", str(account.token_file))
    monkeypatch.setattr(credentials.incluster_config, "SERVICE_CERT_FILENAME", str(account.certificate_file))
    account.put(account.rotate() + "\n")

    session = await Session.open()
    try:
        answer = await session.request(
            "POST",
            session.url(WHO_AM_I),
            body=b'{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}',
            headers={"Content-Type": "application/json"},
        )
        assert account.user.encode() in answer.body
    finally:
        await session.close()


async def test_keys_within_a_kubeconfig_leave_no_copies(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL reads keys from files: such copies are gone when the session is open, and the next one opens as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(credentials, "REFRESH", 0.0)
    for _ in range(2):
        session = await Session.open(str(cluster.kubeconfig))
        try:
            assert _files_in(tmp_path) == []
            with structlog.testing.capture_logs() as logs:
                assert [await _ask(session), await _ask(session)] == [200, 200]
            assert logs == []
        finally:
            await session.close()


async def test_replaced_authority_is_trusted_by_new_connections(
    cluster: LocalCluster, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the cluster's CA is read again when it changes, as after the CA was replaced."""
    pki = Pki(Layout(cluster.directory).pki)
    authority = account.certificate_file
    good = authority.read_bytes()
    authority.write_bytes(pki.certificate("etcd-ca").read_bytes())
    document = yaml.safe_load(account.kubeconfig.read_text())
    del document["clusters"][0]["cluster"]["certificate-authority-data"]
    document["clusters"][0]["cluster"]["certificate-authority"] = str(authority)
    account.kubeconfig.write_text(yaml.safe_dump(document))
    monkeypatch.setattr(credentials, "REFRESH", 0.0)
    session = await Session.open(str(account.kubeconfig))
    try:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await _ask(session)

        authority.write_bytes(good)
        os.utime(authority, ns=(1, 1))

        assert await _ask(session) == 200
    finally:
        await session.close()
