"""`gwctl translate`: the same words each time, and both formats say the same."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run, write
from tests.manifests import gateway, gateway_class, listener


@pytest.mark.parametrize("stage", ["graph", "routes", "haproxy"])
def test_both_formats_say_the_same(run: Run, shop: Path, stage: str) -> None:
    as_yaml = run("translate", "-f", shop, "--to", stage)
    as_json = run("translate", "-f", shop, "--to", stage, "-o", "json")
    assert as_yaml.exit_code == as_json.exit_code == 0
    assert yaml.safe_load(as_yaml.output) == json.loads(as_json.output)
    assert run("translate", "-f", shop, "--to", stage).output == as_yaml.output


def test_the_order_of_manifests_does_not_matter(run: Run, shop: Path) -> None:
    before = run("translate", "-f", shop).output
    documents = list(yaml.safe_load_all(shop.read_text()))
    shop.write_text(yaml.safe_dump_all(reversed(documents)))
    assert run("translate", "-f", shop).output == before


def test_graph(run: Run, shop: Path) -> None:
    graph = json.loads(run("translate", "-f", shop, "--to", "graph", "-o", "json").output)
    assert graph["classes"] == {"GatewayClass haproxy": "GatewayClass haproxy"}
    assert graph["listeners"]["default/gateway/http"]["attached_routes"] == 1
    route = graph["routes"]["HTTPRoute default/shop"]
    assert [item["hostnames"] for item in route["attachments"]] == [["shop.example.com"]]
    assert route["rules"][1]["backends"] == [{"weight": 1, "service": "default/web/80"}]


def test_routes(run: Run, shop: Path) -> None:
    routes = json.loads(run("translate", "-f", shop, "--to", "routes", "-o", "json").output)
    paths = routes["paths"]["default/gateway/http shop.example.com"]
    assert list(paths) == ["exact /old", "prefix /", "prefix /cart", "prefix /none"]
    assert [item["rule"]["index"] for item in paths["prefix /cart"]] == [0, 0, 1]
    assert "contributions" not in routes


def test_haproxy(run: Run, shop: Path) -> None:
    state = json.loads(run("translate", "-f", shop, "-o", "json", "--http-slots", "8").output)
    assert state["unused_slots"] == {"http": 6, "tcp": 31}
    assert "frontends gwctl.default.gateway.8080" in state["sections"]
    slot = state["tables"]["gwctl-services.map"]["default/web/80"]
    assert list(state["servers"][slot]) == ["10.0.0.1_8080", "10.0.0.2_8080"]
    assert "/var/lib/gwctl/maps/gwctl-hosts.map" in json.dumps(state["sections"]["defaults gwctl-http"])


def test_haproxy_listens_as_the_configuration_says(run: Run, tmp_path: Path) -> None:
    manifests = write(tmp_path, gateway_class(), gateway([listener("http", 8080)], addresses=[]))
    config = tmp_path / "gwctl.conf"
    config.write_text("ipv6: true\n")
    state = json.loads(run("translate", "-f", manifests, "-o", "json", "--config", config).output)
    binds = state["sections"]["frontends gwctl.default.gateway.8080"]["binds"]
    assert [bind["address"] for bind in binds.values()] == ["*", "::"]
