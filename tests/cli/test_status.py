"""`gwctl status`, of manifests and of a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import Run, write
from tests.kube.apiserver import ApiServer
from tests.manifests import (
    CONTROLLER,
    Manifest,
    allowed_listeners,
    backend,
    backend_tls_policy,
    config_map,
    gateway,
    gateway_class,
    http_route,
    listener,
    listener_set,
    prefix_rule,
    service,
    tcp_route,
)

LISTENERS = [listener("http", 80, "*.example.com"), listener("dns", 53, protocol="UDP")]
THEIRS = [gateway_class("other", "example.com/other"), gateway([listener("a", 80)], "theirs")]
THEIRS[1]["spec"]["gatewayClassName"] = "other"
WORLD: list[Manifest] = [
    *THEIRS,
    gateway_class(),
    gateway(LISTENERS),
    http_route("good", [prefix_rule("/", backend("web"))], ("shop.example.com",)),
    http_route("bad", [prefix_rule("/", backend("gone"))], parents=({"name": "gateway", "sectionName": "http"},)),
    http_route("lost", [prefix_rule("/")], parents=({"name": "theirs"}, {"name": "none"}), namespace="team"),
    http_route("foreign", [prefix_rule("/")], parents=({"name": "theirs"},)),
    tcp_route("db", [backend("web")], parents=({"name": "gateway", "port": 9000},)),
    service("web"),
]
PROBLEMS = [
    (
        "Gateway default/gateway listener dns: Accepted/UnsupportedProtocol: spec.listeners[1].protocol: "
        "HAProxy proxies no UDP"
    ),
    (
        "HTTPRoute default/bad parent default/gateway/http: ResolvedRefs/BackendNotFound: "
        "spec.rules[0].backendRefs[0].name: there is no Service default/gone"
    ),
    "HTTPRoute team/lost parent team/none: Missing: there is no such Gateway",
    "HTTPRoute team/lost parent team/theirs: Missing: there is no such Gateway",
    (
        "TCPRoute default/db parent default/gateway:9000: Accepted/NoMatchingParent: spec.parentRefs[0]: "
        "Gateway default/gateway has no listener at port 9000"
    ),
]


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"file:{write(tmp_path, *WORLD)}"


def test_manifests(run: Run, source: str) -> None:
    result = run("status", "--source", source)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "CLASS    ACCEPTED",
        "haproxy  yes",
        "",
        "GATEWAY          LISTENER  PORT  PROTOCOL  HOSTNAME       ROUTES  PROGRAMMED  ADDRESSES",
        "default/gateway  http      80    HTTP      *.example.com  2       -           -",
        "default/gateway  dns       53    UDP       *              0       -           -",
        "",
        "ROUTE                   HOSTNAMES         PARENT                ACCEPTED  RESOLVED",
        "HTTPRoute default/bad   -                 default/gateway/http  yes       no",
        "HTTPRoute default/good  shop.example.com  default/gateway       yes       yes",
        "HTTPRoute team/lost     -                 team/theirs           -         -",
        "HTTPRoute team/lost     -                 team/none             -         -",
        "TCPRoute default/db     -                 default/gateway:9000  no        yes",
        "",
        "PROBLEMS",
        *PROBLEMS,
    ]


def test_check_is_for_scripts(run: Run, source: str) -> None:
    assert run("status", "--source", source, "--check").exit_code == 1
    assert run("status", "--source", source, "--check", "httproute/good").exit_code == 0


def test_all_is_well(run: Run, shop: Path) -> None:
    result = run("status", "--source", f"file:{shop}", "--check")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "no problems"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("-n", "team"), ["HTTPRoute team/lost"]),
        (("httproute",), ["HTTPRoute default/bad", "HTTPRoute default/good", "HTTPRoute team/lost"]),
        (("HTTPRoutes/bad", "tcproute"), ["HTTPRoute default/bad", "TCPRoute default/db"]),
        (("gtw", "gatewayclasses/haproxy"), ["GatewayClass haproxy", "Gateway default/gateway"]),
        (("gc", "-n", "default"), []),
        (("-n", "nowhere"), []),
    ],
)
def test_filters(run: Run, source: str, arguments: tuple[str, ...], shown: list[str]) -> None:
    result = run("status", "--source", source, "-o", "json", *arguments)
    body = json.loads(result.output)
    names = [f"GatewayClass {item['name']}" for item in body["gatewayClasses"]]
    names += [f"Gateway {item['namespace']}/{item['name']}" for item in body["gateways"]]
    names += [f"{item['kind']} {item['namespace']}/{item['name']}" for item in body["routes"]]
    assert names == shown
    assert all(item["object"] in shown for item in body["problems"])


def test_nothing_to_show(run: Run, source: str) -> None:
    result = run("status", "--source", source, "-n", "nowhere", "--check")
    assert (result.exit_code, result.output) == (0, f"there is nothing of {CONTROLLER}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("httproute/none",), f"Error: httproute/none: there is no HTTPRoute none of {CONTROLLER}\n"),
        (
            ("httproute/lost", "-n", "default"),
            f"Error: httproute/lost: there is no HTTPRoute lost of {CONTROLLER} in namespace default\n",
        ),
        (("service/web",), "Error: 'service/web' is not of the form KIND or KIND/NAME"),
        (("--source", "http://x"), "Error: --source: must be file:PATH or kubernetes\n"),
        (("--source", "file:/nowhere"), "Error: /nowhere: no such file or directory\n"),
    ],
)
def test_wrong_usage(run: Run, source: str, arguments: tuple[str, ...], message: str) -> None:
    result = run("status", "--source", source, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_json_of_manifests(run: Run, source: str) -> None:
    body = json.loads(run("status", "--source", source, "-o", "json").output)
    (found,) = body["gateways"]
    assert found["class"] == "haproxy"
    assert [item["type"] for item in found["conditions"]] == ["Accepted", "ResolvedRefs"]
    http, dns = found["listeners"]
    assert (http["name"], http["port"], http["hostname"], http["attachedRoutes"]) == ("http", 80, "*.example.com", 2)
    assert "hostname" not in dns
    assert dns["conditions"][0] == {
        "type": "Accepted",
        "status": "False",
        "observedGeneration": 0,
        "reason": "UnsupportedProtocol",
        "message": "spec.listeners[1].protocol: HAProxy proxies no UDP",
    }
    good = next(item for item in body["routes"] if item["name"] == "good")
    assert good["hostnames"] == ["shop.example.com"]
    assert [item["status"] for item in good["parents"][0]["conditions"]] == ["True", "True"]
    assert len(body["problems"]) == len(PROBLEMS)


def test_manifests_that_cannot_be_read_are_problems(run: Run, tmp_path: Path) -> None:
    broken = http_route("broken", [{"matches": [{"path": {"value": "no"}}]}])
    source = f"file:{write(tmp_path, gateway_class(), broken)}"
    result = run("status", "--source", source, "--check")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "HTTPRoute default/broken spec.rules[0].matches[0].path.value: Invalid: "
        "must be an absolute path and start with '/'"
    )
    assert "PROBLEMS" not in run("status", "--source", source, "gateway").output


def test_a_file_that_cannot_be_read_is_a_problem_whatever_is_asked_for(run: Run, tmp_path: Path) -> None:
    write(tmp_path, gateway_class(), gateway([listener("http", 80)]))
    (tmp_path / "z.yaml").write_text("kind: HTTPRoute\n")
    result = run("status", "--source", f"file:{tmp_path}", "-n", "default", "gateway", "--check")
    assert result.exit_code == 1
    assert "z.yaml line 1, apiVersion: Invalid: must be a text that is not empty" in result.output.splitlines()[-1]


def test_a_tcproute_that_came_too_late_is_a_problem(run: Run, tmp_path: Path) -> None:
    routes = [tcp_route(name, [backend("web")]) for name in ("a", "b")]
    world = [gateway_class(), gateway([listener("tcp", 80, protocol="TCP")]), service("web"), *routes]
    result = run("status", "--source", f"file:{write(tmp_path, *world)}")
    assert result.output.splitlines()[-1] == (
        "TCPRoute default/b parent default/gateway: Accepted/Accepted: the route is accepted; but "
        "spec.parentRefs[0]: listener tcp serves the older TCPRoute default/a"
    )


# A cluster


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[ApiServer]:
    for name in ("KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with ApiServer() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


async def status(run: Run, *arguments: str) -> Result:
    """Run the command in a thread, since the API server answers in this one."""
    return await asyncio.to_thread(run, "status", *arguments)


def condition(kind: str, state: str = "True", reason: str = "", message: str = "fine", seen: int = 1) -> Manifest:
    return {
        "type": kind,
        "status": state,
        "reason": reason or kind,
        "message": message,
        "observedGeneration": seen,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def fill(server: ApiServer) -> None:
    """A cluster in which some has been told, and some not."""
    good = [condition(kind) for kind in ("Accepted", "Programmed", "ResolvedRefs")]
    for manifest in WORLD:
        server.put(manifest)
    server.put({**gateway_class(), "status": {"conditions": [condition("Accepted")]}})
    bad = [
        condition("Accepted", "False", "UnsupportedProtocol", "no UDP"),
        condition("Programmed", "False", "Invalid", "see the others"),
    ]
    told: dict[str, Any] = {
        "conditions": [*good, condition("example.com/Theirs", "True")],
        "addresses": [{"type": "IPAddress", "value": "192.0.2.1"}],
        "listeners": [
            {"name": "http", "attachedRoutes": 7, "conditions": good},
            {"name": "dns", "attachedRoutes": 0, "conditions": bad},
        ],
    }
    server.put({**gateway(LISTENERS), "status": told})
    dropped = condition("PartiallyInvalid", "True", "UnsupportedValue", "Dropped Rule: 1")
    ours = {
        "parentRef": {"name": "gateway", "namespace": "default"},
        "controllerName": CONTROLLER,
        "conditions": [condition("Accepted"), condition("ResolvedRefs", seen=0), dropped],
    }
    theirs = {**ours, "controllerName": "example.com/other", "conditions": [condition("Accepted", "False")]}
    server.put({**WORLD[4], "status": {"parents": [theirs, ours]}})


async def test_a_cluster(run: Run, server: ApiServer) -> None:
    fill(server)
    result = await status(run)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "CLASS    ACCEPTED",
        "haproxy  yes",
        "",
        "GATEWAY          LISTENER  PORT  PROTOCOL  HOSTNAME       ROUTES  PROGRAMMED  ADDRESSES",
        "default/gateway  http      80    HTTP      *.example.com  7       yes         192.0.2.1",
        "default/gateway  dns       53    UDP       *              0       no          192.0.2.1",
        "",
        "ROUTE                   HOSTNAMES         PARENT                ACCEPTED  RESOLVED",
        "HTTPRoute default/bad   -                 default/gateway/http  -         -",
        "HTTPRoute default/good  shop.example.com  default/gateway       yes       yes",
        "HTTPRoute team/lost     -                 team/theirs           -         -",
        "HTTPRoute team/lost     -                 team/none             -         -",
        "TCPRoute default/db     -                 default/gateway:9000  -         -",
        "",
        "PROBLEMS",
        "Gateway default/gateway listener dns: Accepted/UnsupportedProtocol: no UDP",
        "Gateway default/gateway listener dns: Programmed/Invalid: see the others",
        f"HTTPRoute default/bad parent default/gateway/http: Untold: {CONTROLLER} has not told anything yet",
        "HTTPRoute default/good parent default/gateway: PartiallyInvalid/UnsupportedValue: Dropped Rule: 1",
        "HTTPRoute default/good parent default/gateway: ResolvedRefs/Stale: is about generation 0, the object has 1",
        *PROBLEMS[2:4],
        f"TCPRoute default/db parent default/gateway:9000: Untold: {CONTROLLER} has not told anything yet",
    ]


async def test_conditions_of_others_are_no_problems(run: Run, server: ApiServer) -> None:
    theirs = [condition("example.com/Degraded", "False"), condition("example.com/DnsReady", seen=0)]
    ours = [condition(kind) for kind in ("Accepted", "Programmed", "ResolvedRefs")]
    server.put({**gateway_class(), "status": {"conditions": [condition("Accepted"), *theirs]}})
    told = {"name": "http", "attachedRoutes": 0, "conditions": [*ours, *theirs]}
    manifest = gateway([listener("http", 80)])
    server.put({**manifest, "status": {"conditions": [*ours, *theirs], "listeners": [told]}})
    result = await status(run, "--check")
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "no problems")
    server.put({**manifest, "status": {"conditions": theirs, "listeners": [told]}})
    result = await status(run, "--check")
    assert result.exit_code == 1
    untold = f"Gateway default/gateway: Untold: {CONTROLLER} has not told anything yet"
    assert result.output.splitlines()[-2:] == ["PROBLEMS", untold]


async def test_a_cluster_without_some_kinds(run: Run, server: ApiServer) -> None:
    fill(server)
    server.remove_crd("TCPRoute")
    result = await status(run, "-o", "json")
    assert {item["kind"] for item in json.loads(result.output)["routes"]} == {"HTTPRoute"}
    # An older version is read as well.
    server.serve("TCPRoute", "v1alpha2")
    server.put(WORLD[8])
    result = await status(run, "tcproute")
    assert "TCPRoute default/db" in result.output


async def test_a_cluster_of_which_some_namespaces_are_ours(run: Run, server: ApiServer) -> None:
    fill(server)
    result = await status(run, "--namespaces", "team", "--check")
    assert "TCPRoute" not in result.output
    assert "HTTPRoute team/lost parent team/none: Missing" in result.output
    assert server.count("GET", "/namespaces/team/httproutes") == 1
    assert server.count("GET", "/gatewayclasses") == 1


async def test_lists_come_in_pages(run: Run, server: ApiServer) -> None:
    fill(server)
    for number in range(600):
        server.put(http_route(f"r{number}", [prefix_rule("/")]))
    result = await status(run, "-o", "json", "httproute")
    assert len(json.loads(result.output)["routes"]) == 603


async def test_a_cluster_that_refuses_is_one_sentence(run: Run, server: ApiServer) -> None:
    server.fail("GET", "httproutes", 403)
    result = await status(run)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert "403" in result.output


async def test_no_cluster_is_one_sentence(run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.stop()
    result = await status(run)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    result = await status(run)
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
    assert "/nowhere" in result.output


def test_policies_are_shown_for_the_gateways_that_they_concern(run: Run, tmp_path: Path) -> None:
    route = http_route("r", [prefix_rule("/", backend("web"))])
    policies = [backend_tls_policy("p", "web", "ca", section="http"), backend_tls_policy("q", "nobodys", "ca")]
    world = [gateway_class(), gateway([listener("http", 80)]), route, service("web", {"http": 80}), *policies]
    write(tmp_path, *world, config_map("ca"))
    result = run("status", "--source", f"file:{tmp_path}", "backendtlspolicy")
    assert result.output.splitlines() == [
        "POLICY                      TARGETS   GATEWAY          ACCEPTED  RESOLVED",
        "BackendTLSPolicy default/p  web:http  default/gateway  no        no",
        "",
        "PROBLEMS",
        (
            "BackendTLSPolicy default/p gateway default/gateway: Accepted/NoValidCACertificate: "
            "spec.validation.caCertificateRefs: none of the references leads to a CA certificate"
        ),
        (
            "BackendTLSPolicy default/p gateway default/gateway: ResolvedRefs/InvalidCACertificateRef: "
            "spec.validation.caCertificateRefs[0]: ConfigMap default/ca has no ca.crt"
        ),
    ]
    plain = json.loads(run("status", "--source", f"file:{tmp_path}", "-o", "json").output)
    (policy,) = plain["policies"]
    assert (policy["name"], [entry["ancestorRef"]["name"] for entry in policy["ancestors"]]) == ("p", ["gateway"])


def test_listener_sets_are_shown_with_their_gateway_and_what_is_wrong(run: Run, tmp_path: Path) -> None:
    source = write(
        tmp_path,
        gateway_class(),
        gateway([listener("http", 80, "a.test")], **allowed_listeners("Same")),
        listener_set("shop", [listener("http", 80, "shop.test"), listener("late", 80, "a.test")]),
        listener_set("out", [listener("http", 80, "out.test")], namespace="team"),
        listener_set("lost", [listener("http", 80)], parent="none"),
        http_route("web", [prefix_rule("/", backend("web"))], parents=({"kind": "ListenerSet", "name": "shop"},)),
        service("web"),
    )
    result = run("status", "--source", f"file:{source}", "listenerset", "httproute")
    assert result.output.splitlines() == [
        "LISTENERSET   LISTENER  PORT  PROTOCOL  HOSTNAME   ROUTES  PROGRAMMED  GATEWAY",
        "default/shop  http      80    HTTP      shop.test  1       -           default/gateway",
        "default/shop  late      80    HTTP      a.test     1       -           default/gateway",
        "team/out      http      80    HTTP      out.test   -       -           default/gateway",
        "",
        "ROUTE                  HOSTNAMES  PARENT                    ACCEPTED  RESOLVED",
        "HTTPRoute default/web  -          ListenerSet default/shop  yes       yes",
        "",
        "PROBLEMS",
        "ListenerSet default/lost: Missing: there is no Gateway default/none",
        (
            "ListenerSet default/shop listener late: Accepted/HostnameConflict: spec.listeners[1].hostname: "
            "port and hostname are also those of a listener of Gateway default/gateway"
        ),
        (
            "ListenerSet default/shop listener late: Conflicted/HostnameConflict: spec.listeners[1].hostname: "
            "port and hostname are also those of a listener of Gateway default/gateway"
        ),
        (
            "ListenerSet team/out: Accepted/NotAllowed: spec.parentRef: spec.allowedListeners of "
            "Gateway default/gateway lets in no ListenerSet from namespace team"
        ),
    ]
    plain = json.loads(run("status", "--source", f"file:{source}", "-o", "json", "lset/shop").output)
    assert [item["name"] for item in plain["listenerSets"]] == ["shop"]
    assert [item["attachedRoutes"] for item in plain["listenerSets"][0]["listeners"]] == [1, 1]
