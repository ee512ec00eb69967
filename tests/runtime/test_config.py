"""The configuration: three spellings of one thing."""

from pathlib import Path

import pytest

from gwctl.api.sensitive import Sensitive
from gwctl.runtime.config import OPTIONS, Config, ConfigError, load_config, split_address


def load(
    tmp_path: Path, flags: dict[str, object] | None = None, env: dict[str, str] | None = None, file: str = ""
) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(file)
    return load_config(flags or {}, env or {}, path)


def test_defaults() -> None:
    config = load_config({}, {}, None)
    assert config.gateway_controller_name == "gwctl.io/gateway-controller"
    assert config.dataplane_url == "http://127.0.0.1:5555"
    assert (config.http_slots, config.tcp_slots, config.resync_interval) == (128, 32, 30)
    assert config == Config()


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.key)
def test_every_option_has_three_spellings(option: object, tmp_path: Path) -> None:
    values = {
        "source": "file:x",
        "gateway_controller_name": "example.com/x",
        "dataplane_url": "unix:///run/api.sock",
        "http_slots": "7",
        "tcp_slots": "7",
        "resync_interval": "5s",
        "metrics_address": "[::1]:80",
        "log_level": "debug",
        "log_format": "json",
        "http_listeners": "7",
        "https_listeners": "8",
        "tls_listeners": "7",
        "tcp_listeners": "7",
        "gateway_service_type": "none",
        "gateway_service_annotations": "a=b,c=d",
        "gateway_service_selector": "a=b",
        "gateway_service_external_traffic_policy": "Local",
        "gateway_service_aliases": "false",
        "publish_service": "a/b",
        "shutdown_delay": "15s",
        "ipv6": "true",
        "http3": "true",
        "proxy_protocol_from": "10.0.0.0/8, ::1",
    }
    assert option in OPTIONS.values()
    for name, known in OPTIONS.items():
        value = values.get(name, "text")
        by_flag = load(tmp_path, flags={name: value})
        by_variable = load(tmp_path, env={known.variable: value})
        by_file = load(tmp_path, file=f"{known.key}: {value!r}")
        assert by_flag == by_variable == by_file != Config()


def test_flag_before_variable_before_file(tmp_path: Path) -> None:
    file, env = "http-slots: 1\ntcp_slots: 1\nlog-level: error\n", {"GWCTL_HTTP_SLOTS": "2", "GWCTL_TCP_SLOTS": "2"}
    config = load(tmp_path, {"http_slots": "3", "log_level": None}, env, file)
    assert (config.http_slots, config.tcp_slots, config.log_level) == (3, 2, "error")


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("http-slots: 9")
    assert load_config({}, {"GWCTL_CONFIG": str(path)}, None).http_slots == 9


@pytest.mark.parametrize(
    ("flags", "env", "file", "message"),
    [
        ({}, {}, "http-slot: 1", "config.yaml: unknown key http-slot"),
        ({}, {}, "http-slots: 1\nhttp_slots: 2", "config.yaml: http-slots is there twice"),
        ({}, {}, "[1]", "config.yaml: must be a mapping of options"),
        ({}, {}, "a: b: c", "config.yaml: line 1: mapping values are not allowed"),
        ({}, {}, "http-slots: many", "config.yaml: http-slots: must be a valid integer"),
        ({}, {"GWCTL_HTTP_SLOTS": "0"}, "", "GWCTL_HTTP_SLOTS: must be greater than or equal to 1"),
        ({"log_level": "loud"}, {}, "", "--log-level: must be 'debug', 'info', 'warning' or 'error'"),
        ({"source": "file:"}, {}, "", "--source: must be file:PATH or kubernetes"),
        ({"dataplane_url": "http://u:p@h"}, {}, "", "--dataplane-url: must be http://HOST:PORT or unix:///PATH"),
        ({"dataplane_url": "h:5555"}, {}, "", "--dataplane-url: must be http://HOST:PORT"),
        ({"metrics_address": "9090"}, {}, "", "--metrics-address: must be HOST:PORT or :PORT"),
        ({"metrics_address": ":99999"}, {}, "", "--metrics-address: must be HOST:PORT or :PORT"),
        ({"gateway_controller_name": "gwctl"}, {}, "", "--gateway-controller-name: must be a DNS name, '/' and a path"),
        ({"proxy_protocol_from": "::1,10.0.0.1/8"}, {}, "", "--proxy-protocol-from: must be networks such as"),
        ({"namespaces": "a,B"}, {}, "", "--namespaces: must be names of namespaces"),
        ({}, {"GWCTL_POD_NAMESPACE": "a.b"}, "", "GWCTL_POD_NAMESPACE: must be the name of a namespace"),
        ({}, {}, "lease-name: a/b", "lease-name: must be the name of a Lease"),
        ({"dataplane_password": "a", "dataplane_password_file": "b"}, {}, "", "exclude each other"),
    ],
)
def test_errors_name_the_option_in_one_sentence(
    tmp_path: Path, flags: dict[str, object], env: dict[str, str], file: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, flags, env, file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file or directory"):
        load_config({}, {}, tmp_path / "none.yaml")


def test_a_password_is_never_printed(tmp_path: Path) -> None:
    config = load(tmp_path, file="dataplane-password: hunter2")
    assert config.read_password() == "hunter2"
    assert str(config.dataplane_password) == "[redacted]"
    assert "hunter2" not in repr(config) + str(config) + config.model_dump_json()
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, file="dataplane-password: [hunter2]")
    assert "hunter2" not in str(caught.value)
    assert Sensitive("a") == Sensitive("a") != Sensitive("b")


def test_a_password_file_is_read_each_time(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("one\n")
    config = load(tmp_path, {"dataplane_password_file": str(path)}, {"GWCTL_DATAPLANE_PASSWORD": "other"})
    assert config.read_password() == "one"
    path.write_text("two")
    assert config.read_password() == "two"
    path.unlink()
    with pytest.raises(ConfigError, match="dataplane-password-file"):
        config.read_password()


@pytest.mark.parametrize(
    ("address", "parts"),
    [(":90", (None, 90)), ("h:1", ("h", 1)), ("[::1]:2", ("::1", 2)), ("0.0.0.0:3", ("0.0.0.0", 3))],
)
def test_addresses(address: str, parts: tuple[str | None, int]) -> None:
    assert split_address(address) == parts


def test_lists_and_mappings_have_a_short_spelling_and_that_of_yaml(tmp_path: Path) -> None:
    by_flag = load(tmp_path, {"namespaces": "a, b", "gateway_service_annotations": "x/y=1, z = a=b"})
    by_file = load(tmp_path, file="namespaces: [a, b]\ngateway-service-annotations: {x/y: '1', z: a=b}")
    assert by_flag == by_file
    assert by_flag.namespaces == ("a", "b")
    assert by_flag.gateway_service_annotations == {"x/y": "1", "z": "a=b"}
    with pytest.raises(ConfigError, match=r"--gateway-service-selector: must be KEY=VALUE,KEY=VALUE"):
        load(tmp_path, {"gateway_service_selector": "app"})
