"""Certificates: what HAProxy can serve, what it cannot and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gwctl.api.parse import parse_resource
from gwctl.api.ref import Ref
from gwctl.api.secret import Secret
from gwctl.graph.certificate import PEM_LIMIT, read_certificate
from gwctl.graph.node import Certificate
from tests.certificates import Algorithm, Pair, make_authority, make_pair, tls_secret, weaken


def secret(manifest: dict[str, Any]) -> Secret:
    result = parse_resource(manifest)
    assert isinstance(result.resource, Secret)
    return result.resource


def read(certificate: str, key: str) -> Certificate | str:
    return read_certificate(secret(tls_secret("s", certificate, key)))


def good(pair: Pair) -> Certificate:
    found = read(pair.certificate, pair.key)
    assert isinstance(found, Certificate)
    return found


@pytest.mark.parametrize("algorithm", ["ecdsa", "rsa"])
def test_a_pair_says_what_it_is(algorithm: Algorithm) -> None:
    found = good(make_pair("A.example", "*.b.example", "10.0.0.1", algorithm=algorithm))
    assert found.secret == Ref("Secret", "default", "s")
    assert (found.algorithm, found.hostnames) == (algorithm, ("a.example", "*.b.example"))
    assert datetime.fromtimestamp(found.not_before, UTC).year == 2026
    assert datetime.fromtimestamp(found.not_after, UTC).year == 2126
    assert found.pem.reveal().count("-----BEGIN") == 2
    assert "PRIVATE" not in repr(found)


def test_names_that_no_client_asks_for_are_left_out() -> None:
    assert good(make_pair("*", "*.org", "a_b.example", "x.example", "x.example")).hostnames == ("*.org", "x.example")


def test_a_certificate_without_alternative_names_has_no_host_names() -> None:
    assert good(make_pair()).hostnames == ()


def test_what_is_served_is_leaf_chain_and_key_and_nothing_else() -> None:
    pair = make_pair("a.example", issuer="intermediate")
    intermediate, root = make_authority("intermediate", issuer="root"), make_authority("root")
    clean = read(pair.certificate + intermediate, pair.key)
    noisy = read(f"Bag Attributes: x\n\n{pair.certificate}\n\r\n{intermediate}{root}", f"\n\n{pair.key}\n; quit\n")
    assert isinstance(clean, Certificate)
    assert clean == noisy
    assert clean.pem.reveal().count("BEGIN CERTIFICATE") == 2
    assert "\n\n" not in clean.pem.reveal()


def test_the_identity_is_that_of_certificate_and_chain() -> None:
    pair, other = make_pair("a.example", issuer="i"), make_pair("a.example", issuer="i", serial=2)
    chained = Pair(pair.certificate + make_authority("i", issuer="r"), pair.key)
    identities = [good(item).identity for item in (pair, pair, other, chained)]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


def test_a_key_in_another_form_is_the_same() -> None:
    algorithms: tuple[Algorithm, ...] = ("rsa", "ecdsa")
    for algorithm in algorithms:
        pair = make_pair("a.example", algorithm=algorithm)
        key = load_pem_private_key(pair.key.encode(), None)
        old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        assert old != pair.key
        assert read(pair.certificate, old) == good(pair)


@pytest.mark.parametrize(
    ("certificate", "key", "message"),
    [
        ("", make_pair("a.example").key, "has no tls.crt"),
        (make_pair("a.example").certificate, " \n", "has no tls.key"),
        ("Hello world\n", make_pair("a.example").key, "tls.crt holds no certificate in PEM"),
        ("é", "é", "tls.crt holds no certificate in PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            make_pair("a.example").key,
            "tls.crt holds no certificate in PEM",
        ),
        (make_pair("a.example").key, make_pair("a.example").key, "tls.crt holds no certificate in PEM"),
        (
            make_pair("a.example").certificate,
            "Hello world\n",
            "tls.key holds no private key in PEM that is understood",
        ),
        (
            make_pair("a.example").certificate,
            make_pair("a.example").certificate,
            "tls.key holds no private key in PEM that is understood",
        ),
        (
            make_pair("a.example").certificate,
            make_pair("b.example").key,
            "tls.key is not the key of the first certificate in tls.crt",
        ),
        (
            make_authority("i", issuer="r") + make_pair("a.example", issuer="i").certificate,
            make_pair("a.example", issuer="i").key,
            "tls.key is not the key of the first certificate in tls.crt",
        ),
    ],
)
def test_what_is_no_pair_is_refused(certificate: str, key: str, message: str) -> None:
    assert read(certificate, key) == message


@pytest.mark.parametrize(
    ("algorithm", "message"),
    [
        ("ed25519", "tls.key is neither an RSA nor an ECDSA key"),
        ("secp256k1", "tls.key is of the curve secp256k1; use P-256, P-384 or P-521"),
        ("rsa-1024", "tls.key has 1024 bits; RSA keys must have 2048 to 8192"),
    ],
)
def test_a_key_that_haproxy_does_not_take_is_refused(algorithm: Algorithm, message: str) -> None:
    pair = make_pair("a.example", algorithm=algorithm)
    assert read(pair.certificate, pair.key) == message


def test_a_weak_signature_is_refused_but_not_that_of_a_root() -> None:
    pair = make_pair("a.example", algorithm="rsa")
    assert isinstance(read(weaken(pair.certificate), pair.key), Certificate)
    leaf = make_pair("a.example", issuer="i")
    assert isinstance(read(leaf.certificate + weaken(pair.certificate), leaf.key), Certificate)
    authority = weaken(make_pair("i", algorithm="rsa", issuer="r", signer="rsa").certificate)
    assert read(leaf.certificate + authority, leaf.key) == (
        "tls.crt holds a certificate that is signed with SHA1, which TLS no longer takes"
    )


def test_an_encrypted_key_is_refused() -> None:
    pair = make_pair("a.example")
    key = load_pem_private_key(pair.key.encode(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    assert read(pair.certificate, encrypted) == "tls.key is encrypted with a password"


def test_an_rsa_key_of_parts_that_do_not_fit_is_refused() -> None:
    pair = make_pair("a.example", algorithm="rsa")
    key = load_pem_private_key(pair.key.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    n = key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(n.p, n.q, n.d, n.dmp1, n.dmq1, n.iqmp + 2, n.public_numbers)
    broken = wrong.private_key(unsafe_skip_rsa_key_validation=True)
    pem = broken.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert read(pair.certificate, pem) == "tls.key is an RSA key whose parts do not fit each other"


def test_a_chain_that_is_too_long_for_haproxy_is_refused() -> None:
    pair = make_pair("a.example", issuer="i")
    chain = "".join(make_authority(f"authority {number}", issuer="r") for number in range(40))
    message = read(pair.certificate + chain, pair.key)
    assert message == f"is longer than {PEM_LIMIT} bytes with its chain and key, which is all that HAProxy takes"


def test_another_type_of_secret_is_refused() -> None:
    manifest = {**make_pair("a.example").secret("s"), "type": "Opaque"}
    assert read_certificate(secret(manifest)) == "has the type 'Opaque', not 'kubernetes.io/tls'"


def test_the_pair_that_is_served_can_be_read_back() -> None:
    found = good(make_pair("a.example"))
    (certificate,) = x509.load_pem_x509_certificates(found.pem.reveal().encode())
    assert certificate.serial_number == 1
