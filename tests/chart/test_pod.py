"""The pods: what their containers may do, share and wait for."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import Helm, Object, Rendered

INIT = Path(__file__).parents[2] / "docker" / "haproxy" / "init.sh"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def mounts(container: Object) -> dict[str, bool]:
    """Where volumes are mounted, and whether for writing."""
    return {item["mountPath"]: not item.get("readOnly", False) for item in container["volumeMounts"]}


def environment(container: Object) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", ())}


def pre_stop(rendered: Rendered, name: str) -> int | None:
    seconds: int | None = (
        rendered.container(name).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
    )
    return seconds


def test_commands(helm: Helm) -> None:
    rendered = helm.render()
    assert [item["name"] for item in rendered.containers] == ["init", "gwctl", "haproxy", "dataplane"]
    assert rendered.container("init")["command"] == ["gwctl-init"]
    assert rendered.container("gwctl")["args"] == ["run", "--config=/etc/gwctl/gwctl.yaml"]
    assert rendered.container("haproxy")["command"] == [
        "haproxy", "-W", "-S", "/var/run/gwctl/master.sock", "-f", "/var/lib/gwctl/haproxy.cfg",
    ]  # fmt: skip
    assert rendered.container("dataplane")["command"] == ["gwctl-dataplane"]


def test_arguments_and_variables_of_users(helm: Helm) -> None:
    rendered = helm.render(COMBINATIONS["much"])
    assert rendered.container("gwctl")["args"][-1] == "--log-level=debug"
    assert environment(rendered.container("gwctl"))["TZ"] == "UTC"
    assert environment(rendered.container("haproxy"))["TZ"] == "UTC"
    assert environment(rendered.container("init"))["TZ"] == "UTC"
    assert environment(rendered.container("dataplane")) == {"GOMEMLIMIT": "400MiB"}


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_nothing_is_allowed_to_the_containers(helm: Helm, values: dict[str, Any]) -> None:
    rendered = helm.render(values)
    low_ports = values.get("privilegedPorts", False)
    pod = rendered.pod["securityContext"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    user = 0 if low_ports else 65532
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["runAsGroup"]) == (not low_ports, user, user)
    for container in rendered.containers:
        allowed = dict(RESTRICTED)
        if low_ports and container["name"] == "haproxy":
            allowed["capabilities"] = {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
        assert container["securityContext"] == allowed


def test_only_gwctl_gets_the_token_and_only_the_data_plane_api_writes_files(helm: Helm) -> None:
    rendered = helm.render()
    assert rendered.pod["automountServiceAccountToken"] is False
    assert rendered.one("ServiceAccount")["automountServiceAccountToken"] is False
    shared = {"/var/lib/gwctl": True, "/var/run/gwctl": True}
    assert mounts(rendered.container("init")) == mounts(rendered.container("dataplane")) == shared
    assert mounts(rendered.container("haproxy")) == shared | {"/var/lib/gwctl": False}
    assert mounts(rendered.container("gwctl")) == dict.fromkeys([*shared, "/etc/gwctl", TOKEN], False)
    volumes = {item["name"]: item for item in rendered.pod["volumes"]}
    assert volumes["data"]["emptyDir"] == {}
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    sources = volumes["token"]["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_nothing_stops_before_the_delay_is_over(helm: Helm, values: dict[str, Any]) -> None:
    rendered = helm.render(values)
    delay = values.get("shutdownDelaySeconds", 15)
    assert f"shutdown-delay: {delay}\n" in rendered.config
    assert pre_stop(rendered, "haproxy") == (delay or None)
    assert pre_stop(rendered, "dataplane") == (delay + 2 if delay else None)
    assert pre_stop(rendered, "gwctl") is None
    hard_stop = environment(rendered.container("init"))["HAPROXY_HARD_STOP_AFTER"]
    assert rendered.pod["terminationGracePeriodSeconds"] > delay + int(hard_stop.removesuffix("s"))


def test_a_shorter_end(helm: Helm) -> None:
    rendered = helm.render({"shutdownDelaySeconds": 5, "haproxy": {"hardStopAfterSeconds": 3600}})
    assert rendered.pod["terminationGracePeriodSeconds"] == 3610
    rendered = helm.render({"terminationGracePeriodSeconds": 60, "haproxy": {"hardStopAfterSeconds": 3600}})
    assert rendered.pod["terminationGracePeriodSeconds"] == 60


def test_probes(helm: Helm) -> None:
    rendered = helm.render({"gwctl": {"livenessProbe": {"periodSeconds": 7}}})
    gwctl, haproxy, dataplane = (rendered.container(name) for name in ("gwctl", "haproxy", "dataplane"))
    assert gwctl["startupProbe"]["httpGet"] == gwctl["livenessProbe"]["httpGet"] == {
        "path": "/livez", "port": "metrics",
    }  # fmt: skip
    assert gwctl["livenessProbe"]["periodSeconds"] == 7
    assert gwctl["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert haproxy["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "haproxy-metrics"}
    for probe in ("livenessProbe", "readinessProbe"):
        assert haproxy[probe]["tcpSocket"] == {"port": "haproxy-metrics"}
        assert "httpGet" not in haproxy[probe]
    assert dataplane["startupProbe"]["exec"]["command"] == ["test", "-S", "/var/run/gwctl/dataplane.sock"]
    assert "livenessProbe" not in dataplane


@pytest.mark.parametrize(
    ("delay", "probe", "threshold"),
    [(15, {}, 9), (60, {}, 32), (0, {}, 3), (60, {"periodSeconds": 30}, 4), (60, {"failureThreshold": 1}, 1)],
)
def test_a_pod_that_ends_stays_ready_for_the_delay(
    helm: Helm, delay: int, probe: dict[str, Any], threshold: int
) -> None:
    values = {"shutdownDelaySeconds": delay, "gwctl": {"readinessProbe": probe}}
    assert helm.render(values).container("gwctl")["readinessProbe"]["failureThreshold"] == threshold


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, {"maxUnavailable": 0, "maxSurge": "25%"}),
        ({"kind": "DaemonSet"}, {"maxUnavailable": 0, "maxSurge": 1}),
        ({"hostNetwork": True}, {"maxUnavailable": 1, "maxSurge": 0}),
        ({"kind": "DaemonSet", "hostNetwork": True}, {"maxUnavailable": 1, "maxSurge": 0}),
    ],
)
def test_updates_keep_all_pods_where_ports_allow_it(
    helm: Helm, values: dict[str, Any], strategy: dict[str, Any]
) -> None:
    workload = helm.render(values).workload
    field = "updateStrategy" if workload["kind"] == "DaemonSet" else "strategy"
    assert workload["spec"][field] == {"type": "RollingUpdate", "rollingUpdate": strategy}


def test_host_network(helm: Helm) -> None:
    rendered = helm.render({"kind": "DaemonSet", "hostNetwork": True})
    assert rendered.pod["hostNetwork"] is True
    assert rendered.pod["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert "affinity" not in rendered.pod and "replicas" not in rendered.workload["spec"]
    assert "gateway-service-type: none\n" in rendered.config
    assert "publish-service: gwctl-system/gwctl-addresses\n" in rendered.config
    spec = rendered.one("Service", "gwctl-addresses")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["selector"].items() <= rendered.workload["spec"]["template"]["metadata"]["labels"].items()


def test_releases_on_one_node_have_sockets_of_their_own(helm: Helm) -> None:
    found = set()
    for name, namespace in (("gwctl", "team-a"), ("gwctl", "team-b"), ("edge", "team-a")):
        haproxy = helm.render(name=name, namespace=namespace).container("haproxy")
        beginning = environment(haproxy)["GWCTL_SOCKETS"]
        assert beginning.startswith("abns@")
        assert len(beginning) < 60
        found.add(beginning)
    assert len(found) == 3


def test_host_network_with_services_or_with_addresses_of_ones_own(helm: Helm) -> None:
    rendered = helm.render({"hostNetwork": True, "gatewayService": {"type": "LoadBalancer"}})
    assert "publish-service" not in rendered.config
    assert [item["metadata"]["name"] for item in rendered.all("Service")] == ["gwctl-metrics"]
    rendered = helm.render(COMBINATIONS["host network, Deployment"])
    assert "publish-service: gwctl-system/front\n" in rendered.config
    assert [item["metadata"]["name"] for item in rendered.all("Service")] == ["gwctl-metrics"]


def test_a_pod_may_listen_on_the_ports_of_gateways_in_its_own_network(helm: Helm) -> None:
    sysctl = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
    theirs = {"name": "net.core.somaxconn", "value": "4096"}
    values = {"gatewayService": {"type": "none"}, "podSecurityContext": {"sysctls": [theirs]}}
    assert helm.render(values).pod["securityContext"]["sysctls"] == [theirs, sysctl]
    assert "sysctls" not in helm.render().pod["securityContext"]
    assert "sysctls" not in helm.render({"hostNetwork": True}).pod["securityContext"]


def test_what_the_chart_itself_needs_is_added_to_no_security_context(helm: Helm) -> None:
    nothing = {"podSecurityContext": None, "securityContext": None}
    rendered = helm.render({**nothing, "gatewayService": {"type": "none"}})
    assert list(rendered.pod["securityContext"]) == ["sysctls"]
    rendered = helm.render({**nothing, "hostNetwork": True, "privilegedPorts": True})
    assert rendered.pod["securityContext"]["runAsUser"] == 0
    with_context = {item["name"]: item["securityContext"] for item in rendered.containers if "securityContext" in item}
    assert with_context == {"haproxy": {"capabilities": {"add": ["NET_BIND_SERVICE"]}}}


def test_pods_are_spread(helm: Helm) -> None:
    rendered = helm.render()
    labels = {"app.kubernetes.io/name": "gwctl", "app.kubernetes.io/instance": "gwctl"}
    (term,) = rendered.pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == labels
    rendered = helm.render(COMBINATIONS["much"])
    assert list(rendered.pod["affinity"]) == ["nodeAffinity"]
    assert rendered.pod["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": labels}
    theirs = {"maxSkew": 1, "topologyKey": "x", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
    assert helm.render({"topologySpreadConstraints": [theirs]}).pod["topologySpreadConstraints"] == [theirs]


def test_where_pods_run(helm: Helm) -> None:
    rendered = helm.render(COMBINATIONS["much"])
    assert rendered.pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert rendered.pod["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert rendered.pod["priorityClassName"] == "system-cluster-critical"
    metadata = rendered.workload["spec"]["template"]["metadata"]
    assert metadata["labels"].items() >= {"side": "front", "team": "edge"}.items()
    assert metadata["annotations"]["example.com/a"] == "b"


def test_the_selector_never_changes(helm: Helm) -> None:
    expected = {"app.kubernetes.io/name": "gwctl", "app.kubernetes.io/instance": "gwctl"}
    for values in COMBINATIONS.values():
        assert helm.render(values).workload["spec"]["selector"]["matchLabels"] == expected


def test_images(helm: Helm) -> None:
    images = {item["name"]: item["image"] for item in helm.render().containers}
    assert images == {"gwctl": "gwctl:0.1.0"} | dict.fromkeys(("init", "haproxy", "dataplane"), "gwctl-haproxy:0.1.0")
    rendered = helm.render(COMBINATIONS["closed"] | {"haproxy": {"image": {"tag": "3.4.7"}}})
    assert rendered.container("init")["image"] == "registry.example.com/team/gwctl-haproxy:3.4.7"
    assert rendered.pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {item["imagePullPolicy"] for item in rendered.containers} == {"Always"}
    whole = {"gwctl": {"image": {"repository": "r.example.com:5000/team/gwctl", "tag": "1"}}}
    assert helm.render(whole).container("gwctl")["image"] == "r.example.com:5000/team/gwctl:1"
    digest = helm.render(COMBINATIONS["much"] | {"image": {"registry": "r.example.com/"}}).container("gwctl")["image"]
    assert digest == "r.example.com/gwctl@sha256:" + "0" * 64


def test_a_changed_configuration_makes_new_pods(helm: Helm) -> None:
    def checksum(values: dict[str, Any]) -> str:
        annotations = helm.render(values).workload["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum({}) == checksum({"replicas": 3}) != checksum({"gwctl": {"logLevel": "debug"}})


def test_annotations_that_the_chart_gives_too_are_there_once(helm: Helm) -> None:
    def annotations(values: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = helm.render(values).workload["spec"]["template"]["metadata"]["annotations"]
        return found

    theirs = {"checksum/config": "theirs", "kubectl.kubernetes.io/default-container": "haproxy", "a": "b"}
    checksum = {"checksum/config": annotations({})["checksum/config"]}
    assert annotations({"podAnnotations": theirs}) == theirs | checksum


def test_threads_follow_the_limit_of_cpu(helm: Helm) -> None:
    assert "HAPROXY_NBTHREAD" not in environment(helm.render().container("init"))
    by_limit = environment(helm.render(COMBINATIONS["much"]).container("init"))["HAPROXY_NBTHREAD"]
    assert by_limit == {"resourceFieldRef": {"containerName": "haproxy", "resource": "limits.cpu"}}
    values = {"haproxy": {"threads": 3, "resources": {"limits": {"cpu": 2}}}}
    assert environment(helm.render(values).container("init"))["HAPROXY_NBTHREAD"] == "3"


def test_the_init_container_understands_its_variables(helm: Helm, haproxy: Path, tmp_path: Path) -> None:
    values = {
        "haproxy": {
            "maxConnections": 1000000,
            "threads": 2,
            "hardStopAfterSeconds": 7,
            "metricsPort": 8406,
            "logLevel": "err",
        },
        "dataplane": {"logLevel": "debug"},
        "ipv6": True,
    }
    variables = environment(helm.render(values).container("init"))
    folders = {"GWCTL_DATA": str(tmp_path / "data"), "GWCTL_RUN": str(tmp_path / "run")}
    for folder in folders.values():
        Path(folder).mkdir()
    path = f"{haproxy.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([INIT], env={**variables, **folders, "PATH": path}, check=True)
    lines = {line.strip() for line in (tmp_path / "data" / "haproxy.cfg").read_text(encoding="utf-8").splitlines()}
    assert lines >= {
        "maxconn 1000000", "fd-hard-limit 2012000", "nbthread 2", "hard-stop-after 7s", "bind :8406",
        "bind :::8406 v6only",
        "log stdout format raw local0 err",
    }  # fmt: skip
    assert "log_level: debug" in (tmp_path / "data" / "dataplaneapi.yaml").read_text(encoding="utf-8")
    read = INIT.read_text(encoding="utf-8")
    assert all(f"value {name} " in read for name in variables)
