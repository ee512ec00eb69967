"""A BackendTLSPolicy that cannot be read stands as long as what it is for can be told."""

from __future__ import annotations

from typing import Any

import pytest

from gwctl.api.backendtlspolicy import BackendTLSPolicy, UnreadablePolicy
from gwctl.api.parse import UNKNOWN_FIELD, fall_back, is_unreadable, parse_resource
from tests.manifests import backend_tls_policy

Manifest = dict[str, Any]


def policy(**validation: Any) -> Manifest:
    return backend_tls_policy("p", "web", "ca", section="https", **validation)


def targeting(*services: str, **validation: Any) -> Manifest:
    made = backend_tls_policy("p", "web", "ca", **validation)
    made["spec"]["targetRefs"] = [{"group": "", "kind": "Service", "name": name} for name in services]
    return made


def read(manifest: Manifest) -> BackendTLSPolicy:
    resource = parse_resource(manifest).resource
    assert isinstance(resource, BackendTLSPolicy)
    return resource


WRONG: list[tuple[Manifest, str]] = [
    (
        policy(subjectAltNames=[{"type": "IPAddress", "ipAddress": "10.0.0.1"}]),
        "spec.validation.subjectAltNames[0].type",
    ),
    (policy(hostname="*.web.test"), "spec.validation.hostname"),
    (policy(wellKnownCACertificates="System"), "spec.validation"),
    (policy(subjectAltNames=[{"type": "URI"}]), "spec.validation.subjectAltNames[0].uri"),
    (policy(subjectAltNames="a"), "spec.validation.subjectAltNames"),
    ({**policy(), "apiVersion": "gateway.networking.k8s.io/v9"}, "apiVersion"),
]


@pytest.mark.parametrize(("manifest", "field"), WRONG)
def test_a_policy_with_something_wrong_is_still_for_its_service(manifest: Manifest, field: str) -> None:
    resource, invalid = parse_resource(manifest)
    assert isinstance(resource, UnreadablePolicy)
    assert is_unreadable(resource)
    assert [(item.name, item.section_name) for item in resource.spec.target_refs] == [("web", "https")]
    told = [(item.field, item.message) for item in invalid if item.reason != UNKNOWN_FIELD]
    assert [name for name, _ in told] == [field]
    assert resource.wrong == tuple(told)


def test_without_validation_or_with_nulls_and_fields_nobody_knows() -> None:
    manifest = policy()
    del manifest["spec"]["validation"]
    manifest["spec"]["targetRefs"][0] |= {"sectionName": None, "new": 1}
    manifest["metadata"] |= {"labels": None, "new": 1}
    assert is_unreadable(parse_resource(manifest).resource)


def test_targets_that_can_be_read_count_beside_those_that_cannot() -> None:
    manifest = targeting("web", "api")
    manifest["spec"]["targetRefs"][1]["kind"] = "no kind"
    assert [item.name for item in read(manifest).spec.target_refs] == ["web"]


@pytest.mark.parametrize(
    "manifest",
    [
        targeting(),
        {**policy(), "spec": {}},
        {**policy(), "spec": None},
        {**policy(), "metadata": {"name": "No Name"}, "spec": {"targetRefs": policy()["spec"]["targetRefs"]}},
        {**policy(), "metadata": {}},
    ],
)
def test_nothing_stands_where_it_cannot_be_told_what_for(manifest: Manifest) -> None:
    resource, invalid = parse_resource(manifest)
    assert resource is None
    assert invalid


def test_what_a_policy_was_before_stays_unless_it_is_for_more_now() -> None:
    good = read(targeting("web", "api"))
    worse, same, more = (read(targeting(*names, hostname="*")) for names in (["web"], ["web", "api"], ["web", "new"]))
    assert fall_back(worse, good) is good
    assert fall_back(same, good) is good
    assert fall_back(more, good) is more
    assert fall_back(more, same) is more
    assert fall_back(more, None) is more
    assert fall_back(None, same) is same
    assert fall_back(good, worse) is good
