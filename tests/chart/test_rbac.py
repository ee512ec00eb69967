"""What gwctl may do, rule by rule."""

from collections import Counter
from typing import Any

import pytest

from gwctl.api.wire import GATEWAY_GROUP
from gwctl.providers.kubernetes import GATEWAY_KINDS, KINDS
from tests.chart.rendering import Helm, Object, Rendered

READ = ("get", "list", "watch")
ROUTES = ("grpcroutes", "httproutes", "tcproutes", "tlsroutes")
Rights = set[tuple[str, str, str, tuple[str, ...]]]


def rights(role: Object) -> Rights:
    """A role as single rights: group, resource, verb, names."""
    return {
        (group, resource, verb, tuple(sorted(rule.get("resourceNames", ()))))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_by_role(rendered: Rendered) -> dict[tuple[str, str], Rights]:
    roles = [*rendered.all("ClusterRole"), *rendered.all("Role")]
    return {(role["metadata"].get("namespace", ""), role["metadata"]["name"]): rights(role) for role in roles}


def expand(group: str, resources: tuple[str, ...], verbs: tuple[str, ...], names: tuple[str, ...] = ()) -> Rights:
    return {(group, resource, verb, names) for resource in resources for verb in verbs}


WITH_STATUS = ("gateways", "listenersets", "backendtlspolicies", *ROUTES)
CRDS = tuple(f"{name}.{GATEWAY_GROUP}" for name in ("gatewayclasses", *WITH_STATUS, "referencegrants"))
CLASSES = (
    expand(GATEWAY_GROUP, ("gatewayclasses",), READ)
    | expand(GATEWAY_GROUP, ("gatewayclasses/status",), ("patch",))
    | {("apiextensions.k8s.io", "customresourcedefinitions", "get", tuple(sorted(CRDS)))}
)
EVENTS = expand("events.k8s.io", ("events",), ("create",))
OBJECTS = (
    expand(GATEWAY_GROUP, (*WITH_STATUS, "referencegrants"), READ)
    | expand(GATEWAY_GROUP, tuple(f"{name}/status" for name in WITH_STATUS), ("patch",))
    | expand("", ("services", "secrets", "configmaps"), READ)
    | expand("discovery.k8s.io", ("endpointslices",), READ)
    | EVENTS
)
WRITE = ("create", "patch", "delete")
WRITE_SERVICES = expand("", ("services",), WRITE)
LEASE = expand("coordination.k8s.io", ("leases",), ("create",)) | expand(
    "coordination.k8s.io", ("leases",), ("get", "patch"), ("gwctl",)
)


def test_all_namespaces(helm: Helm) -> None:
    rendered = helm.render()
    assert rights(rendered.one("ClusterRole")) == CLASSES | OBJECTS | expand("", ("namespaces",), READ)
    assert rights(rendered.one("Role")) == WRITE_SERVICES | LEASE


def test_some_namespaces(helm: Helm) -> None:
    rendered = helm.render({"namespaces": ["team-a", "team-b"]})
    assert rights(rendered.one("ClusterRole")) == CLASSES | expand("", ("namespaces",), READ, ("team-a", "team-b"))
    roles = {role["metadata"]["namespace"]: rights(role) for role in rendered.all("Role")}
    own = expand("", ("services",), READ) | expand("discovery.k8s.io", ("endpointslices",), READ)
    of_the_release = WRITE_SERVICES | LEASE | own
    assert roles == {"default": EVENTS, "team-a": OBJECTS, "team-b": OBJECTS, "gwctl-system": of_the_release}


@pytest.mark.parametrize(
    ("listed", "release", "expected"),
    [
        ("gwctl-system", "gwctl-system", {"default": 1, "gwctl-system": 2}),
        ("default", "gwctl-system", {"default": 1, "gwctl-system": 1}),
        ("team", "default", {"default": 2, "team": 1}),
        ("default", "default", {"default": 2}),
    ],
)
def test_special_namespaces_among_others(helm: Helm, listed: str, release: str, expected: dict[str, int]) -> None:
    roles = helm.render({"namespaces": [listed]}, namespace=release).all("Role")
    assert Counter(role["metadata"]["namespace"] for role in roles) == expected
    assert len({(role["metadata"]["namespace"], role["metadata"]["name"]) for role in roles}) == len(roles)


@pytest.mark.parametrize("namespaces", [[], ["team"]])
@pytest.mark.parametrize(
    ("values", "more"),
    [
        ({"gatewayService": {"aliases": True}}, expand("", ("services",), WRITE)),
    ],
    ids=["aliases"],
)
def test_what_a_value_adds(helm: Helm, values: dict[str, Any], more: Rights, namespaces: list[str]) -> None:
    without, with_it = helm.render({"namespaces": namespaces}), helm.render({"namespaces": namespaces, **values})
    before, after = rights_by_role(without), rights_by_role(with_it)
    place = ("team" if namespaces else "", "gwctl-system:gwctl")
    assert after.pop(place) - before.pop(place) == more
    assert after == before


@pytest.mark.parametrize("namespaces", [[], ["team"]])
@pytest.mark.parametrize("kind", ["secrets", "configMaps"])
def test_they_can_be_left_to_roles_of_ones_own(helm: Helm, namespaces: list[str], kind: str) -> None:
    rendered = helm.render({"namespaces": namespaces, "rbac": {kind: False}})
    roles = [*rendered.all("ClusterRole"), *rendered.all("Role")]
    assert not [right for role in roles for right in rights(role) if right[1] == kind.lower()]


def test_without_services_of_gateways_none_is_written(helm: Helm) -> None:
    assert rights(helm.render({"gatewayService": {"type": "none"}}).one("Role")) == LEASE


def test_everything_that_gwctl_reads_may_be_read(helm: Helm) -> None:
    allowed = rights(helm.render().one("ClusterRole"))
    for kind in KINDS:
        assert {(kind.group, kind.plural, verb, ()) for verb in ("list", "watch")} <= allowed
    assert {f"{kind.plural}.{kind.group}" for kind in GATEWAY_KINDS} <= set(CRDS)


@pytest.mark.parametrize("namespaces", [[], ["team"]])
def test_every_role_is_bound_to_gwctls_account(helm: Helm, namespaces: list[str]) -> None:
    rendered = helm.render({"namespaces": namespaces, "serviceAccount": {"name": "other"}})
    for role_kind in ("ClusterRole", "Role"):
        roles = {(role["metadata"].get("namespace"), role["metadata"]["name"]) for role in rendered.all(role_kind)}
        bindings = rendered.all(f"{role_kind}Binding")
        assert {(item["metadata"].get("namespace"), item["roleRef"]["name"]) for item in bindings} == roles
        for binding in bindings:
            assert binding["roleRef"]["kind"] == role_kind
            assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "other", "namespace": "gwctl-system"}]
    assert rendered.pod["serviceAccountName"] == rendered.one("ServiceAccount")["metadata"]["name"] == "other"


def test_the_lease_is_the_one_of_the_configuration(helm: Helm) -> None:
    rendered = helm.render(name="edge")
    named = {names for _, resource, _, names in rights(rendered.one("Role")) if resource == "leases" and names}
    assert named == {("edge-gwctl",)}
    assert "lease-name: edge-gwctl\n" in rendered.config
