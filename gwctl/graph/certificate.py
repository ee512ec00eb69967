"""A TLS Secret in; out comes a certificate that HAProxy can serve, or what is wrong with it.

Whatever HAProxy would refuse is refused here, so that one bad Secret never reaches it. The surprising facts: what is
served is written anew from what was understood, so nothing else that a file holds gets through; and the parts of an RSA
key are checked by arithmetic, because OpenSSL's own check takes long enough for routes to wait.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from math import gcd
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gwctl.api.secret import CERTIFICATE_KEY, PRIVATE_KEY_KEY, TLS_TYPE, Secret
from gwctl.api.sensitive import Sensitive
from gwctl.api.wire import HOSTNAME_PATTERN
from gwctl.graph.node import Certificate

PEM_LIMIT = 14_000
"""Longest certificate with chain and key, in bytes of PEM: HAProxy takes it as one command of at most a buffer."""

_SMALLEST_RSA = 2048
_LARGEST_RSA = 8192
_CURVES = (SECP256R1, SECP384R1, SECP521R1)
_WEAK_HASHES = frozenset({"md5", "sha1"})
_HOSTNAME = re.compile(HOSTNAME_PATTERN[1:-1])
_IDENTITY_BYTES = 16


class _Pair(NamedTuple):
    identity: str
    algorithm: Literal["rsa", "ecdsa"]
    hostnames: tuple[str, ...]
    not_before: int
    not_after: int
    pem: Sensitive


def read_certificate(secret: Secret) -> Certificate | str:
    """Give the certificate of a Secret, or say why it cannot be served. Whether it is valid by now is not asked."""
    if secret.type != TLS_TYPE:
        return f"has the type {secret.type!r}, not {TLS_TYPE!r}"
    contents = [secret.content(key) for key in (CERTIFICATE_KEY, PRIVATE_KEY_KEY)]
    for key, content in zip((CERTIFICATE_KEY, PRIVATE_KEY_KEY), contents, strict=True):
        if content is None or not content.reveal().strip():
            return f"has no {key}"
    chain, private_key = contents
    assert chain is not None and private_key is not None
    pair = _read_pair(chain, private_key)
    return pair if isinstance(pair, str) else Certificate(secret.ref, *pair)


@lru_cache(maxsize=4096)
def _read_pair(chain_text: Sensitive, key_text: Sensitive) -> _Pair | str:
    try:
        chain = x509.load_pem_x509_certificates(chain_text.reveal().encode("latin-1"))
    except ValueError:
        return f"{CERTIFICATE_KEY} holds no certificate in PEM"
    key = _read_key(key_text)
    if isinstance(key, str):
        return f"{PRIVATE_KEY_KEY} {key}"
    leaf = chain[0]
    try:
        fits = _public_bytes(leaf) == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        wrong = next(filter(None, map(_find_weakness, chain)), None)
        hostnames = _read_hostnames(leaf)
    except (ValueError, UnsupportedAlgorithm):
        return f"{CERTIFICATE_KEY} holds a certificate that is not understood"
    if not fits:
        return f"{PRIVATE_KEY_KEY} is not the key of the first certificate in {CERTIFICATE_KEY}"
    if wrong is not None:
        return f"{CERTIFICATE_KEY} holds a certificate {wrong}"
    # Clients have the root themselves.
    served = [leaf, *(item for item in chain[1:] if item.issuer != item.subject)]
    pem = "".join(item.public_bytes(Encoding.PEM).decode() for item in served)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    if len(pem) > PEM_LIMIT:
        return f"is longer than {PEM_LIMIT} bytes with its chain and key, which is all that HAProxy takes"
    return _Pair(
        _identify(served),
        "rsa" if isinstance(key, RSAPrivateKey) else "ecdsa",
        hostnames,
        int(leaf.not_valid_before_utc.timestamp()),
        int(leaf.not_valid_after_utc.timestamp()),
        Sensitive(pem),
    )


def _read_key(text: Sensitive) -> RSAPrivateKey | EllipticCurvePrivateKey | str:
    data = text.reveal().encode("latin-1")
    try:
        key = load_pem_private_key(data, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return "is encrypted with a password"
    except (ValueError, UnsupportedAlgorithm):
        return "holds no private key in PEM that is understood"
    if isinstance(key, RSAPrivateKey):
        if not _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA:
            return f"has {key.key_size} bits; RSA keys must have {_SMALLEST_RSA} to {_LARGEST_RSA}"
        return key if _is_sound(key) else "is an RSA key whose parts do not fit each other"
    if isinstance(key, EllipticCurvePrivateKey):
        return key if isinstance(key.curve, _CURVES) else f"is of the curve {key.curve.name}; use P-256, P-384 or P-521"
    return "is neither an RSA nor an ECDSA key"


def _is_sound(key: RSAPrivateKey) -> bool:
    """Tell whether an RSA key can sign: its numbers fit, and its primes are no composites that anyone has by chance."""
    numbers = key.private_numbers()
    p, q, d = numbers.p, numbers.q, numbers.d
    public = numbers.public_numbers
    return (
        p > 2
        and q > 2
        and p % 2 == q % 2 == 1
        and p * q == public.n
        and public.e * d % ((p - 1) * (q - 1) // gcd(p - 1, q - 1)) == 1
        and (numbers.dmp1, numbers.dmq1) == (d % (p - 1), d % (q - 1))
        and numbers.iqmp * q % p == 1
        and pow(2, p - 1, p) == pow(2, q - 1, q) == 1
    )


def _find_weakness(certificate: x509.Certificate) -> str | None:
    """Say for what of a certificate HAProxy's TLS library would refuse it."""
    public = certificate.public_key()
    if isinstance(public, RSAPublicKey) and public.key_size < _SMALLEST_RSA:
        return f"whose RSA key has {public.key_size} bits, fewer than {_SMALLEST_RSA}"
    algorithm = certificate.signature_hash_algorithm
    is_root = certificate.issuer == certificate.subject
    if algorithm is not None and algorithm.name in _WEAK_HASHES and not is_root:
        return f"that is signed with {algorithm.name.upper()}, which TLS no longer takes"
    return None


def _read_hostnames(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    found = (name.lower() for name in names.get_values_for_type(x509.DNSName))
    return tuple(dict.fromkeys(name for name in found if _HOSTNAME.fullmatch(name) and len(name) <= 253))


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _identify(certificates: Iterable[x509.Certificate]) -> str:
    digest = hashlib.blake2b(digest_size=_IDENTITY_BYTES)
    for certificate in certificates:
        digest.update(certificate.public_bytes(Encoding.DER))
    return digest.hexdigest()
