"""The client: what it asks, what it makes of the answers, and what it never says."""

import asyncio
import logging
import shutil
import ssl
import subprocess
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gwctl.kube.client import KubeClient, WatchEvent
from gwctl.kube.error import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    Malformed,
    NoConfiguration,
    NotFound,
    Refused,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from tests.kube.apiserver import ApiServer

SERVICES = "/api/v1/namespaces/default/services"


def service(name: str = "web", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"port": 80}]},
        **more,
    }


async def test_an_object_from_its_creation_to_its_end(client: KubeClient) -> None:
    created = await client.create(SERVICES, service())
    path = f"{SERVICES}/web"
    assert created == await client.get(path)
    with pytest.raises(AlreadyExists, match=f'POST {SERVICES}: 409: services "web" already exists'):
        await client.create(SERVICES, service())
    patched = await client.patch(path, {"metadata": {"labels": {"a": "b"}}})
    assert patched["spec"] == created["spec"]
    assert patched["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Conflict):
        await client.delete(path, uid="another")
    await client.delete(path, uid=created["metadata"]["uid"])
    with pytest.raises(NotFound) as error:
        await client.delete(path)
    assert not error.value.transient


async def test_applying_creates_and_changes(client: KubeClient) -> None:
    path = f"{SERVICES}/web"
    await client.apply(path, service(metadata={"name": "web", "namespace": "default"}))
    await client.apply(path, {"metadata": {"annotations": {"a": "b"}}}, manager="other", force=False)
    assert (await client.get(path))["metadata"]["annotations"] == {"a": "b"}


async def test_a_status_is_written_on_the_version_that_was_seen_only(client: KubeClient) -> None:
    created = await client.create(SERVICES, service())
    version = created["metadata"]["resourceVersion"]
    written = await client.patch_status(f"{SERVICES}/web", {"loadBalancer": {}}, version)
    assert written["status"] == {"loadBalancer": {}}
    assert written["spec"] == created["spec"]
    with pytest.raises(Conflict):
        await client.patch_status(f"{SERVICES}/web", {"loadBalancer": None}, version)


async def test_a_list_in_pages(client: KubeClient, server: ApiServer) -> None:
    for name in "abcde":
        server.put(service(name))
    page = await client.list_page(SERVICES, limit=3)
    rest = await client.list_page(SERVICES, page["metadata"]["continue"], limit=3)
    assert [item["metadata"]["name"] for item in page["items"] + rest["items"]] == list("abcde")
    one = await client.list_page(SERVICES, field_selector="metadata.name=c")
    assert [item["metadata"]["name"] for item in one["items"]] == ["c"]


async def test_an_error_names_method_path_and_what_the_server_said(client: KubeClient, server: ApiServer) -> None:
    server.fail("GET", "services", 403)
    with pytest.raises(Forbidden) as error:
        await client.get(SERVICES)
    assert str(error.value) == f"GET {SERVICES}: 403: get is refused by the test"
    assert error.value.reason == "Forbidden"


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, Invalid, False), (401, Unauthorized, True), (403, Forbidden, False), (405, Refused, False),
        (410, Gone, False), (422, Invalid, False), (429, TooManyRequests, True), (500, ServerError, True),
        (503, ServerError, True),
    ],
)  # fmt: skip
async def test_each_status_has_its_error(
    client: KubeClient, server: ApiServer, status: int, kind: type[KubeError], transient: bool
) -> None:
    server.fail("GET", "services", status, Retry_After="7")
    with pytest.raises(kind) as error:
        await client.get(SERVICES)
    assert type(error.value) is kind
    assert (error.value.transient, error.value.retry_after) == (transient, 7.0)


@pytest.mark.parametrize(("header", "seconds"), [("9999999", 120.0), ("soon", None)])
async def test_a_wait_that_is_asked_for_has_a_limit(
    client: KubeClient, server: ApiServer, header: str, seconds: float | None
) -> None:
    server.fail("GET", "services", 429, Retry_After=header)
    with pytest.raises(TooManyRequests) as error:
        await client.get(SERVICES)
    assert error.value.retry_after == seconds


async def test_nothing_of_a_secret_is_ever_said(client: KubeClient, server: ApiServer) -> None:
    body = b'{"kind": "Status", "code": 422, "reason": "Invalid", "message": "data[k]: Invalid value: \\"hunter2\\""}'
    for path in ("/api/v1/namespaces/default/secrets", "/api/v1/namespaces/default/secrets/s"):
        server.answer_with("PATCH", "secrets", body, 422)
        with pytest.raises(Invalid) as error:
            await client.patch(path, {"data": {"k": "hunter2"}})
        assert str(error.value) == f"PATCH {path}: 422: Invalid"


async def test_a_private_key_is_never_repeated(client: KubeClient, server: ApiServer) -> None:
    body = b'{"message": "spec.key: -----BEGIN PRIVATE KEY-----\\nc2VjcmV0"}'
    server.answer_with("GET", "services", body, 422)
    with pytest.raises(Invalid, match=r"spec.key: \[redacted\]$"):
        await client.get(SERVICES)


async def test_answers_that_are_none(client: KubeClient, server: ApiServer) -> None:
    server.answer_with("GET", "services", b"<html>")
    with pytest.raises(Malformed) as malformed:
        await client.get(SERVICES)
    assert malformed.value.transient
    server.answer_with("GET", "services", b"<html>", 502)
    with pytest.raises(Unreachable, match="502 from a proxy"):
        await client.get(SERVICES)


async def test_a_call_that_is_never_answered_ends(server: ApiServer, tmp_path: Path) -> None:
    server.hang("GET", "services")
    async with KubeClient(server.kubeconfig(tmp_path / "kubeconfig"), timeout=0.1) as client:
        with pytest.raises(Unreachable, match="no answer in time") as error:
            await client.get(SERVICES)
    assert error.value.transient


async def test_an_api_server_that_is_away_is_told_of_once(
    client: KubeClient, server: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gwctl")
    await server.stop()
    assert client.unreachable_seconds is None
    for _ in range(3):
        with pytest.raises(Unreachable):
            await client.get(SERVICES)
    away = client.unreachable_seconds
    await server.start()
    for _ in range(3):
        await client.get("/apis/gateway.networking.k8s.io")
    assert (away is not None, client.unreachable_seconds) == (True, None)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "the Kubernetes API server does not answer"),
        ("INFO", "the Kubernetes API server answers again"),
    ]


# Watching


async def test_events_come_in_order_with_bookmarks_until_the_end(client: KubeClient, server: ApiServer) -> None:
    version = str(server.version)
    server.put(service("old"))

    async def change() -> None:
        await server.watched("Service")
        server.put(service("new", spec={"ports": [{"port": 1, "name": "x" * 1_000_000}]}))
        server.remove("Service", "old")
        server.bookmark()
        server.end_watches()

    task = asyncio.ensure_future(change())
    events = [event async for event in client.watch(SERVICES, version)]
    await task
    assert [(event.type, event.object["metadata"].get("name")) for event in events] == [
        ("ADDED", "old"), ("ADDED", "new"), ("DELETED", "old"), ("BOOKMARK", None),
    ]  # fmt: skip


async def first_event(client: KubeClient, version: str, silence: float = 150.0) -> WatchEvent:
    async with aclosing(client.watch(SERVICES, version, silence=silence)) as events:
        return await anext(events)


@pytest.mark.parametrize("as_status", [True, False])
async def test_a_version_that_is_too_old(client: KubeClient, server: ApiServer, as_status: bool) -> None:
    server.gone_as_status = as_status
    server.put(service())
    server.compact()
    with pytest.raises(Gone, match="too old resource version: 1"):
        await first_event(client, "1")


async def test_a_line_that_is_no_event(client: KubeClient, server: ApiServer) -> None:
    for line in (b"{\n", b"[]\n", b'{"type": "ADDED"}\n', b'{"type": 1, "object": {}}\n'):
        task = asyncio.ensure_future(first_event(client, str(server.version)))
        await server.watched("Service")
        server.send("Service", line)
        with pytest.raises(Malformed):
            await task
        await server.until(lambda: not server.watchers)


async def test_half_an_event_is_none(client: KubeClient, server: ApiServer) -> None:
    task = asyncio.ensure_future(anext(client.watch(SERVICES, str(server.version))))
    await server.watched("Service")
    server.send("Service", b'{"type": "ADD')
    server.end_watches()
    with pytest.raises(StopAsyncIteration):
        await task


async def test_a_connection_that_breaks(client: KubeClient, server: ApiServer) -> None:
    task = asyncio.ensure_future(first_event(client, str(server.version)))
    await server.watched("Service")
    server.drop_watches()
    with pytest.raises(Unreachable):
        await task
    assert client.unreachable_seconds is None


async def test_a_connection_that_died_in_silence_is_noticed(client: KubeClient, server: ApiServer) -> None:
    with pytest.raises(Unreachable, match="no answer in time"):
        await first_event(client, str(server.version), silence=0.1)


async def test_a_watch_that_is_left_is_closed(client: KubeClient, server: ApiServer) -> None:
    version = str(server.version)
    server.put(service())
    assert (await first_event(client, version)).type == "ADDED"
    await server.until(lambda: not server.watchers)
    assert server.watchers == []


# Credentials


async def test_a_token_in_a_file_is_read_again(server: ApiServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    server.token = "first"
    now = 0.0
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig", tokenFile=str(token))
    async with KubeClient(kubeconfig, clock=lambda: now) as client:
        await client.list_page(SERVICES)
        token.write_text("second\n")
        await client.list_page(SERVICES)
        now, server.token = 61.0, "second"
        await client.list_page(SERVICES)
        token.write_text("third")
        server.token = "third"
        with pytest.raises(Unauthorized):
            await client.list_page(SERVICES)
        await client.list_page(SERVICES)
        token.unlink()
        now = 200.0
        await client.list_page(SERVICES)
    assert server.count("GET", "services") == 6


async def test_in_a_pod_the_service_account_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (openssl := shutil.which("openssl")):
        pytest.skip("THE SERVICE ACCOUNT IS NOT CHECKED: no openssl on PATH")
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca.crt")]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    await asyncio.to_thread(subprocess.run, [openssl, *new, *names, *files], check=True, capture_output=True)
    (tmp_path / "token").write_text("secret\n")
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({})

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca.crt", tmp_path / "key")
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(runner.addresses[0][1]))
    try:
        async with KubeClient(service_account=tmp_path) as client:
            await client.get("/api")
    finally:
        await runner.cleanup()
    assert seen == ["Bearer secret"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "kubeconfig .*: cannot be read: TypeError"),
        ("{", "kubeconfig .*: cannot be read: ParserError"),
        ("users: []", "kubeconfig .*: Invalid kube-config file. Expected key current-context"),
    ],
)
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(NoConfiguration, match=message):
        async with KubeClient(path):
            pass


async def test_no_credentials_in_the_message_about_a_kubeconfig(server: ApiServer, tmp_path: Path) -> None:
    path = server.kubeconfig(tmp_path / "kubeconfig", token="hunter2")
    path.write_text(path.read_text().replace("\n  user:", "\n  person:"))
    with pytest.raises(NoConfiguration) as error:
        async with KubeClient(path):
            pass
    assert "hunter2" not in f"{error.value!r}"
    assert error.value.__cause__ is None


async def test_neither_file_nor_pod() -> None:
    with pytest.raises(NoConfiguration, match="no such file, and this is no pod of a cluster"):
        async with KubeClient():
            pass
