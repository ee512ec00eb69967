"""The configuration as one text: how gwctl stores a checkpoint without a reload."""

import httpx

from tests.contract.wire import begin, expect, pid, post_raw, raw, refused, reload_ends, version
from tests.harness import DataPlane

MORE = "\nbackend more\n  mode http\n"


async def test_raw_is_the_text_of_the_file(plane: DataPlane, api: httpx.AsyncClient) -> None:
    assert await raw(api) == plane.config_file.read_text(encoding="utf-8")


async def test_a_text_is_stored_without_a_reload(plane: DataPlane, api: httpx.AsyncClient) -> None:
    number, process = await version(api), await pid(api)
    stored = expect(await post_raw(api, await raw(api) + MORE, {"version": number, "skip_reload": "true"}), 201)
    assert "reload-id" not in stored.headers
    assert stored.headers["configuration-checksum"]
    assert stored.text == await raw(api) == plane.config_file.read_text(encoding="utf-8")
    assert "\nbackend more\n" in stored.text
    assert await version(api) == number + 1
    expect(await api.get("/configuration/backends/more"), 200)
    refused(await api.get("/runtime/backends/more/servers"), 404)
    assert await pid(api) == process
    assert await plane.reloads() == 0
    await plane.restart_haproxy()
    expect(await api.get("/runtime/backends/more/servers"), 200)


async def test_a_checkpoint_takes_the_text_that_a_transaction_renders(plane: DataPlane, api: httpx.AsyncClient) -> None:
    number, process, transaction = await version(api), await pid(api), await begin(api)
    body = {"name": "blue", "servers": {"a": {"name": "a", "address": "127.0.0.1", "port": 80}}}
    params = {"transaction_id": transaction, "full_section": "true"}
    expect(await api.put("/configuration/backends/blue", params=params, json=body), 202)
    text = await raw(api, transaction_id=transaction)
    expect(await post_raw(api, text, {"version": number, "skip_reload": "true"}), 201)
    expect(await api.delete(f"/transactions/{transaction}"), 204)
    assert "  server a 127.0.0.1:80\n" in plane.config_file.read_text(encoding="utf-8")
    assert (await version(api), await pid(api)) == (number + 1, process)
    listed = expect(await api.get("/configuration/backends/blue/servers"), 200).json()
    assert listed == [{"name": "a", "address": "127.0.0.1", "port": 80}]


async def test_a_text_is_loaded_at_once_or_later(api: httpx.AsyncClient) -> None:
    process, before = await pid(api), await raw(api)
    params = {"version": await version(api), "force_reload": "true"}
    expect(await post_raw(api, before + MORE, params), 201)
    assert await pid(api) != process
    later = expect(await post_raw(api, before, {"version": await version(api)}), 202)
    assert (await reload_ends(api, later.headers["reload-id"]))["status"] == "succeeded"
    refused(await api.get("/runtime/backends/more/servers"), 404)


async def test_a_text_needs_the_current_version(api: httpx.AsyncClient) -> None:
    text = await raw(api)
    refused(await post_raw(api, text, {"skip_reload": "true"}), 400)
    refused(await post_raw(api, text, {"skip_reload": "true", "version": 99}), 409)


async def test_a_text_without_version_check_starts_the_version_anew(api: httpx.AsyncClient) -> None:
    text, params = await raw(api), {"skip_reload": "true"}
    for _ in range(2):
        expect(await post_raw(api, text, params | {"version": str(await version(api))}), 201)
    assert await version(api) > 1
    expect(await post_raw(api, text, params | {"skip_version": "true"}), 201)
    assert await version(api) == 1


async def test_a_text_that_haproxy_refuses_changes_nothing(plane: DataPlane, api: httpx.AsyncClient) -> None:
    number, file = await version(api), plane.config_file.read_text(encoding="utf-8")
    broken = await raw(api) + MORE.replace("mode", "mood")
    for params in ({"skip_reload": "true"}, {"only_validate": "true"}, {"force_reload": "true"}):
        assert "mood" in refused(await post_raw(api, broken, {"version": number, **params}), 400)
    refused(await post_raw(api, "global", {"version": number}), 400)
    assert await version(api) == number
    assert plane.config_file.read_text(encoding="utf-8") == file


async def test_a_text_can_be_checked_only(plane: DataPlane, api: httpx.AsyncClient) -> None:
    number, file = await version(api), plane.config_file.read_text(encoding="utf-8")
    expect(await post_raw(api, await raw(api) + MORE, {"version": number, "only_validate": "true"}), 202)
    assert await version(api) == number
    assert plane.config_file.read_text(encoding="utf-8") == file


async def test_older_versions_are_kept(api: httpx.AsyncClient) -> None:
    number, text = await version(api), await raw(api)
    expect(await post_raw(api, text + MORE, {"version": number, "skip_reload": "true"}), 201)
    assert "\nbackend more\n" not in await raw(api, version=str(number))
    refused(await api.get("/configuration/raw", params={"version": 99}), 404)
