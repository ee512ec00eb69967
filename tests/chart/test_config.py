"""The configuration file of a release, as gwctl itself reads it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from gwctl.runtime.config import OPTIONS, Config, ConfigError, load_config
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import CHART, ChartError, Helm, Rendered

OF_THE_POD = {"GWCTL_POD_NAMESPACE": "gwctl-system", "GWCTL_IDENTITY": "gwctl-0"}


def load(rendered: Rendered, folder: Path) -> Config:
    path = folder / "gwctl.yaml"
    path.write_text(rendered.config, encoding="utf-8")
    return load_config({}, OF_THE_POD, path)


@pytest.mark.parametrize("values", COMBINATIONS.values(), ids=COMBINATIONS)
def test_gwctl_takes_it(helm: Helm, tmp_path: Path, values: dict[str, Any]) -> None:
    rendered = helm.render(values)
    variables = {item["name"] for item in rendered.container("gwctl")["env"]}
    assert variables >= OF_THE_POD.keys()
    config = load(rendered, tmp_path)
    assert config.source == "kubernetes"
    assert config.dataplane_url == "unix:///var/run/gwctl/dataplane.sock"
    assert config.dataplane_password_file == "/var/lib/gwctl/password"
    assert config.metrics_address == ":9090"
    labels = rendered.workload["spec"]["template"]["metadata"]["labels"]
    assert config.gateway_service_selector and config.gateway_service_selector.items() <= labels.items()


def test_the_defaults_are_those_of_gwctl(helm: Helm, tmp_path: Path) -> None:
    config, defaults = load(helm.render(), tmp_path), Config()
    differing = {
        field
        for field in Config.model_fields
        if getattr(config, field) != getattr(defaults, field) and field not in ("pod_namespace", "identity")
    }
    assert differing == {
        "dataplane_url", "dataplane_password_file", "gateway_service_selector", "gateway_service_aliases",
        "shutdown_delay", "log_format",
    }  # fmt: skip


def test_values_reach_it(helm: Helm, tmp_path: Path) -> None:
    values = {
        "controllerName": "example.com/gateways",
        "namespaces": ["a", "b"],
        "gatewayService": {
            "type": "NodePort",
            "annotations": {"example.com/lb": "internal, fast"},
            "externalTrafficPolicy": "Local",
            "aliases": True,
        },
        "clusterDomain": "example.org",
        "ipv6": True,
        "http3": True,
        "proxyProtocolFrom": ["10.0.0.0/8", "fd00::/8"],
        "shutdownDelaySeconds": 20,
        "publishService": "a/b",
        "gwctl": {
            "httpSlots": 20000,
            "tcpSlots": 2,
            "httpListeners": 1000,
            "tcpListeners": 3,
            "resyncIntervalSeconds": 86400,
            "logLevel": "debug",
            "logFormat": "text",
            "metricsPort": 9191,
        },
    }
    config = load(helm.render(values, name="edge"), tmp_path)
    assert config.gateway_controller_name == "example.com/gateways"
    assert config.namespaces == ("a", "b")
    assert config.gateway_service_type == "NodePort"
    assert config.gateway_service_annotations == {"example.com/lb": "internal, fast"}
    assert config.gateway_service_external_traffic_policy == "Local"
    assert config.gateway_service_aliases is True
    assert config.cluster_domain == "example.org"
    assert config.ipv6 is True
    assert config.http3 is True
    assert config.proxy_protocol_from == ("10.0.0.0/8", "fd00::/8")
    assert config.shutdown_delay == 20
    assert config.publish_service == "a/b"
    assert (config.http_slots, config.tcp_slots, config.http_listeners, config.tcp_listeners) == (20000, 2, 1000, 3)
    assert config.resync_interval == 86400
    assert (config.log_level, config.log_format, config.metrics_address) == ("debug", "text", ":9191")
    assert config.lease_name == "edge-gwctl"


def test_options_of_users_win(helm: Helm, tmp_path: Path) -> None:
    config = load(helm.render({"gwctl": {"config": {"http-slots": 7, "log-format": "text"}}}), tmp_path)
    assert (config.http_slots, config.log_format) == (7, "text")


@pytest.mark.parametrize(
    ("gwctl", "message"),
    [
        ({"config": {"lease-name": "a"}}, "gwctl.config: roles, pods or other objects"),
        ({"config": {"lease_name": "a"}}, "depend on lease-name; use the value fullnameOverride"),
        ({"config": {"gateway-service-aliases": True}}, "use the value gatewayService.aliases"),
        ({"config": {"namespaces": ["a"]}}, "depend on namespaces; use the value namespaces"),
        ({"config": {"source": "file:/a"}}, "depend on source; the chart sets it"),
        ({"config": {"dataplane-username": "a"}}, "depend on dataplane-username; the chart sets it"),
        ({"extraArgs": ["--log-level=debug", "--http3"]}, "gwctl.extraArgs: roles, pods or other objects"),
        ({"extraArgs": ["--metrics-address", ":1"]}, "depend on metrics-address; use the value gwctl.metricsPort"),
        ({"extraEnv": [{"name": "GWCTL_IPV6", "value": "true"}]}, "gwctl.extraEnv: roles, pods or other objects"),
    ],
)  # fmt: skip
def test_options_on_which_other_objects_depend_are_refused(helm: Helm, gwctl: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError) as caught:
        helm.render({"gwctl": gwctl})
    assert message in str(caught.value)


def test_which_options_users_may_give(helm: Helm) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    allowed = set()
    for option in OPTIONS.values():
        try:
            helm.render({"gwctl": {"config": {option.key: "x"}}})
        except ChartError as error:
            if named := re.search(r"use the value (\S+)", str(error)):
                above, _, name = named[1].rpartition(".")
                assert name in (values[above] if above else values)
        else:
            allowed.add(option.key)
    assert allowed == {
        "http-slots", "tcp-slots", "http-listeners", "https-listeners", "tls-listeners", "tcp-listeners",
        "gateway-service-annotations", "gateway-service-selector", "gateway-service-external-traffic-policy",
        "cluster-domain", "proxy-protocol-from", "resync-interval", "log-level", "log-format",
    }  # fmt: skip


def test_variables_like_options_that_are_not_gwctls(helm: Helm) -> None:
    rendered = helm.render({"gwctl": {"extraEnv": [{"name": "IPV6", "value": "true"}]}})
    assert rendered.container("gwctl")["env"][-1]["name"] == "IPV6"


def test_an_unknown_option_stops_gwctl(helm: Helm, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key http-slot"):
        load(helm.render({"gwctl": {"config": {"http-slot": 7}}}), tmp_path)
