"""The configuration file of a release, as gwctl itself reads it."""

from pathlib import Path
from typing import Any

import pytest

from gwctl.runtime.config import Config, ConfigError, load_config
from tests.chart.combinations import COMBINATIONS
from tests.chart.rendering import Helm, Rendered

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
    config = load(helm.render({"gwctl": {"config": {"http-slots": 7, "dataplane-username": "other"}}}), tmp_path)
    assert (config.http_slots, config.dataplane_username) == (7, "other")


def test_an_unknown_option_stops_gwctl(helm: Helm, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key http-slot"):
        load(helm.render({"gwctl": {"config": {"http-slot": 7}}}), tmp_path)
