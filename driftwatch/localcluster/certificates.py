"""Creates the cluster's certificates and keys on first start, and renews them before they expire.

There are two certificate authorities, one for the Kubernetes API and one for etcd, so that no API client can read
etcd directly.
"""

import datetime as dt
import ipaddress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from driftwatch.files import write_private

SERVICE_IP_RANGE = "10.0.0.0/24"
_SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
# The last address is the service `kubernetes`: the first address of the service range.
_SERVER_ADDRESSES = ("127.0.0.1", "::1", "10.0.0.1")

_AUTHORITY_LIFE = dt.timedelta(days=3650)
_LEAF_LIFE = dt.timedelta(days=365)  # as kubeadm does
_RENEW_BEFORE = dt.timedelta(days=30)
# After a suspend, a machine's clock may be behind.
_BACKDATE = dt.timedelta(hours=1)


@dataclass(frozen=True)
class _Leaf:
    """Parameters of one leaf certificate."""

    name: str
    authority: str
    user: str
    group: str | None = None
    serves: bool = False


_LEAVES = (
    _Leaf("apiserver", "ca", "kube-apiserver", serves=True),
    _Leaf("controller-manager-serving", "ca", "kube-controller-manager", serves=True),
    _Leaf("admin", "ca", "driftwatch-admin", "system:masters"),
    _Leaf("controller-manager", "ca", "system:kube-controller-manager"),
    _Leaf("etcd", "etcd-ca", "etcd", serves=True),
    _Leaf("apiserver-etcd-client", "etcd-ca", "kube-apiserver"),
)


class Pki:
    """The directory of certificates (`NAME.crt`) and keys (`NAME.key`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def certificate(self, name: str) -> Path:
        """Path of the certificate called `name`."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Path of the private key called `name`."""
        return self.folder / f"{name}.key"

    @cached_property
    def service_account_public_key(self) -> Path:
        """Path of the public key that verifies service account tokens."""
        return self.folder / "service-account.pub"

    def ensure(self, now: dt.datetime) -> None:
        """Create what is missing or expires within a month of `now`; leave the rest unchanged.

        The key that signs service account tokens is never renewed, because tokens signed with it are in use.
        """
        stale_authorities = {name for name in ("ca", "etcd-ca") if not self._is_fresh(name, now)}
        for name in stale_authorities:
            self._make_authority(name, now)
        for leaf in _LEAVES:
            if leaf.authority in stale_authorities or not self._is_fresh(leaf.name, now):
                self._make_leaf(leaf, now)
        if not self.service_account_public_key.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_private(self.key("service-account"), _key_pem(key))
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            write_private(self.service_account_public_key, public)

    def _is_fresh(self, name: str, now: dt.datetime) -> bool:
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate(name).read_bytes())
        except (OSError, ValueError):
            return False
        return self.key(name).exists() and now < certificate.not_valid_after_utc - _RENEW_BEFORE

    def _make_authority(self, name: str, now: dt.datetime) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"driftwatch-local-{name}")])
        builder = (
            _builder(subject, subject, key, now, _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        self._write(name, key, builder.sign(key, hashes.SHA256()))

    def _make_leaf(self, leaf: _Leaf, now: dt.datetime) -> None:
        authority = x509.load_pem_x509_certificate(self.certificate(leaf.authority).read_bytes())
        signer = serialization.load_pem_private_key(self.key(leaf.authority).read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - we made it
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.user)]
        if leaf.group:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.group))
        # etcd is also a client: its gRPC gateway connects to its own port.
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if leaf.serves:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        issuer_key = signer.public_key()
        builder = (
            _builder(x509.Name(attributes), authority.subject, key, now, _LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        if leaf.serves:
            names: list[x509.GeneralName] = [x509.DNSName(name) for name in _SERVER_NAMES]
            names += [x509.IPAddress(ipaddress.ip_address(address)) for address in _SERVER_ADDRESSES]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._write(leaf.name, key, builder.sign(signer, hashes.SHA256()))

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        write_private(self.key(name), _key_pem(key))
        write_private(self.certificate(name), certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    life: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
