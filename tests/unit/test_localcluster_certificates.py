"""The certificates of a local cluster: private, valid for what they are used for, renewed in time."""

import datetime as dt
import stat

import pytest
from cryptography import x509
from driftwatch.localcluster.certificates import Pki

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def pki(tmp_path):
    pki = Pki(tmp_path)
    pki.ensure(NOW)
    return pki


def contents(pki):
    return {path.name: path.read_bytes() for path in pki.folder.iterdir()}


def load(pki, name):
    return x509.load_pem_x509_certificate(pki.certificate(name).read_bytes())


def test_all_files_are_private(pki):
    """Keys, and all that lies beside them, are for their owner only."""
    assert {stat.S_IMODE(path.stat().st_mode) for path in pki.folder.iterdir()} == {0o600}


def test_serving_certificate_names_the_server(pki):
    """Clients reach the API by loopback addresses, by name, and as pods would by the service."""
    names = load(pki, "apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value

    assert {"localhost", "kubernetes.default.svc"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1", "10.0.0.1"} == {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}


@pytest.mark.parametrize(
    ("name", "authority"),
    [("admin", "ca"), ("apiserver", "ca"), ("etcd", "etcd-ca"), ("apiserver-etcd-client", "etcd-ca")],
)
def test_certificates_come_from_their_authority(pki, name, authority):
    """The store has an authority of its own."""
    load(pki, name).verify_directly_issued_by(load(pki, authority))


def test_nothing_is_renewed_without_need(pki):
    """A cluster that is resumed the next day has the same certificates, so kubeconfigs that were copied still work."""
    before = contents(pki)

    pki.ensure(NOW + dt.timedelta(days=1))

    assert contents(pki) == before


def test_leaves_are_renewed_before_they_expire(pki):
    """A cluster that is resumed after most of a year gets new certificates of the same authorities."""
    before = contents(pki)
    later = NOW + dt.timedelta(days=340)

    pki.ensure(later)

    changed = {name for name, content in contents(pki).items() if content != before[name]}
    assert "admin.crt" in changed
    assert not changed & {"ca.crt", "etcd-ca.crt", "service-account.key", "service-account.pub"}
    assert load(pki, "admin").not_valid_after_utc > later + dt.timedelta(days=300)


def test_renewed_authority_renews_what_it_signed(pki):
    """After ten years nothing is trusted that the old authority signed."""
    pki.ensure(NOW + dt.timedelta(days=3640))

    load(pki, "admin").verify_directly_issued_by(load(pki, "ca"))


def test_damaged_certificate_is_made_again(pki):
    """A file that was cut short does not need a person to remove it."""
    pki.certificate("admin").write_bytes(b"-----BEGIN")

    pki.ensure(NOW)

    load(pki, "admin").verify_directly_issued_by(load(pki, "ca"))
