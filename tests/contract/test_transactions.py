"""Transactions: nothing happens before the commit, and the commit is the one call that always reloads."""

import httpx

from tests.contract.conftest import client_of
from tests.contract.wire import begin, expect, pid, post_raw, raw, refused, reload_ends, version
from tests.harness import DataPlane

ADDED = {"name": "added", "mode": "http"}


async def test_a_transaction_starts_from_the_current_version(api: httpx.AsyncClient) -> None:
    number = await version(api)
    started = expect(await api.post("/transactions", params={"version": number}), 201).json()
    assert started == {"id": started["id"], "_version": number, "status": "in_progress"}
    assert expect(await api.get(f"/transactions/{started['id']}"), 200).json() == started
    assert expect(await api.get("/transactions"), 200).json() == [started]


async def test_a_wrong_version_is_a_conflict_and_none_a_bad_request(api: httpx.AsyncClient) -> None:
    refused(await api.post("/transactions", params={"version": 99}), 409)
    refused(await api.post("/transactions"), 400)


async def test_a_missing_transaction_is_404_in_the_path_and_400_as_parameter(api: httpx.AsyncClient) -> None:
    for method in ("GET", "PUT", "DELETE"):
        refused(await api.request(method, "/transactions/nope"), 404)
    for path in ("/configuration/version", "/configuration/raw", "/configuration/backends"):
        refused(await api.get(path, params={"transaction_id": "nope"}), 400)


async def test_a_change_shows_only_inside_its_transaction(plane: DataPlane, api: httpx.AsyncClient) -> None:
    file, process = plane.config_file.read_text(encoding="utf-8"), await pid(api)
    within = {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/backends", params=within, json=ADDED), 202)
    expect(await api.get("/configuration/backends/added", params=within), 200)
    assert "\nbackend added" in await raw(api, **within)
    refused(await api.get("/configuration/backends/added"), 404)
    assert plane.config_file.read_text(encoding="utf-8") == file
    assert await pid(api) == process


async def test_a_dropped_transaction_leaves_nothing(plane: DataPlane, api: httpx.AsyncClient) -> None:
    file, number, transaction = (
        plane.config_file.read_text(encoding="utf-8"),
        await version(api),
        await begin(api),
    )
    within = {"transaction_id": transaction}
    expect(await api.post("/configuration/backends", params=within, json=ADDED), 202)
    expect(await api.delete(f"/transactions/{transaction}"), 204)
    refused(await api.get(f"/transactions/{transaction}"), 404)
    assert expect(await api.get("/transactions"), 200).json() == []
    assert await version(api) == number
    assert plane.config_file.read_text(encoding="utf-8") == file


async def test_a_commit_writes_the_file_and_reloads_later(plane: DataPlane, api: httpx.AsyncClient) -> None:
    number, process, transaction = await version(api), await pid(api), await begin(api)
    within = {"transaction_id": transaction}
    expect(await api.post("/configuration/backends", params=within, json=ADDED), 202)
    committed = expect(await api.put(f"/transactions/{transaction}"), 202)
    assert committed.json() == {"id": transaction, "_version": number, "status": "success"}
    assert committed.headers["configuration-version"] == str(number + 1)
    assert "\nbackend added" in plane.config_file.read_text(encoding="utf-8")
    assert await version(api) == number + 1
    report = await reload_ends(api, committed.headers["reload-id"])
    assert report["status"] == "succeeded"
    assert await pid(api) != process
    expect(await api.get("/runtime/backends/added/servers"), 200)
    refused(await api.put(f"/transactions/{transaction}"), 404)


async def test_a_forced_commit_has_reloaded_when_it_answers(plane: DataPlane, api: httpx.AsyncClient) -> None:
    process, transaction = await pid(api), await begin(api)
    committed = expect(await api.put(f"/transactions/{transaction}", params={"force_reload": "true"}), 200)
    assert "reload-id" not in committed.headers
    assert await pid(api) != process
    assert await plane.reloads() == 1


async def test_a_commit_outdates_what_began_before(api: httpx.AsyncClient) -> None:
    first, second = await begin(api), await begin(api)
    expect(await api.put(f"/transactions/{first}", params={"force_reload": "true"}), 200)
    within = {"transaction_id": second}
    assert "transaction does not exist" in refused(await api.get("/configuration/backends", params=within), 400)
    assert "does not exist" in refused(await api.post("/configuration/backends", params=within, json=ADDED), 400)
    refused(await api.put(f"/transactions/{second}"), 406)
    (listed,) = expect(await api.get("/transactions"), 200).json()
    assert (listed["id"], listed["status"]) == (second, "outdated")
    refused(await api.get("/transactions", params={"status": "outdated"}), 400)
    assert expect(await api.get("/transactions", params={"status": "in_progress"}), 200).json() == []
    expect(await api.delete(f"/transactions/{second}"), 204)
    assert expect(await api.get("/transactions"), 200).json() == []


async def test_a_commit_that_haproxy_refuses_changes_nothing(plane: DataPlane, api: httpx.AsyncClient) -> None:
    file, number = plane.config_file.read_text(encoding="utf-8"), await version(api)
    process, transaction = await pid(api), await begin(api)
    body = {"name": "broken", "default_server": {"ssl": "enabled", "ssl_cafile": "/nonexistent"}}
    within = {"transaction_id": transaction}
    expect(await api.post("/configuration/backends", params=within, json=body), 202)
    assert "/nonexistent" in refused(await api.put(f"/transactions/{transaction}"), 400)
    assert plane.config_file.read_text(encoding="utf-8") == file
    assert (await version(api), await pid(api)) == (number, process)
    assert expect(await api.get(f"/transactions/{transaction}"), 200).json()["status"] == "failed"
    refused(await api.put(f"/transactions/{transaction}"), 406)
    expect(await api.delete(f"/transactions/{transaction}"), 204)


async def test_only_twenty_transactions_are_open_at_once(api: httpx.AsyncClient) -> None:
    opened = [await begin(api) for _ in range(20)]
    params = {"version": await version(api)}
    refused(await api.post("/transactions", params=params), 429)
    expect(await api.delete(f"/transactions/{opened[0]}"), 204)
    expect(await api.post("/transactions", params=params), 201)


async def test_open_transactions_outlive_the_api_and_count_until_they_are_dropped(plane: DataPlane) -> None:
    async with client_of(plane) as api:
        opened = {await begin(api) for _ in range(20)}
        number = await version(api)
    await plane.restart_api()
    async with client_of(plane) as api:
        refused(await api.post("/transactions", params={"version": number}), 429)
        expect(await post_raw(api, await raw(api), {"version": str(number), "skip_reload": "true"}), 201)
        assert await version(api) == number + 1
        refused(await api.post("/transactions", params={"version": number + 1}), 429)
        listed = expect(await api.get("/transactions", params={"status": "in_progress"}), 200).json()
        assert {(item["id"], item["_version"]) for item in listed} == {(name, number) for name in opened}
        left = opened.pop()
        refused(await api.put(f"/transactions/{left}"), 409)
        for transaction in opened:
            expect(await api.delete(f"/transactions/{transaction}"), 204)
        await begin(api)


async def test_a_change_names_either_a_version_or_a_transaction(api: httpx.AsyncClient) -> None:
    transaction = await begin(api)
    for params in (
        {},
        {"transaction_id": transaction, "version": "1"},
        {"transaction_id": transaction, "force_reload": "true"},
    ):
        refused(await api.post("/configuration/backends", params=params, json=ADDED), 400)
    refused(await api.post("/configuration/backends", params={"version": "99"}, json=ADDED), 409)
