"""Services of Gateways: what is written, when, and what is deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gwctl.api.parse import Resource
from gwctl.api.ref import Ref
from gwctl.api.service import Service
from gwctl.graph.build import build_graph
from gwctl.graph.gatewayservice import owner_of
from gwctl.infrastructure.service import ApplyService, DeleteService, ServiceChange, ServiceSettings, plan_services
from gwctl.snapshot import Snapshot
from tests.graph.manifests import CONTROLLER, read, read_all, stand_in

SETTINGS = ServiceSettings(CONTROLLER, "gwctl-system", {"app": "gwctl"}, annotations={"lb": "internal"})
CLASS = "{kind: GatewayClass, metadata: {name: gwctl, uid: c1}, spec: {controllerName: example.com/gwctl}}\n---\n"


def gateway(name: str = "web", listeners: str = "[{name: http, port: 80, protocol: HTTP}]", more: str = "") -> str:
    created = {"web": "2026-01-01T00:00:00Z"}.get(name, "2026-01-02T00:00:00Z")
    return (
        f"{{kind: Gateway, metadata: {{name: {name}, uid: g1, creationTimestamp: '{created}'}}, "
        f"spec: {{gatewayClassName: gwctl, listeners: {listeners}{more}}}}}\n---\n"
    )


class Cluster:
    """Objects as an API server keeps them: what a plan says is written and read back."""

    def __init__(self, text: str, settings: ServiceSettings = SETTINGS) -> None:
        self.settings = settings
        self.objects: dict[Ref, Resource] = {}
        self.manifests: dict[Ref, Mapping[str, Any]] = {}
        self.set(text)

    def set(self, text: str) -> None:
        self.objects |= {resource.ref: resource for resource in read_all(text)}

    def plan(self, *avoid: int) -> tuple[ServiceChange, ...]:
        snapshot = Snapshot.of(self.objects.values())
        graph = build_graph(snapshot, CONTROLLER, service_namespace=self.settings.namespace)
        return plan_services(graph, snapshot, self.settings, avoid)

    def settle(self, *avoid: int) -> list[str]:
        """Carry plans out until nothing is left to do; give what was done."""
        done: list[str] = []
        for _ in range(3):
            changes = self.plan(*avoid)
            for change in changes:
                done.append(str(change))
                if isinstance(change, ApplyService):
                    self.manifests[change.ref] = change.manifest
                    self.objects[change.ref] = read(change.manifest)
                else:
                    del self.objects[change.ref], self.manifests[change.ref]
            if not changes:
                return done
        raise AssertionError(f"never settles: {done}")

    def services(self) -> list[tuple[Ref, Service]]:
        return [(ref, resource) for ref, resource in self.objects.items() if isinstance(resource, Service)]

    def service(self, name: str) -> Mapping[str, Any]:
        return next(m for ref, m in self.manifests.items() if ref.name.startswith(name))

    def ports(self, name: str) -> dict[int, int]:
        return {port["port"]: port["targetPort"] for port in self.service(name)["spec"]["ports"]}


def test_a_gateway_gets_a_service_beside_the_pods_and_an_alias_beside_itself() -> None:
    cluster = Cluster(CLASS + gateway())
    assert len(cluster.settle()) == 2
    service, alias = cluster.service("gw-default-web-"), cluster.service("web-gwctl")
    assert service["metadata"]["namespace"] == "gwctl-system"
    assert service["metadata"]["ownerReferences"][0]["kind"] == "GatewayClass"
    assert service["metadata"]["annotations"]["lb"] == "internal"
    assert service["spec"] == {
        "type": "LoadBalancer",
        "selector": {"app": "gwctl"},
        "ports": [{"name": "port-80", "protocol": "TCP", "port": 80, "targetPort": 20001}],
    }
    assert alias["metadata"]["namespace"] == "default"
    assert alias["metadata"]["ownerReferences"][0] == {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": "g1",
    }  # fmt: skip
    assert alias["spec"]["externalName"] == f"{service['metadata']['name']}.gwctl-system.svc.cluster.local"
    for manifest in (service, alias):
        assert manifest["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "web"


@pytest.mark.parametrize(("name", "value"), [("web.shop", "web.shop"), ("w" * 63, "w" * 63), ("w" * 64, None)])
def test_services_name_their_gateway_wherever_a_label_can_hold_it(name: str, value: str | None) -> None:
    cluster = Cluster(CLASS + gateway(name))
    cluster.settle()
    labels = [manifest["metadata"]["labels"] for manifest in cluster.manifests.values()]
    assert [each.get("gateway.networking.k8s.io/gateway-name") for each in labels] == [value, value]


def test_both_families_are_asked_for_where_haproxy_listens_on_both() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settings = replace(SETTINGS, dual_stack=True)
    cluster.settle()
    assert cluster.service("gw-default-web-")["spec"]["ipFamilyPolicy"] == "PreferDualStack"


def test_gateways_on_one_port_get_slots_of_their_own_and_keep_them() -> None:
    cluster = Cluster(CLASS + gateway() + gateway("app"))
    cluster.settle()
    assert (cluster.ports("gw-default-web"), cluster.ports("gw-default-app")) == ({80: 20001}, {80: 20002})
    del cluster.objects[Ref("Gateway", "default", "web")]
    assert all(line.startswith("delete") for line in cluster.settle())
    cluster.set(gateway("more", "[{name: a, port: 80, protocol: HTTP}, {name: t, port: 9000, protocol: TCP}]"))
    cluster.settle(20001)
    assert cluster.ports("gw-default-app") == {80: 20002}
    assert cluster.ports("gw-default-more") == {80: 20003, 9000: 30001}


def test_a_port_gets_a_slot_that_serves_all_of_its_listeners() -> None:
    https = "{name: a, port: 443, hostname: a.test, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}"
    tls = "{name: b, port: 443, hostname: b.test, protocol: TLS, tls: {mode: Passthrough}}"
    cluster = Cluster(CLASS + gateway(listeners=f"[{https}]"))
    cluster.settle()
    assert cluster.ports("gw-default-web") == {443: 22001}
    cluster.set(gateway(listeners=f"[{https}, {tls}]"))
    cluster.settle()
    assert cluster.ports("gw-default-web") == {443: 24001}
    # What is left could do with less, but would have to move.
    cluster.set(gateway(listeners=f"[{https}]"))
    cluster.settle()
    assert cluster.ports("gw-default-web") == {443: 24001}


def test_http3_needs_udp_ports_beside_those_of_https() -> None:
    https = "{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}}"
    text = CLASS + gateway(listeners=f"[{https}, {{name: h, port: 80, protocol: HTTP}}]")
    cluster = Cluster(text, replace(SETTINGS, http3=True))
    assert len(cluster.settle()) == 2
    assert cluster.service("gw-default-web")["spec"]["ports"] == [
        {"name": "port-80", "protocol": "TCP", "port": 80, "targetPort": 20001},
        {"name": "port-443", "protocol": "TCP", "port": 443, "targetPort": 22001},
        {"name": "port-443-h3", "protocol": "UDP", "port": 443, "targetPort": 22001},
    ]


def test_listeners_that_come_and_go_change_only_their_ports() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    two = "[{name: a, port: 8080, protocol: HTTP}, {name: b, port: 8080, protocol: HTTP, hostname: b.test}, "
    cluster.set(gateway(listeners=two + "{name: http, port: 80, protocol: HTTP}]"))
    assert len(cluster.settle()) == 1
    assert cluster.ports("gw-default-web") == {80: 20001, 8080: 20002}
    cluster.set(gateway(listeners="[{name: a, port: 8080, protocol: HTTP}]"))
    cluster.settle()
    assert cluster.ports("gw-default-web") == {8080: 20002}


def test_ports_of_listener_sets_come_and_go_with_them_and_give_way_to_none() -> None:
    listeners = "[{name: same, port: 80, protocol: HTTP, hostname: a.test}, {name: own, port: 8080, protocol: HTTP}]"
    metadata = "{name: set, namespace: team}"
    spec = f"{{parentRef: {{name: web, namespace: default}}, listeners: {listeners}}}"
    listener_set = f"{{kind: ListenerSet, metadata: {metadata}, spec: {spec}}}\n---\n"
    cluster = Cluster(CLASS + gateway() + listener_set)
    cluster.settle()
    assert cluster.ports("gw-default-web-") == {80: 20001}
    cluster.set(gateway(more=", allowedListeners: {namespaces: {from: All}}"))
    cluster.settle()
    assert cluster.ports("gw-default-web-") == {80: 20001, 8080: 20002}
    del cluster.objects[Ref("ListenerSet", "team", "set")]
    cluster.settle()
    assert cluster.ports("gw-default-web-") == {80: 20001}


def test_labels_and_annotations_of_the_infrastructure_reach_both_and_go_again() -> None:
    wanted = ", infrastructure: {labels: {team: a, app.kubernetes.io/managed-by: me}, annotations: {lb: public}}"
    cluster = Cluster(CLASS + gateway(more=wanted))
    cluster.settle()
    for name in ("gw-default-web", "web-gwctl"):
        metadata = cluster.service(name)["metadata"]
        assert metadata["labels"]["team"] == "a"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "gwctl"
        assert metadata["annotations"]["lb"] == "public"
    cluster.set(gateway())
    assert len(cluster.settle()) == 2
    assert "team" not in cluster.service("gw-default-web")["metadata"]["labels"]


def test_a_foreign_service_of_that_name_is_left_alone() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.set("{kind: Service, metadata: {name: web-gwctl}, spec: {ports: [{port: 1}]}}")
    assert [change.ref.namespace for change in cluster.plan()] == ["gwctl-system"]


@pytest.mark.parametrize(
    "spoilt",
    [
        {"type": "ClusterIP"},
        {"selector": {"app": "other"}},
        {"ports": [{"port": 80, "targetPort": 20007}]},
    ],
)
def test_what_others_change_is_written_again(spoilt: dict[str, Any]) -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    manifest = cluster.service("gw-default-web")
    resource = read({**manifest, "spec": {**manifest["spec"], **spoilt}})
    cluster.objects[resource.ref] = resource
    assert [str(change.ref) for change in cluster.plan()] == [str(resource.ref)]


def test_a_gateway_that_is_not_accepted_keeps_what_it_has_and_gets_nothing_new() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    bad = ", infrastructure: {parametersRef: {group: a.test, kind: K, name: n}}"
    cluster.set(gateway(more=bad) + gateway("app", more=bad))
    assert cluster.plan() == ()


def test_services_of_another_controller_are_not_ours_to_delete() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    del cluster.objects[Ref("Gateway", "default", "web")]
    assert {type(change) for change in cluster.plan()} == {DeleteService}
    cluster.settings = ServiceSettings("example.com/other", "gwctl-system", {})
    assert cluster.plan() == ()


def test_a_static_address_is_asked_for_and_two_are_too_many() -> None:
    cluster = Cluster(CLASS + gateway(more=", addresses: [{value: 192.0.2.1}, {value: 192.0.2.2}]"))
    assert cluster.plan() == ()
    cluster.set(gateway(more=", addresses: [{value: 192.0.2.2}]"))
    cluster.settle()
    assert cluster.service("gw-default-web")["spec"]["loadBalancerIP"] == "192.0.2.2"


def test_without_aliases_there_is_no_right_to_touch_those_of_other_namespaces() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    cluster.settings = replace(SETTINGS, aliases=False)
    assert cluster.settle() == []
    del cluster.objects[Ref("Gateway", "default", "web")]
    assert [change.ref.namespace for change in cluster.plan()] == ["gwctl-system"]


def test_the_documented_command_selects_the_aliases_of_a_namespace_and_nothing_else() -> None:
    page = (Path(__file__).parents[2] / "docs" / "install.md").read_text(encoding="utf-8")
    command = re.search(r"kubectl delete services -n (\S+) -l (\S+)=(\S+)", page)
    assert command is not None and command[1] == command[3]
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    labelled = {
        ref for ref, made in cluster.manifests.items() if made["metadata"]["labels"].get(command[2]) == "default"
    }
    assert {ref for ref in labelled if ref.namespace == "default"} == {Ref("Service", "default", "web-gwctl")}
    assert f"-l {command[2]}\n" in page and labelled == set(cluster.manifests)


def test_a_gateway_that_cannot_be_read_keeps_its_services() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    del cluster.objects[Ref("Gateway", "default", "web")]
    snapshot = Snapshot.of(cluster.objects.values())
    graph = build_graph(snapshot, CONTROLLER, service_namespace=SETTINGS.namespace)
    assert plan_services(graph, snapshot, SETTINGS, exists=lambda ref: ref.name == "web") == ()
    assert len(plan_services(graph, snapshot, SETTINGS, exists=lambda ref: ref.name == "other")) == 2
    bad = stand_in(gateway(listeners="[]").partition("---")[0])
    snapshot = snapshot.apply({bad.ref: bad})
    graph = build_graph(snapshot, CONTROLLER, service_namespace=SETTINGS.namespace)
    assert plan_services(graph, snapshot, SETTINGS) == ()


def test_a_service_that_is_on_its_way_out_is_left_alone_until_it_is_gone() -> None:
    cluster = Cluster(CLASS + gateway())
    cluster.settle()
    for ref, manifest in cluster.manifests.items():
        metadata = {**manifest["metadata"], "deletionTimestamp": "2026-01-03T00:00:00Z"}
        cluster.objects[ref] = read({**manifest, "metadata": metadata})
    cluster.set(gateway(listeners="[{name: http, port: 8080, protocol: HTTP}]"))
    assert cluster.plan() == ()
    ending = dict(cluster.objects)
    del cluster.objects[Ref("Gateway", "default", "web")]
    assert cluster.plan() == ()
    cluster.objects = {ref: resource for ref, resource in ending.items() if ref not in cluster.manifests}
    assert len(cluster.settle()) == 2


def test_two_gateways_never_have_one_alias() -> None:
    other = CLASS.replace("name: gwctl", "name: b-gwctl")
    text = gateway("a-b") + gateway("a").replace("gatewayClassName: gwctl", "gatewayClassName: b-gwctl")
    cluster = Cluster(CLASS + other + text)
    assert len(cluster.settle()) == 4
    aliases = [manifest for ref, manifest in cluster.manifests.items() if ref.namespace == "default"]
    owners = {manifest["metadata"]["annotations"]["gwctl.io/gateway"] for manifest in aliases}
    assert owners == {"default/a-b", "default/a"}


def test_an_alias_stays_with_its_gateway_whatever_becomes_of_the_one_that_wants_its_name() -> None:
    other = CLASS.replace("name: gwctl", "name: b-gwctl")
    one, two = gateway("a-b"), gateway("a").replace("gatewayClassName: gwctl", "gatewayClassName: b-gwctl")
    cluster = Cluster(CLASS + other + two)
    cluster.settle()
    cluster.set(one)
    assert len(cluster.settle()) == 2
    alias = {ref.name: str(owner_of(service)) for ref, service in cluster.services() if ref.namespace == "default"}
    assert alias.pop("a-b-gwctl") == "Gateway default/a"
    assert list(alias.values()) == ["Gateway default/a-b"]
    del cluster.objects[Ref("Gateway", "default", "a")]
    assert all(line.startswith("delete") and line.endswith("default/a") for line in cluster.settle())
