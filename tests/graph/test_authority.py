"""Certificate authorities as ConfigMaps hold them."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.api.configmap import ConfigMap
from gwctl.api.parse import parse_resource
from gwctl.graph.authority import AUTHORITIES_LIMIT, join_authorities, read_authorities
from gwctl.graph.node import Authorities
from tests.certificates import make_authority, make_pair

ONE, TWO = make_authority("one"), make_authority("two")


def config_map(**fields: Any) -> ConfigMap:
    manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ca", "annotations": {"a": "b"}},
        **fields,
    }
    resource, invalid = parse_resource(manifest)
    assert isinstance(resource, ConfigMap)
    assert invalid == ()
    return resource


def test_only_ca_crt_is_kept_of_a_config_map() -> None:
    found = config_map(data={"ca.crt": ONE, "other": "x"}, binaryData={"more": "AAAA"}, immutable=True)
    assert (found.data, found.binary_data, found.metadata.annotations) == ({"ca.crt": ONE}, {}, {})


def test_certificates_are_read_whatever_stands_around_them() -> None:
    text = f"# roots\n{ONE}\nsubject=/CN=two\n{TWO}{ONE}"
    assert read_authorities(config_map(data={"ca.crt": text})) == (ONE, TWO)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no ca.crt"),
        ({"data": {}}, "has no ca.crt"),
        ({"data": {"ca.crt": " \n"}}, "has no ca.crt"),
        ({"data": {"CA.crt": ONE}}, "has no ca.crt"),
        ({"binaryData": {"ca.crt": "AAAA"}}, "has ca.crt in binaryData, not in data"),
        ({"data": {"ca.crt": "nothing"}}, "ca.crt holds no certificate in PEM"),
        ({"data": {"ca.crt": make_pair("a.test").key}}, "ca.crt holds no certificate in PEM"),
        (
            {"data": {"ca.crt": ONE + ONE[:27] + "\nAAAA\n-----END CERTIFICATE-----\n"}},
            "ca.crt: certificate 2 is not understood",
        ),
        (
            {"data": {"ca.crt": make_pair("a.test", algorithm="rsa-1024").certificate}},
            "ca.crt: certificate 1 has an RSA key of 1024 bits, fewer than 2048",
        ),
    ],
)
def test_what_cannot_be_used_is_told(fields: dict[str, Any], message: str) -> None:
    assert read_authorities(config_map(**fields)) == message


def test_sets_of_the_same_certificates_are_one() -> None:
    one = join_authorities([(ONE, TWO)])
    assert isinstance(one, Authorities)
    assert one == join_authorities([(TWO,), (ONE, TWO)])
    assert one.pem.count("BEGIN") == 2
    other = join_authorities([(ONE,)])
    assert isinstance(other, Authorities)
    assert other.identity != one.identity


def test_what_is_longer_than_haproxy_takes_is_refused() -> None:
    many = tuple(f"{number}{ONE}" for number in range(AUTHORITIES_LIMIT // len(ONE) + 1))
    assert join_authorities([many]) == "the certificate authorities are longer than 120000 bytes together"
