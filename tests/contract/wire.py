"""The few sequences of calls that many tests begin or end with."""

import asyncio
import time
from typing import Any

import httpx

Json = dict[str, Any]

TEXT = {"content-type": "text/plain"}
ROWS = "/runtime/maps/paths.map/entries"
SECONDS = 30.0


def expect(answer: httpx.Response, status: int) -> httpx.Response:
    """The answer, which must have the status."""
    assert answer.status_code == status, f"{answer.request.method} {answer.request.url}: {answer.text}"
    return answer


def refused(answer: httpx.Response, status: int) -> str:
    """The message of an error, which must have the status also in its body."""
    body = expect(answer, status).json()
    assert body["code"] == status
    return str(body["message"])


async def version(api: httpx.AsyncClient) -> int:
    """The version of the configuration."""
    return int(expect(await api.get("/configuration/version"), 200).json())


async def begin(api: httpx.AsyncClient) -> str:
    """The id of a new transaction."""
    answer = await api.post("/transactions", params={"version": await version(api)})
    return str(expect(answer, 201).json()["id"])


async def pid(api: httpx.AsyncClient) -> int:
    """The process that serves, as the API reports it."""
    return int(expect(await api.get("/runtime/info"), 200).json()["info"]["pid"])


async def reload_ends(api: httpx.AsyncClient, reload_id: str) -> Json:
    """The report of a reload that is over."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        report: Json = expect(await api.get(f"/reloads/{reload_id}"), 200).json()
        if report["status"] != "in_progress":
            return report
        await asyncio.sleep(0.05)
    raise AssertionError(f"reload {reload_id} did not end in {SECONDS} s")


async def reload(api: httpx.AsyncClient) -> None:
    """Reload HAProxy from its file."""
    params = {"force_reload": "true"}
    expect(await api.put(f"/transactions/{await begin(api)}", params=params), 200)


def row_path(key: str) -> str:
    """Where one row is found by its key, with every byte escaped.

    The real API decodes a path once if an escape in it is not strictly needed, and twice if all are, which
    makes another key of one with `%`. That letters are escaped as well decides it.
    """
    return f"{ROWS}/" + "".join(f"%{byte:02X}" for byte in key.encode())


async def rows(api: httpx.AsyncClient) -> list[tuple[str, str]]:
    """All rows of the map in their order."""
    return [(row["key"], row["value"]) for row in expect(await api.get(ROWS), 200).json()]


async def add_row(api: httpx.AsyncClient, key: str, value: str, **params: str) -> httpx.Response:
    """Add a row."""
    return await api.post(ROWS, params=params, json={"key": key, "value": value})


async def raw(api: httpx.AsyncClient, **params: str) -> str:
    """The configuration as text."""
    return expect(await api.get("/configuration/raw", params=params), 200).text


async def post_raw(api: httpx.AsyncClient, text: str, params: Json) -> httpx.Response:
    """Replace the configuration by a text."""
    return await api.post("/configuration/raw", params=params, content=text, headers=TEXT)
