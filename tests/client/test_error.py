"""Errors of the Data Plane API: what they say, and what they must never say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest

from gwctl.api.sensitive import Sensitive
from gwctl.dataplane import (
    AlreadyExists,
    ConfigurationRefused,
    NotFound,
    Refused,
    Unavailable,
    UnsupportedVersion,
    VersionConflict,
)
from gwctl.dataplane.client import Client
from gwctl.dataplane.version import parse_version, require_supported
from gwctl.haproxy.state import SectionKey, SectionKind

KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"


def client_of(status: int, body: object) -> Client:
    """A client of an API that always answers the same."""
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    return Client("http://dataplane", "admin", "secret", transport=transport)


async def test_a_private_key_in_an_error_body_is_never_repeated() -> None:
    async with client_of(400, {"code": 400, "message": f"cannot run: set ssl cert x <<\n{KEY}\nagain"}) as client:
        with pytest.raises(Refused) as error:
            await client.add_row("t", "k", "v")
    assert "c2VjcmV0" not in str(error.value)
    assert "c2VjcmV0" not in repr(error.value)
    assert "[redacted]" in str(error.value)


async def test_half_a_private_key_is_not_repeated_either() -> None:
    async with client_of(500, {"message": KEY[:40]}) as client:
        with pytest.raises(Refused) as error:
            await client.add_row("t", "k", "v")
    assert "c2Vjcm" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFound), (409, AlreadyExists), (400, Refused), (500, Refused), (503, Unavailable)],
)
async def test_a_status_becomes_an_error_of_its_kind(status: int, kind: type[Exception]) -> None:
    async with client_of(status, {"message": "no"}) as client:
        with pytest.raises(kind):
            await client.add_row("t", "k", "v")


@pytest.mark.parametrize("status", [406, 409])
async def test_a_transaction_that_others_overtook_is_a_conflict(status: int) -> None:
    async with client_of(status, {"message": "outdated"}) as client:
        with pytest.raises(VersionConflict) as error:
            await client.commit("1")
    assert error.value.transient


@pytest.mark.parametrize(
    ("status", "message"), [(400, "transaction does not exist: 1"), (406, "transaction 1 is outdated")]
)
async def test_within_a_transaction_that_is_gone_every_call_is_a_conflict(status: int, message: str) -> None:
    async with client_of(status, {"message": message}) as client:
        with pytest.raises(VersionConflict):
            await client.sections(SectionKind.FRONTENDS, "1")
        with pytest.raises(VersionConflict):
            await client.delete_section(SectionKey(SectionKind.FRONTENDS, "x"), "1")
    async with client_of(404, {"message": message}) as client:
        with pytest.raises(VersionConflict):
            await client.commit("1")


@pytest.mark.parametrize("status", [400, 422])
async def test_only_a_section_and_a_commit_are_refused_for_what_is_in_them(status: int) -> None:
    async with client_of(status, {"message": "no"}) as client:
        with pytest.raises(ConfigurationRefused):
            await client.put_section(SectionKey(SectionKind.FRONTENDS, "x"), {"name": "x"}, True, "1")
        with pytest.raises(ConfigurationRefused):
            await client.commit("1")
        with pytest.raises(Refused) as error:
            await client.add_row("t", "k", "v")
    assert not isinstance(error.value, ConfigurationRefused)


async def test_an_api_that_does_not_answer_is_unavailable_and_transient() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too late", request=request)

    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(refuse)) as client:
        with pytest.raises(Unavailable) as error:
            await client.process()
    assert error.value.transient
    assert "no answer from http://dataplane: ReadTimeout" in str(error.value)


@pytest.mark.parametrize(
    "body", [{"error": "dial unix master.sock: connection refused"}, {"info": {"release_date": "0001-01-01"}}]
)
async def test_an_answer_without_a_process_says_that_haproxy_is_gone(body: object) -> None:
    async with client_of(200, body) as client:
        with pytest.raises(Unavailable):
            await client.process()


@pytest.mark.parametrize(
    ("text", "version"),
    [("v3.4.2 dev.dirty", (3, 4)), ("3.4.7-1", (3, 4)), ("v3.10.0", (3, 10)), ("4.0", (4, 0)), ("", (0, 0))],
)
def test_versions_are_numbers(text: str, version: tuple[int, int]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("api", "haproxy", "blamed"), [("v3.3.5", "3.4.0", "Data Plane API"), ("v3.4.2", "3.2.1", "HAProxy")]
)
async def test_an_older_pair_is_refused_with_one_sentence(api: str, haproxy: str, blamed: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v3/info":
            return httpx.Response(200, json={"api": {"version": api}})
        return httpx.Response(200, json={"info": {"pid": 1, "uptime": 1, "version": haproxy}})

    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(UnsupportedVersion, match=rf"{blamed} is .* gwctl needs 3\.4 or newer"):
            await require_supported(client)


READS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "api_version": lambda client: client.api_version(),
    "process": lambda client: client.process(),
    "configuration_version": lambda client: client.configuration_version(),
    "sections": lambda client: client.sections(SectionKind.FRONTENDS),
    "global_section": lambda client: client.global_section(),
    "begin": lambda client: client.begin(1),
    "reload_status": lambda client: client.reload_status("1"),
    "store_general": lambda client: client.store_general("x", "y"),
    "store_certificate": lambda client: client.store_certificate("x", Sensitive("y")),
    "stored": lambda client: client.stored("maps"),
    "rows": lambda client: client.rows("t"),
    "count": lambda client: client.count("t"),
    "row": lambda client: client.row("t", "k"),
    "servers": lambda client: client.servers("s"),
    "certificates": lambda client: client.certificates(),
    "certificate": lambda client: client.certificate("x"),
    "authorities": lambda client: client.authorities(),
    "crt_list": lambda client: client.crt_list("/l"),
}


@pytest.mark.parametrize("text", ["<c2VjcmV0>", '["c2VjcmV0"]', '"c2VjcmV0"', '[["c2VjcmV0"]]', "7.5e999"])
@pytest.mark.parametrize("read", READS)
async def test_an_answer_that_holds_something_else_counts_as_none_and_is_not_repeated(read: str, text: str) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text=text))
    async with Client("http://dataplane", "a", "b", transport=transport) as client:
        with pytest.raises(Unavailable, match=r"(GET|POST) /.*: the Data Plane API's answer is not what") as error:
            await READS[read](client)
    assert "c2VjcmV0" not in f"{error.value} {error.value!r} {error.value.__cause__!r}"


@pytest.mark.parametrize("body", [{"api": {"version": ""}}, {"api": []}, {}, [], None])
async def test_an_api_that_does_not_tell_its_version_counts_as_none(body: object) -> None:
    async with client_of(200, body) as client:
        with pytest.raises(Unavailable):
            await require_supported(client)
