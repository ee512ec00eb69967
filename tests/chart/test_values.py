"""The values: all are described, and bad ones are refused with a sentence."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

import gwctl
from tests.chart.rendering import CHART, ChartError, Helm

TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


NULL_MEANS_NONE = re.compile(
    r"(podS|s)ecurityContext|.*\.resources(\..*)?|.*Probe\..*|autoscaling\.behavior|podDisruptionBudget\.maxUnavailable"
)
"""Keys with a default that is not empty and that may be null in its place."""


def find_keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """The keys that the schema knows; one that only holds others ends with a dot."""
    schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if schema.get("additionalProperties") is not False:
        yield path.rstrip(".")
        return
    if path:
        yield path
    for name, of in schema["properties"].items():
        yield from find_keys(of, f"{path}{name}.")


KEYS = frozenset(find_keys(SCHEMA))


def test_the_version_is_that_of_gwctl() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == gwctl.__version__


def test_the_schema_knows_the_values_and_no_others() -> None:
    def find_given(values: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, value in values.items():
            if f"{path}{name}." in KEYS:
                yield f"{path}{name}."
                yield from find_given(value, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    given = set(find_given(yaml.safe_load(TEXT)))
    # Fields that Kubernetes knows and that have no default here, and what a chart around this one may hand in.
    without_default = re.compile(r"global|enabled|.*Probe\..*|.*\.resources\.(limits|claims)")
    assert given <= KEYS
    assert not [key for key in KEYS - given if not without_default.fullmatch(key)]


def find_required(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    yield from (f"{path}{name}" for name in schema.get("required", ()))
    for name, of in schema.get("properties", {}).items():
        yield from find_required(of, f"{path}{name}.")


def find_defaults(values: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{path}{name}", value
        if f"{path}{name}." in KEYS:
            yield from find_defaults(value, f"{path}{name}.")


def test_null_is_refused_where_it_would_mean_nothing() -> None:
    needed = {key for key, value in find_defaults(yaml.safe_load(TEXT)) if value not in (None, "", [], {})}
    assert set(find_required(SCHEMA)) == {key for key in needed if not NULL_MEANS_NONE.fullmatch(key)}


def test_null_means_none_elsewhere(helm: Helm) -> None:
    required = set(find_required(SCHEMA))

    def with_nulls(values: dict[str, Any], path: str = "") -> dict[str, Any]:
        given = {name: value if f"{path}{name}" in required else None for name, value in values.items()}
        return {
            name: with_nulls(value, f"{path}{name}.") if isinstance(value, dict) else value
            for name, value in given.items()
        }

    values = with_nulls(yaml.safe_load(TEXT))
    values["podDisruptionBudget"]["enabled"] = False
    rendered = helm.render(values)
    assert rendered.config == helm.render().config
    for holder in (rendered.pod, *rendered.containers):
        assert not {"securityContext", "resources", "nodeSelector"} & holder.keys()


def test_every_value_has_a_comment() -> None:
    path: list[tuple[int, str]] = []
    without: list[str] = []
    lines = TEXT.splitlines()
    for above, line in pairwise(lines):
        if (match := re.match(r"( *)([A-Za-z]+):", line)) is None:
            continue
        path = [item for item in path if item[0] < len(match[1])] + [(len(match[1]), match[2])]
        key = ".".join(name for _, name in path)
        of_kubernetes = re.search(r"Probe\.|\.resources\.", key)
        if key in KEYS and not of_kubernetes and not above.lstrip().startswith("# "):
            without.append(key)
    assert without == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"gwctl": {"loglevel": "info"}}, "at '/gwctl': additional properties 'loglevel' not allowed"),
        ({"replicas": -1}, "at '/replicas': minimum: got -1, want 0"),
        ({"replicas": "two"}, "at '/replicas': got string, want integer"),
        ({"kind": "Job"}, "at '/kind': value must be one of 'Deployment', 'DaemonSet'"),
        ({"gatewayService": {"type": "loadbalancer"}}, "at '/gatewayService/type': value must be one of"),
        ({"gatewayService": {"annotations": {"a": 1}}}, "at '/gatewayService/annotations/a': got number, want string"),
        ({"namespaces": ["a", "a"]}, "at '/namespaces': items at 0 and 1 are equal"),
        ({"namespaces": "a"}, "at '/namespaces': got string, want array"),
        ({"haproxy": {"hardStopAfterSeconds": "3s"}}, "at '/haproxy/hardStopAfterSeconds': got string, want integer"),
        ({"gwctl": {"image": {"tag": "a b"}}}, "at '/gwctl/image/tag': 'a b' does not match pattern"),
        ({"image": {"registry": "https://r.example"}}, "at '/image/registry': 'https://r.example' does not match"),
        ({"gatewayClass": {"name": None}}, "at '/gatewayClass': missing property 'name'"),
        ({"controllerName": "gwctl"}, "controllerName must be a DNS name, '/' and a path, such as"),
        ({"publishService": "name"}, "publishService must be namespace/name, but is 'name'"),
        ({"publishService": "a/b", "namespaces": ["c"]}, "publishService: namespaces must hold a"),
        ({"gwctl": {"metricsPort": 30001}}, "gwctl.metricsPort must not be 30001: HAProxy listens on 20001 to 39999"),
        ({"gwctl": {"metricsPort": 8405}}, "gwctl.metricsPort and haproxy.metricsPort must differ"),
        ({"autoscaling": {"enabled": True}, "kind": "DaemonSet"}, "autoscaling.enabled: a DaemonSet has one pod"),
        ({"autoscaling": {"enabled": True, "minReplicas": 20}}, "autoscaling.minReplicas must not be above"),
        (
            {"autoscaling": {"enabled": True}, "haproxy": {"resources": {"requests": {"cpu": None}}}},
            "the use of CPU is measured against haproxy.resources.requests.cpu, which is not set",
        ),
        ({"podDisruptionBudget": {"minAvailable": 1}}, "minAvailable and maxUnavailable exclude each other"),
        ({"podDisruptionBudget": {"maxUnavailable": None}}, "podDisruptionBudget: give minAvailable or maxUnavailable"),
        ({"podDisruptionBudget": {"maxUnavailable": "many"}}, "'many' does not match pattern"),
        ({"privilegedPorts": True}, "privilegedPorts: only with hostNetwork"),
        (
            {"metrics": {"monitor": {"kind": "ServiceMonitor"}, "service": {"enabled": False}}},
            "a ServiceMonitor needs metrics.service.enabled",
        ),
        ({"terminationGracePeriodSeconds": 17}, "terminationGracePeriodSeconds must be above shutdownDelaySeconds + 2"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_with_a_sentence(helm: Helm, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError) as caught:
        helm.render(values)
    assert message in str(caught.value)


def test_a_chart_around_this_one_may_hand_in_its_own(helm: Helm) -> None:
    assert helm.render({"global": {"region": "eu"}, "enabled": True}).objects == helm.render().objects
