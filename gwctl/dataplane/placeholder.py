"""Certificates that are never served: HAProxy or its Data Plane API want one where there is none yet.

Nobody trusts them and nothing depends on what is in them, so each installation makes its own.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ecdsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gwctl.api.sensitive import Sensitive
from gwctl.haproxy.names import PLACEHOLDER_HOST

_START = datetime(2000, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, tzinfo=UTC)


def make_placeholder() -> Sensitive:
    """Make what every crt-list begins with. Its key is of a kind that HAProxy serves only where there is no other."""
    key = Ed25519PrivateKey.generate()
    certificate = _builder().public_key(key.public_key()).sign(key, None)
    return _pem(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def make_marker() -> Sensitive:
    """Make a certificate that the Data Plane API stores, so that it tells where it stores certificates."""
    key = generate_ecdsa(SECP256R1())
    certificate = _builder().public_key(key.public_key()).sign(key, SHA256())
    return _pem(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def make_key() -> Sensitive:
    """Make a private key that no certificate is for."""
    key = generate_ecdsa(SECP256R1())
    return Sensitive(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _builder() -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, PLACEHOLDER_HOST)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_START)
        .not_valid_after(_END)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(PLACEHOLDER_HOST)]), critical=False)
    )


def _pem(certificate: x509.Certificate, key: bytes) -> Sensitive:
    return Sensitive((certificate.public_bytes(Encoding.PEM) + key).decode())
