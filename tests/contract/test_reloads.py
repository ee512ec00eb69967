"""Reloads: gathered, reported, and undone when they fail."""

import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.contract.wire import begin, expect, pid, post_raw, raw, refused, reload, reload_ends, version
from tests.harness import DataPlane


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that HAProxy cannot have; its check of the configuration does not notice."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


async def begin_with_busy_port(api: httpx.AsyncClient, port: int) -> str:
    """A transaction whose configuration is valid but does not start."""
    transaction = await begin(api)
    body = {
        "name": "busy",
        "mode": "http",
        "binds": {"it": {"name": "it", "address": "127.0.0.1", "port": port}},
        "default_backend": "blue",
    }
    params = {"transaction_id": transaction, "full_section": "true"}
    expect(await api.post("/configuration/frontends", params=params, json=body), 202)
    return transaction


async def test_an_unknown_reload_is_404_and_what_is_no_id_400(api: httpx.AsyncClient) -> None:
    assert expect(await api.get("/reloads"), 200).json() == []
    refused(await api.get("/reloads/2020-01-01-0"), 404)
    refused(await api.get("/reloads/nope"), 400)


async def test_a_reload_is_reported_and_haproxy_has_a_new_process(plane: DataPlane, api: httpx.AsyncClient) -> None:
    before = await plane.worker()
    answer = expect(await api.put(f"/transactions/{await begin(api)}"), 202)
    reload_id = answer.headers["reload-id"]
    report = await reload_ends(api, reload_id)
    assert (report["id"], report["status"]) == (reload_id, "succeeded")
    assert report["reload_timestamp"] > 0
    after = await plane.worker()
    assert after.pid != before.pid
    assert await pid(api) == after.pid
    assert expect(await api.get("/reloads"), 200).json() == [report]


async def test_commits_between_two_ticks_share_one_reload(plane: DataPlane, api: httpx.AsyncClient) -> None:
    ids: list[str] = []
    for _ in range(5):  # a tick may fall between two commits, but not each time
        pair = [(await api.put(f"/transactions/{await begin(api)}")).headers["reload-id"] for _ in range(2)]
        ids.extend(pair)
        await reload_ends(api, pair[1])
        if pair[0] == pair[1]:
            break
    assert ids[-1] == ids[-2]
    assert await plane.reloads() == len(set(ids))


async def test_a_failed_reload_keeps_the_process_and_restores_the_file(
    plane: DataPlane, api: httpx.AsyncClient, busy_port: int
) -> None:
    await reload(api)
    good, process, number = plane.config_file.read_text(encoding="utf-8"), await pid(api), await version(api)
    transaction = await begin_with_busy_port(api, busy_port)
    committed = expect(await api.put(f"/transactions/{transaction}"), 202)
    report = await reload_ends(api, committed.headers["reload-id"])
    assert report["status"] == "failed"
    assert str(busy_port) in report["response"]
    assert report in expect(await api.get("/reloads"), 200).json()
    assert await pid(api) == process
    assert plane.config_file.read_text(encoding="utf-8") == good == await raw(api)

    # What the API holds is still what failed, and the next commit would bring it back …
    assert await version(api) == number + 1
    expect(await api.get("/configuration/frontends/busy"), 200)
    # … unless it is told what is in the file.
    expect(await post_raw(api, good, {"version": number + 1, "skip_reload": "true"}), 201)
    refused(await api.get("/configuration/frontends/busy"), 404)
    await reload(api)


async def test_a_forced_reload_that_fails_also_undoes_what_was_stored_without_a_reload(
    plane: DataPlane, api: httpx.AsyncClient, busy_port: int
) -> None:
    await reload(api)
    good, process = plane.config_file.read_text(encoding="utf-8"), await pid(api)
    params = {"version": await version(api), "skip_reload": "true"}
    expect(await post_raw(api, good + "\nbackend checkpoint\n  mode http\n", params), 201)
    transaction = await begin_with_busy_port(api, busy_port)
    message = refused(await api.put(f"/transactions/{transaction}", params={"force_reload": "true"}), 400)
    assert str(busy_port) in message
    assert await pid(api) == process
    assert plane.config_file.read_text(encoding="utf-8") == good
