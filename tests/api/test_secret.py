"""Secrets: only what TLS needs is kept, and nothing of it is ever printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gwctl.api.parse import ParseResult, parse_resource
from gwctl.api.secret import Secret
from gwctl.api.sensitive import Sensitive
from gwctl.cli.plain import to_plain

TLS = "kubernetes.io/tls"
CONTENT = "hidden content"
BASE64 = "aGlkZGVuIGNvbnRlbnQ="


def parse(**fields: Any) -> ParseResult:
    metadata = fields.pop("metadata", {"name": "s"})
    return parse_resource({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **fields})


def read(**fields: Any) -> Secret:
    result = parse(**fields)
    assert result.invalid == ()
    assert isinstance(result.resource, Secret)
    return result.resource


def test_certificate_and_key_are_decoded() -> None:
    secret = read(type=TLS, data={"tls.crt": BASE64, "tls.key": BASE64[:10] + "\n" + BASE64[10:]})
    assert secret.content("tls.crt") == secret.content("tls.key") == Sensitive(CONTENT)
    assert secret.content("ca.crt") is None


def test_string_data_goes_before_data() -> None:
    secret = read(type=TLS, data={"tls.crt": BASE64}, stringData={"tls.crt": "other"})
    assert secret.content("tls.crt") == Sensitive("other")


def test_other_keys_types_labels_and_annotations_are_dropped() -> None:
    metadata = {"name": "s", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": CONTENT}}
    metadata |= {"labels": {"a": CONTENT}}
    secret = read(type=TLS, data={"tls.crt": BASE64, "more": "no base64 at all"}, metadata=metadata, immutable=True)
    assert set(secret.data) == {"tls.crt"}
    assert (secret.metadata.annotations, secret.metadata.labels) == ({}, {})
    opaque = read(data={"tls.crt": "no base64 at all"}, stringData={"tls.key": CONTENT})
    assert (opaque.type, opaque.data, opaque.string_data) == ("Opaque", {}, {})


def test_nothing_prints_what_a_secret_holds() -> None:
    secret = read(type=TLS, data={"tls.key": BASE64}, stringData={"tls.crt": CONTENT})
    printed = f"{secret!r} {secret} {secret.model_dump_json()} {json.dumps(to_plain(secret))} {secret.data}"
    assert "[redacted]" in printed
    assert CONTENT not in printed
    assert BASE64 not in printed


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"data": {"tls.crt": "!?"}}, "data[tls.crt]", "must be base64"),
        ({"data": {"tls.crt": BASE64 + "x"}}, "data[tls.crt]", "must be base64"),
        ({"data": {"tls.key": 4711}}, "data[tls.key]", "must be base64"),
        ({"data": "c2VjcmV0"}, "data", "must be an object"),
        ({"stringData": "c2VjcmV0"}, "stringData", "must be an object"),
        ({"stringData": {"tls.key": 4711}}, "stringData[tls.key]", "must be a text"),
        ({"stringData": {"tls.key": ["x"]}}, "stringData[tls.key]", "must be a text"),
    ],
)
def test_a_wrong_value_is_named_by_its_field_and_not_repeated(fields: dict[str, Any], where: str, message: str) -> None:
    result = parse(type=TLS, **fields)
    assert result.resource is None
    assert [(item.field, item.message) for item in result.invalid] == [(where, message)]


def test_a_wrong_type_is_not_repeated() -> None:
    result = parse(type=4711)
    assert [(item.field, item.message) for item in result.invalid] == [("type", "must be a text")]
