"""Certificates for tests, made here so that no private key is in any file of the project.

An ECDSA pair is the same each time that it is asked for, key and signature included, so that its identity may be
expected; an RSA key is another in each run.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Algorithm = Literal["ecdsa", "rsa", "rsa-1024", "ed25519", "secp256k1"]

START = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2126, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Pair:
    """A certificate, alone or followed by its chain, and its key; all in PEM."""

    certificate: str
    key: str

    @property
    def der(self) -> bytes:
        """The certificate alone, as a handshake shows it."""
        return x509.load_pem_x509_certificate(self.certificate.encode()).public_bytes(Encoding.DER)

    def secret(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """A Secret that holds the pair."""
        return tls_secret(name, self.certificate, self.key, namespace)


def tls_secret(name: str, certificate: str, key: str, namespace: str = "default") -> dict[str, Any]:
    """A Secret of type kubernetes.io/tls."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": _base64(certificate), "tls.key": _base64(key)},
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@cache
def make_pair(
    *hostnames: str,
    serial: int = 1,
    algorithm: Algorithm = "ecdsa",
    start: datetime = START,
    end: datetime = END,
    issuer: str = "",
    signer: Algorithm = "ecdsa",
) -> Pair:
    """Make a certificate for host names and IP addresses; those of another ``serial`` have another key.

    It is signed by itself, or by an authority that is named ``issuer`` and can be had with `make_authority`; the key of
    that is ECDSA unless ``signer`` says otherwise.
    """
    key = _make_key(algorithm, f"{' '.join(hostnames)} {serial}")
    own = _make_key(signer, issuer) if issuer else key
    builder = _start(hostnames[0] if hostnames else "test", issuer, key, serial, start, end)
    if hostnames:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in hostnames]), False)
    return Pair(_sign(builder, own), _key_pem(key))


@cache
def make_authority(name: str, issuer: str = "") -> str:
    """Make the certificate of an authority, signed by itself or by another."""
    key = _make_key("ecdsa", name)
    builder = _start(name, issuer, key, 1, START, END)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    return _sign(builder, _make_key("ecdsa", issuer) if issuer else key)


def make_odd_authority(name: str) -> str:
    """Make the certificate of an authority with a key that gwctl takes in a chain and HAProxy does not."""
    builder = _start(name, "root", dsa.generate_private_key(1024), 1, START, END)
    return _sign(builder, _make_key("ecdsa", "root"))


def weaken(certificate: str) -> str:
    """Make a certificate that is signed with RSA and SHA-256 claim SHA-1, which nothing can sign with any more."""
    der = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(Encoding.DER)
    weak = der.replace(bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105"))
    return x509.load_der_x509_certificate(weak).public_bytes(Encoding.PEM).decode()


def _start(
    subject: str, issuer: str, key: Key | dsa.DSAPrivateKey, serial: int, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer or subject))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _sign(builder: x509.CertificateBuilder, key: Key) -> str:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return builder.sign(key, None).public_bytes(Encoding.PEM).decode()
    is_ec = isinstance(key, ec.EllipticCurvePrivateKey)
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True if is_ec else None)
    return signed.public_bytes(Encoding.PEM).decode()


def _make_key(algorithm: Algorithm, name: str) -> Key:
    seed = hashlib.sha256(name.encode()).digest()
    match algorithm:
        case "ecdsa":
            return ec.derive_private_key(int.from_bytes(seed, "big") >> 1, ec.SECP256R1())
        case "secp256k1":
            return ec.derive_private_key(int.from_bytes(seed, "big") >> 1, ec.SECP256K1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        case "rsa" | "rsa-1024":
            return _make_rsa_key(1024 if algorithm == "rsa-1024" else 2048, name)


@cache
def _make_rsa_key(bits: int, name: str) -> rsa.RSAPrivateKey:  # noqa: ARG001 (another name has another key)
    return rsa.generate_private_key(65537, bits)


KEYS_MADE: list[str] = []
"""All private keys that were made so far, in PEM, so that what gwctl tells can be searched for them."""


def _key_pem(key: Key) -> str:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    KEYS_MADE.append(pem)
    return pem


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
