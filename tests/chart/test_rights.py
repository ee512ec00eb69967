"""gwctl with a release's configuration asks the API server for nothing that the release's roles do not allow."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from gwctl.api.ref import Ref
from gwctl.status.event import Event
from tests.certificates import make_pair
from tests.chart.rendering import Helm, Rendered
from tests.harness import DataPlane
from tests.kube.apiserver import ApiServer
from tests.live.cluster import (
    NAMESPACE,
    Replica,
    cluster_gateway,
    gateway_services,
    give_addresses,
    programmed,
    site,
)
from tests.manifests import CONTROLLER, gateway_class, https_listener, listener

OF_THE_POD = ("dataplane_", "metrics_", "http_", "https_", "tcp_")
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


class Right(NamedTuple):
    """What Kubernetes asks its roles about. A namespace or name that is empty stands for all."""

    verb: str
    group: str
    resource: str
    namespace: str
    name: str


def asked(request: str) -> Right | None:
    """The right that a request needs, None where everybody has it."""
    method, _, target = request.partition(" ")
    url = urlsplit(target)
    query = {key: value[0] for key, value in parse_qs(url.query).items()}
    parts = url.path.strip("/").split("/")
    group, parts = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if not parts:
        return None
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "")[:3]
    verb = VERBS[method]
    if verb == "get" and not name:
        verb = "watch" if "watch" in query else "list"
        name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    return Right(verb, group, f"{resource}/{subresource}" if subresource else resource, namespace, name)


def allowed(rendered: Rendered, right: Right) -> bool:
    """What the release's roles say to it."""
    roles = rendered.all("ClusterRole") + [
        role for role in rendered.all("Role") if role["metadata"]["namespace"] == right.namespace
    ]
    return any(
        right.verb in rule["verbs"]
        and right.group in rule["apiGroups"]
        and right.resource in rule["resources"]
        and ("resourceNames" not in rule or right.name in rule["resourceNames"])
        for role in roles
        for rule in role["rules"]
    )


def granted_writes(rendered: Rendered) -> Iterator[tuple[str, str]]:
    for role in rendered.all("Role"):
        if role["metadata"]["namespace"] == NAMESPACE:
            for rule in role["rules"]:
                verbs = set(rule["verbs"]) - {"get", "list", "watch"}
                yield from ((verb, resource) for resource in rule["resources"] for verb in verbs)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"namespaces": ["default"], "gatewayService": {"aliases": True}},
        {"namespaces": ["default"], "hostNetwork": True},
    ],
    ids=json.dumps,
)
async def test_the_roles_suffice(helm: Helm, dataplane: DataPlane, server: ApiServer, values: dict[str, Any]) -> None:
    rendered = helm.render({"controllerName": CONTROLLER, **values})
    options = {key.replace("-", "_"): value for key, value in yaml.safe_load(rendered.config).items()}
    options = {key: value for key, value in options.items() if not key.startswith(OF_THE_POD)}
    for manifest in (*site(1), make_pair("a.test").secret("cert")):
        server.put(manifest)
    server.put(cluster_gateway(listeners=[listener("http", 80), https_listener("https", 443, "cert")]))
    has_services = options["gateway_service_type"] != "none"
    async with Replica(dataplane, "one", **options).running():
        await server.until(lambda: programmed(server)["reason"] == "AddressNotAssigned", 30)
        if has_services:
            give_addresses(server)
            await server.until(lambda: programmed(server)["status"] == "True", 30)
            await server.until(lambda: len(server.objects("Event")) > 0, 30)
        server.put({**gateway_class(), "metadata": {"name": "other"}})
        server.remove("Gateway", "gateway")
        await server.until(lambda: not gateway_services(server), 30)
        await server.until(lambda: server.count("PATCH", "gatewayclasses/other/status") > 0, 30)
    rights = {right for right in map(asked, server.requests) if right is not None}
    assert {right for right in rights if not allowed(rendered, right)} == set()
    used = {(right.verb, right.resource) for right in rights if right.namespace == NAMESPACE}
    # a Service that is applied is created where it is missing, which needs both rights
    used |= {("create", "services")} if ("patch", "services") in used else set()
    assert set(granted_writes(rendered)) <= used


def test_what_is_asked() -> None:
    assert asked("GET /apis/gateway.networking.k8s.io/v1") is None
    assert asked("GET /apis/gateway.networking.k8s.io/v1/gateways?watch=true") == Right(
        "watch", "gateway.networking.k8s.io", "gateways", "", ""
    )
    assert asked("GET /api/v1/namespaces?fieldSelector=metadata.name%3Da") == Right("list", "", "namespaces", "", "a")
    assert asked("PATCH /apis/gateway.networking.k8s.io/v1/namespaces/a/gateways/b/status") == Right(
        "patch", "gateway.networking.k8s.io", "gateways/status", "a", "b"
    )


@pytest.mark.parametrize("namespaces", [[], ["a"], ["a", "default"]])
@pytest.mark.parametrize("subject", [Ref("GatewayClass", "", "gwctl"), Ref("Gateway", "a", "gateway")], ids=str)
def test_events_are_allowed_wherever_they_live(helm: Helm, namespaces: list[str], subject: Ref) -> None:
    event = Event(subject, "", "Warning", "Reason", "note")
    right = Right("create", "events.k8s.io", "events", event.namespace, "")
    assert allowed(helm.render({"namespaces": namespaces}), right)


def test_what_is_not_allowed(helm: Helm) -> None:
    rendered = helm.render({"namespaces": ["a"]})
    for right in (
        Right("create", "", "secrets", "a", ""),
        Right("list", "", "secrets", "b", "cert"),
        Right("list", "", "services", "", ""),
        Right("list", "", "services", "b", ""),
        Right("patch", "", "services", "a", "b"),
        Right("list", "", "namespaces", "", "b"),
        Right("create", "events.k8s.io", "events", "b", ""),
        Right("list", "", "services", "default", ""),
        Right("patch", "coordination.k8s.io", "leases", NAMESPACE, "other"),
    ):
        assert not allowed(rendered, right)
    assert allowed(rendered, Right("list", "", "namespaces", "", "a"))
    assert allowed(rendered, Right("patch", "coordination.k8s.io", "leases", NAMESPACE, "gwctl"))
