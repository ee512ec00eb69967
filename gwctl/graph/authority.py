"""A ConfigMap in; out come the certificate authorities that it holds in ``ca.crt``, or what is wrong with them.

What HAProxy gets is written anew from what was understood. The surprising fact: whether an authority has expired is not
asked here, because HAProxy asks at every handshake; nor whether it is one, so that a self-signed certificate can be
trusted for itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from gwctl.api.configmap import CA_KEY, ConfigMap
from gwctl.graph.node import Authorities

AUTHORITIES_LIMIT = 120_000
"""Longest set of authorities, in bytes of PEM: HAProxy takes 131,072 in one command (tune.cli.max-payload-size)."""

_SMALLEST_RSA = 2048
_IDENTITY_BYTES = 16
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def read_authorities(config_map: ConfigMap) -> tuple[str, ...] | str:
    """Give the authorities of a ConfigMap, each in PEM, or say why there are none."""
    text = config_map.data.get(CA_KEY, "")
    if not text.strip():
        return f"has {CA_KEY} in binaryData, not in data" if CA_KEY in config_map.binary_data else f"has no {CA_KEY}"
    return _read(text)


@lru_cache(maxsize=1024)
def _read(text: str) -> tuple[str, ...] | str:
    blocks = _CERTIFICATE.findall(text)
    if not blocks:
        return f"{CA_KEY} holds no certificate in PEM"
    found: list[str] = []
    for number, block in enumerate(blocks, 1):
        try:
            certificate = x509.load_pem_x509_certificate(block.encode())
            wrong = _find_weakness(certificate)
            len(certificate.extensions)
        except (ValueError, UnsupportedAlgorithm):
            return f"{CA_KEY}: certificate {number} is not understood"
        if wrong is not None:
            return f"{CA_KEY}: certificate {number} {wrong}"
        found.append(certificate.public_bytes(Encoding.PEM).decode())
    return tuple(dict.fromkeys(found))


def join_authorities(sets: Iterable[Sequence[str]]) -> Authorities | str:
    """Make one set of several, each certificate once, or say why HAProxy would not take it."""
    certificates = sorted({certificate for each in sets for certificate in each})
    pem = "".join(certificates)
    if len(pem) > AUTHORITIES_LIMIT:
        return f"the certificate authorities are longer than {AUTHORITIES_LIMIT} bytes together"
    return Authorities(_identify(certificates), pem)


def _identify(certificates: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=_IDENTITY_BYTES)
    for certificate in certificates:
        digest.update(certificate.encode())
    return digest.hexdigest()


def _find_weakness(certificate: x509.Certificate) -> str | None:
    public = certificate.public_key()
    if isinstance(public, RSAPublicKey) and public.key_size < _SMALLEST_RSA:
        return f"has an RSA key of {public.key_size} bits, fewer than {_SMALLEST_RSA}"
    return None
