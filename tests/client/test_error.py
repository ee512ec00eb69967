"""Errors of the Data Plane API: what they say, and what they must never say."""

from __future__ import annotations

import httpx
import pytest

from gwctl.dataplane import (
    AlreadyExists,
    NotFound,
    Refused,
    Unavailable,
    UnsupportedVersion,
    VersionConflict,
)
from gwctl.dataplane.client import Client
from gwctl.dataplane.version import parse_version, require_supported

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


@pytest.mark.parametrize("answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json={"other": 1})])
async def test_an_answer_that_holds_something_else_counts_as_none(answer: httpx.Response) -> None:
    async with Client("http://dataplane", "a", "b", transport=httpx.MockTransport(lambda _: answer)) as client:
        with pytest.raises(Unavailable):
            await client.begin(1)
        with pytest.raises(Unavailable):
            await client.row("t", "k")
