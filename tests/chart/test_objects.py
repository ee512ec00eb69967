"""Which objects a release has, and how they are named."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from gwctl.graph.gatewayservice import SLOT_RANGES
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import CHART, Helm

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "GatewayClass"}
DEFAULT = (
    "ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment", "GatewayClass", "PodDisruptionBudget", "Role",
    "RoleBinding", "Service", "ServiceAccount",
)  # fmt: skip


def test_the_objects_of_a_default_release(helm: Helm) -> None:
    assert Counter(item["kind"] for item in helm.render().objects) == Counter(DEFAULT)


def test_as_little_as_possible(helm: Helm) -> None:
    kinds = Counter(item["kind"] for item in helm.render(COMBINATIONS["bare"]).objects)
    assert kinds == Counter(("ConfigMap", "Deployment"))


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_helm_lints_it(helm: Helm, values: dict[str, object]) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values=values)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_every_object_is_placed_and_labelled_and_none_is_a_secret(helm: Helm, values: dict[str, object]) -> None:
    rendered = helm.render(values)
    identities = Counter(
        (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in rendered.objects
    )
    assert identities.most_common(1)[0][1] == 1
    assert not rendered.all("Secret")
    for item in rendered.objects:
        metadata = item["metadata"]
        assert ("namespace" in metadata) is (item["kind"] not in CLUSTER_WIDE)
        assert metadata["labels"]["app.kubernetes.io/instance"] == "gwctl"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_rendering_is_repeatable(helm: Helm) -> None:
    values = COMBINATIONS["much"]
    assert helm.render(values) == helm.render(values | {"enabled": True})


@pytest.mark.parametrize(
    ("release", "values", "name"),
    [
        ("gwctl", {}, "gwctl"),
        ("edge", {}, "edge-gwctl"),
        ("gwctl-two", {}, "gwctl-two"),
        ("a.b", {}, "a-b-gwctl"),
        ("1st", {}, "gwctl-1st-gwctl"),
        ("x", {"nameOverride": "edge"}, "x-edge"),
        ("x", {"fullnameOverride": "edge"}, "edge"),
        ("x" * 53, {}, "x" * 41 + "-2b45f3a2"),
        ("x" * 52, {}, "x" * 41 + "-2b41c063"),
    ],
)
def test_names(helm: Helm, release: str, values: dict[str, object], name: str) -> None:
    rendered = helm.render(values, name=release)
    assert rendered.workload["metadata"]["name"] == name


@pytest.mark.parametrize("release", ["x" * 53, "1.2", "gwctl-" + "y" * 40])
def test_names_and_labels_are_short_enough(helm: Helm, release: str) -> None:
    values = {"hostNetwork": True, "networkPolicy": {"enabled": True}, "nameOverride": "n" * 63}
    for item in helm.render(values, name=release).objects:
        if item["kind"] not in CLUSTER_WIDE:
            assert re.fullmatch("[a-z][-a-z0-9]{0,61}[a-z0-9]", item["metadata"]["name"])
        assert all(len(value) <= 63 for value in item["metadata"]["labels"].values())


NAME_FIELDS = {"name", "namespace", "serviceAccountName", "priorityClassName", "image", "resourceNames"}


def find_names(value: Any) -> Iterator[Any]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if key in NAME_FIELDS:
            yield from item if isinstance(item, list) else [item]
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from find_names(item)


def test_names_that_yaml_could_take_for_something_else_stay_names(helm: Helm) -> None:
    values = {
        "fullnameOverride": "true",
        "gatewayClass": {"name": "1.5"},
        "namespaces": ["123", "null"],
        "priorityClassName": "0x10",
        "serviceAccount": {"name": "456"},
        "gwctl": {"image": {"repository": "12", "tag": "30"}},
        "haproxy": {"image": {"repository": "12", "tag": "31"}},
        "autoscaling": {"enabled": True},
        "networkPolicy": {"enabled": True},
        "metrics": {"monitor": {"kind": "PodMonitor", "interval": "1m"}},
    }
    rendered = helm.render(values, namespace="789")
    names = [name for item in rendered.objects for name in find_names(item)]
    assert not [name for name in names if not isinstance(name, str)]
    assert set(names) >= {"true", "1.5", "123", "null", "0x10", "456", "789", "12:30", "12:31"}


def test_two_releases_of_one_name_share_nothing(helm: Helm) -> None:
    values = {"gatewayClass": {"create": False}, "namespaces": ["shared"]}
    both = helm.render(values, namespace="one").objects + helm.render(values, namespace="two").objects
    identities = {(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in both}
    assert len(identities) == len(both)


def test_the_gatewayclass(helm: Helm) -> None:
    values = COMBINATIONS["much"] | {"controllerName": "example.com/gateways"}
    resource = helm.render(values).one("GatewayClass")
    assert resource["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert resource["metadata"]["name"] == "gwctl"
    assert resource["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert resource["metadata"]["labels"].items() >= {"tier": "one", "team": "edge"}.items()
    assert resource["spec"]["controllerName"] == "example.com/gateways"


def test_the_metrics_service_reaches_both_ports_of_each_pod(helm: Helm) -> None:
    rendered = helm.render()
    service = rendered.one("Service")
    assert service["metadata"]["name"] == "gwctl-metrics"
    assert service["spec"]["clusterIP"] == "None"
    ports = {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
    assert ports == {"metrics": 9090, "haproxy-metrics": 8405}
    named = {port["name"] for container in rendered.containers for port in container.get("ports", ())}
    assert named == ports.keys()
    assert service["spec"]["selector"].items() <= rendered.workload["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize(("kind", "field"), [("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")])
def test_monitors(helm: Helm, kind: str, field: str) -> None:
    values = {"metrics": {"monitor": {"kind": kind, "interval": "15s", "labels": {"prometheus": "main"}}}}
    rendered = helm.render(values)
    monitor = rendered.one(kind)
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    assert monitor["spec"][field] == [
        {"port": port, "path": "/metrics", "interval": "15s"} for port in ("metrics", "haproxy-metrics")
    ]
    selected = rendered.workload["spec"]["template"] if kind == "PodMonitor" else rendered.one("Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= selected["metadata"]["labels"].items()


def test_a_networkpolicy_lets_listeners_in_from_everywhere(helm: Helm) -> None:
    spec = helm.render(COMBINATIONS["closed"]).one("NetworkPolicy")["spec"]
    listeners, metrics = spec["ingress"]
    (ports,) = listeners["ports"]
    for slots in SLOT_RANGES.values():
        assert ports["port"] <= slots.first
        assert slots.first + slots.limit - 1 <= ports["endPort"]
    assert "from" not in listeners
    assert {port["port"] for port in metrics["ports"]} == {"metrics", "haproxy-metrics"}
    assert metrics["from"] == [{"namespaceSelector": {}}]
    assert spec["policyTypes"] == ["Ingress"]


def test_a_networkpolicy_lets_own_ports_of_gateways_in(helm: Helm) -> None:
    values = {"networkPolicy": {"enabled": True}, "gatewayService": {"type": "none"}}
    listeners = helm.render(values).one("NetworkPolicy")["spec"]["ingress"][0]
    assert listeners["ports"] == [{"protocol": "TCP", "port": 1, "endPort": 65535}]


def test_http3_is_let_in_by_the_network_policy(helm: Helm) -> None:
    values = {**COMBINATIONS["closed"], "http3": True}
    listeners = helm.render(values).one("NetworkPolicy")["spec"]["ingress"][0]
    assert listeners["ports"] == [
        {"protocol": protocol, "port": 20001, "endPort": 39999} for protocol in ("TCP", "UDP")
    ]


def test_a_disruption_budget(helm: Helm) -> None:
    spec = helm.render().one("PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1 and "minAvailable" not in spec
    spec = helm.render(COMBINATIONS["much"]).one("PodDisruptionBudget")["spec"]
    assert spec["minAvailable"] == "50%" and "maxUnavailable" not in spec
    assert not helm.render({"kind": "DaemonSet"}).all("PodDisruptionBudget")


def test_an_autoscaler_takes_the_number_of_pods_over(helm: Helm) -> None:
    assert helm.render().workload["spec"]["replicas"] == 2
    rendered = helm.render(COMBINATIONS["autoscaled"] | {"replicas": 5})
    assert "replicas" not in rendered.workload["spec"]
    spec = rendered.one("HorizontalPodAutoscaler")["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gwctl"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10)
    assert spec["metrics"][0]["containerResource"]["container"] == "haproxy"
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
