"""What Helm says after an install."""

from typing import Any

import pytest
import yaml

from gwctl.api.gateway import Gateway
from gwctl.api.httproute import HTTPRoute
from gwctl.api.parse import parse_resource
from gwctl.api.wire import GATEWAY_GROUP
from gwctl.providers.kubernetes import KINDS
from tests.chart.rendering import Helm

GROUP = "gateway.networking.k8s.io/v1"
SERVED = [f"{GROUP}/{kind.name}" for kind in KINDS if kind.group == GATEWAY_GROUP]
LATER = [f"{GROUP}/{name}" for name in ("GRPCRoute", "TLSRoute", "BackendTLSPolicy", "ListenerSet")]


def test_it_says_how_to_install_the_gateway_api_where_it_is_missing(helm: Helm) -> None:
    notes = helm.notes()
    assert "this cluster does not know the Gateway API" in notes
    assert "kubectl apply --server-side -f https://" in notes


def test_it_says_which_kinds_are_missing(helm: Helm) -> None:
    served = [item for item in (*SERVED, *LATER) if not item.endswith(("/TCPRoute", "/ListenerSet"))]
    notes = helm.notes(served=served)
    assert "this cluster does not serve TCPRoute, ListenerSet in version v1" in notes
    assert "NOTE" not in helm.notes(served={*SERVED, *LATER})


@pytest.mark.parametrize(
    ("values", "port", "class_name"),
    [
        ({}, 80, "gwctl"),
        ({"gatewayClass": {"name": "edge"}}, 80, "edge"),
        ({"gatewayClass": {"name": "123"}}, 80, "123"),
        ({"hostNetwork": True}, 8080, "gwctl"),
        ({"hostNetwork": True, "privilegedPorts": True}, 80, "gwctl"),
    ],
)
def test_its_example_is_one_that_gwctl_understands(
    helm: Helm, values: dict[str, Any], port: int, class_name: str
) -> None:
    text = helm.notes(values).partition("<<EOF\n")[2].partition("\nEOF\n")[0]
    (gateway, no_problems), (route, none_either) = (parse_resource(item) for item in yaml.safe_load_all(text))
    assert isinstance(gateway, Gateway) and isinstance(route, HTTPRoute)
    assert not no_problems and not none_either
    assert gateway.spec.gateway_class_name == class_name
    assert [listener.port for listener in gateway.spec.listeners] == [port]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["rollout status deployment/gwctl", "-n gwctl-system get services"]),
        ({"kind": "DaemonSet", "hostNetwork": True}, ["rollout status daemonset/gwctl", "below 1024"]),
        ({"namespaces": ["team-a", "team-b"]}, ["these namespaces only: team-a, team-b", "apply -n team-a"]),
        ({"gatewayClass": {"create": False}}, ["this release makes none"]),
    ],
)  # fmt: skip
def test_it_speaks_of_the_release(helm: Helm, values: dict[str, Any], said: list[str]) -> None:
    notes = helm.notes(values)
    assert all(text in notes for text in said)
