"""Secrets of a cluster: only those that Gateways refer to are read, each by its name."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from gwctl.api.parse import is_unreadable
from gwctl.api.ref import Ref
from gwctl.api.secret import Secret
from gwctl.graph.referenced import MOST_CONFIG_MAPS
from gwctl.kube.client import KubeClient
from gwctl.kube.reflector import Pace
from gwctl.providers.kubernetes import KubernetesSource
from tests.certificates import make_authority, make_pair
from tests.kube.apiserver import ApiServer
from tests.manifests import (
    CONTROLLER,
    backend_tls_policy,
    config_map,
    gateway,
    gateway_class,
    https_listener,
    listener,
    listener_set,
)
from tests.providers.reader import Reader

PACE = Pace(first=0.01, longest=0.04, refused=600.0, missing=0.02)
A, B = make_pair("a.test"), make_pair("b.test")


@pytest.fixture
def server(server: ApiServer) -> ApiServer:
    server.put(gateway_class())
    return server


@asynccontextmanager
async def reading(client: KubeClient, pace: Pace = PACE) -> AsyncIterator[tuple[KubernetesSource, Reader]]:
    source = KubernetesSource(client, controller_name=CONTROLLER, pace=pace)
    reader = Reader(source)
    try:
        await reader.next()
        yield source, reader
    finally:
        await reader.close()


def refer(server: ApiServer, *secrets: str, name: str = "gateway", namespace: str | None = None) -> None:
    """Write a Gateway with a listener that refers to Secrets."""
    manifest = gateway([https_listener("https", 443, *secrets)], name)
    for reference in manifest["spec"]["listeners"][0]["tls"]["certificateRefs"]:
        reference |= {"namespace": namespace} if namespace else {}
    server.put(manifest)


def secret(name: str, namespace: str = "default") -> Ref:
    return Ref("Secret", namespace, name)


def known(reader: Reader) -> set[Ref]:
    return {ref for ref in reader.state if ref.kind == "Secret"}


def asked(server: ApiServer) -> set[str]:
    """The names of Secrets that were asked for; ``*`` for all."""
    return {
        request.partition("metadata.name%3D")[2].partition("&")[0] or request.partition("metadata.name=")[2] or "*"
        for request in server.requests
        if "/secrets" in request
    }


async def test_the_first_batch_has_the_secrets_that_gateways_refer_to_and_no_other_is_asked_for(
    client: KubeClient, server: ApiServer
) -> None:
    for name in ("a", "b", "other"):
        server.put(A.secret(name))
    refer(server, "a", "b", "missing")
    async with reading(client) as (source, reader):
        assert known(reader) == {secret("a"), secret("b")}
        assert source.unread_kinds == ()
    assert asked(server) == {"a", "b", "missing"}


async def test_nothing_is_asked_for_a_gateway_of_others(client: KubeClient, server: ApiServer) -> None:
    server.put(A.secret("a"))
    refer(server, "a")
    server.put(gateway_class(controller="example.com/other"))
    async with reading(client) as (_, reader):
        assert known(reader) == set()
    assert asked(server) == set()


async def test_a_gateway_comes_with_its_secrets(client: KubeClient, server: ApiServer) -> None:
    server.put(A.secret("a"))
    async with reading(client) as (_, reader):
        refer(server, "a")
        await reader.until(lambda: Ref("Gateway", "default", "gateway") in reader.state)
        assert known(reader) == {secret("a")}
        assert len(reader.seen) == 2


async def test_a_secret_is_followed_until_nobody_refers_to_it(client: KubeClient, server: ApiServer) -> None:
    refer(server, "a")
    refer(server, "a", name="second")
    async with reading(client) as (_, reader):
        server.put(A.secret("a"))
        await reader.until(lambda: known(reader) == {secret("a")})
        server.put(B.secret("a"))
        await reader.until(lambda: content(reader, secret("a")) == B.certificate)
        server.remove("Gateway", "second")
        await reader.until(lambda: Ref("Gateway", "default", "second") not in reader.state)
        assert known(reader) == {secret("a")}
        server.remove("Gateway", "gateway")
        await reader.until(lambda: Ref("Gateway", "default", "gateway") not in reader.state)
        assert known(reader) == set()
        await server.until(lambda: not [watcher for watcher in server.watchers if watcher.kind.name == "Secret"])


def content(reader: Reader, ref: Ref) -> str:
    found = reader.state[ref]
    assert isinstance(found, Secret)
    text = found.content("tls.crt")
    assert text is not None
    return text.reveal()


async def test_a_listener_set_brings_its_secrets_while_its_gateway_lets_it_in(
    client: KubeClient, server: ApiServer
) -> None:
    selector = {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}
    server.put(gateway([listener("http", 80)], allowedListeners={"namespaces": selector}))
    server.put(listener_set("set", [https_listener("https", 443, "a")], namespace="team"))
    server.put(A.secret("a", "team"))
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    async with reading(client) as (_, reader):
        assert asked(server) == set()
        server.put({**namespace, "metadata": {"name": "team", "labels": {"team": "a"}}})
        await reader.until(lambda: known(reader) == {secret("a", "team")})
        server.put(namespace)
        await reader.until(lambda: known(reader) == set())


async def test_another_namespace_is_asked_while_a_grant_allows_it(client: KubeClient, server: ApiServer) -> None:
    server.put(A.secret("a", "n"))
    refer(server, "a", namespace="n")
    async with reading(client) as (_, reader):
        assert asked(server) == set()
        server.put(grant())
        await reader.until(lambda: known(reader) == {secret("a", "n")})
        server.remove("ReferenceGrant", "g", "n")
        await reader.until(lambda: known(reader) == set())


def grant() -> dict[str, Any]:
    group = "gateway.networking.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "n"},
        "spec": {
            "from": [{"group": group, "kind": "Gateway", "namespace": "default"}],
            "to": [{"group": "", "kind": "Secret"}],
        },
    }


async def test_a_secret_that_gwctl_may_not_read_is_told_and_holds_nothing_up(
    client: KubeClient, server: ApiServer
) -> None:
    server.put(A.secret("a"))
    server.put(B.secret("b"))
    server.fail("GET", "secrets?fieldSelector=metadata.name%3Da", 403, times=1000)
    server.fail("GET", "secrets?limit=500&fieldSelector=metadata.name%3Da", 403, times=1000)
    refer(server, "a", "b")
    async with reading(client) as (_, reader):
        assert known(reader) == {secret("b")}
        assert [(item.subject, item.message) for item in reader.invalid] == [
            (secret("a"), "cannot be read: let gwctl's service account get, list and watch it")
        ]


async def test_a_name_that_no_object_can_have_is_never_asked_for(client: KubeClient, server: ApiServer) -> None:
    server.put(A.secret("real"))
    refer(server, "real", "=real", "a,b", "real\n", "Real", "a b", "!=real")
    server.put(backend_tls_policy("p", "web", "=ca", "x,metadata.name!=x"))
    async with reading(client) as (source, reader):
        assert known(reader) == {secret("real")}
        assert source.unread_kinds == ()
        refer(server, "real")
        await reader.next()
        assert known(reader) == {secret("real")}
    assert asked(server) == {"real"}
    assert not [request for request in server.requests if "/configmaps" in request]


@pytest.mark.parametrize("status", [400, 404, 405, 422])
async def test_a_secret_that_the_api_server_refuses_for_good_is_told_and_holds_nothing_up(
    client: KubeClient, server: ApiServer, status: int
) -> None:
    server.put(A.secret("a"))
    server.put(B.secret("b"))
    server.fail("GET", "secrets?limit=500&fieldSelector=metadata.name%3Da", status, times=1000)
    refer(server, "a", "b")
    async with reading(client) as (_, reader):
        assert known(reader) == {secret("b")}
        message = f"cannot be read: the Kubernetes API refuses it with status {status}"
        assert [(item.subject, item.message) for item in reader.invalid] == [(secret("a"), message)]
        server.heal()
        await reader.until(lambda: known(reader) == {secret("a"), secret("b")})
        assert reader.invalid == ()


async def test_the_beginning_does_not_wait_for_ever(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(B.secret("b"))
    server.fail("GET", "secrets?limit=500&fieldSelector=metadata.name%3Da", 500, times=100_000)
    refer(server, "a", "b")
    with caplog.at_level(logging.WARNING, "gwctl.providers.referenced"):
        async with reading(client, replace(PACE, begin=0.5)) as (_, reader):
            assert Ref("Gateway", "default", "gateway") in reader.state
            assert known(reader) == {secret("b")}
    (record,) = [item for item in caplog.records if item.name == "gwctl.providers.referenced"]
    assert record.__dict__["objects"] == "Secret default/a"


async def test_a_secret_that_cannot_be_had_holds_nothing_up_for_long(client: KubeClient, server: ApiServer) -> None:
    async with reading(client) as (_, reader):
        released = server.hang("GET", "secrets")
        started = time.monotonic()
        refer(server, "a")
        await reader.next(20.0)
        assert Ref("Gateway", "default", "gateway") in reader.state
        assert time.monotonic() - started > 1.0
        released.set()


async def test_what_is_told_of_a_secret_holds_nothing_of_it(client: KubeClient, server: ApiServer) -> None:
    server.put({**A.secret("a"), "data": {"tls.crt": "no base64!", "tls.key": 5}})
    refer(server, "a")
    async with reading(client) as (_, reader):
        assert {(item.field, item.message) for item in reader.invalid} == {
            ("data[tls.crt]", "must be base64"),
            ("data[tls.key]", "must be base64"),
        }
        assert known(reader) == set()


async def test_config_maps_that_policies_refer_to_are_read_by_name_and_no_other_is_asked_for(
    client: KubeClient, server: ApiServer
) -> None:
    one, two = make_authority("one"), make_authority("two")
    for name in ("a", "other"):
        server.put(config_map(name, one))
    server.put(backend_tls_policy("p", "web", "a", "missing"))
    async with reading(client) as (_, reader):
        (found,) = [resource for ref, resource in reader.state.items() if ref.kind == "ConfigMap"]
        assert found.metadata.name == "a"
        server.put(config_map("missing", two))
        await reader.until(lambda: Ref("ConfigMap", "default", "missing") in reader.state)
        server.remove("BackendTLSPolicy", "p")
        await reader.until(lambda: not [ref for ref in reader.state if ref.kind == "ConfigMap"])
    paths = [request for request in server.requests if "/configmaps" in request]
    assert {name for path in paths for name in ("a", "missing", "other") if f"name%3D{name}" in path} == {
        "a",
        "missing",
    }
    assert all("fieldSelector" in path for path in paths)


async def test_a_policy_that_cannot_be_read_is_there_and_keeps_its_last_good_version(
    client: KubeClient, server: ApiServer
) -> None:
    name = Ref("BackendTLSPolicy", "default", "p")
    wrong = backend_tls_policy("p", "web", "a", subjectAltNames=[{"type": "IPAddress"}])
    server.put(wrong)
    async with reading(client) as (_, reader):
        assert is_unreadable(reader.state[name])
        assert [item.field for item in reader.invalid] == ["spec.validation.subjectAltNames[0].type"]
        server.put(backend_tls_policy("p", "web", "a"))
        await reader.until(lambda: not is_unreadable(reader.state[name]))
        assert reader.invalid == ()
        server.put(wrong)
        await reader.until(lambda: reader.invalid != ())
        assert not is_unreadable(reader.state[name])
        server.remove("BackendTLSPolicy", "p")
        await reader.until(lambda: name not in reader.state)
        assert reader.invalid == ()


async def test_more_config_maps_than_are_followed_are_told_of_once(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(MOST_CONFIG_MAPS // 8 + 2):
        server.put(backend_tls_policy(f"p{number}", "web", *(f"c{number}-{index}" for index in range(8))))
    with caplog.at_level(logging.INFO, "gwctl.providers.referenced"):
        async with reading(client) as (_, reader):
            server.put(backend_tls_policy("p0", "web", "other"))
            await reader.next()
            server.remove("BackendTLSPolicy", "p0")
            server.remove("BackendTLSPolicy", "p1")
            await reader.until(lambda: Ref("BackendTLSPolicy", "default", "p1") not in reader.state)
    told = [item for item in caplog.records if item.name == "gwctl.providers.referenced"]
    assert [(item.levelname, item.__dict__["namespace"]) for item in told] == [
        ("WARNING", "default"),
        ("INFO", "default"),
    ]
    asked_for = {
        request.partition("%3D")[2].partition("&")[0] for request in server.requests if "/configmaps" in request
    }
    assert len(asked_for) >= MOST_CONFIG_MAPS
