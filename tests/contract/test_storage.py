"""Files that the API keeps for HAProxy: maps and general ones."""

import httpx
import pytest

from tests.contract.wire import TEXT, expect, pid, refused, reload, reload_ends, rows
from tests.harness import DataPlane

SKIP = {"skip_reload": "true"}


def upload(name: str, text: str) -> dict[str, tuple[str, bytes]]:
    """The multipart body of a file."""
    return {"file_upload": (name, text.encode())}


@pytest.mark.parametrize(("kind", "name"), [("maps", "new.map"), ("general", "new.txt")])
async def test_a_file_is_stored_listed_read_and_deleted(
    plane: DataPlane, api: httpx.AsyncClient, kind: str, name: str
) -> None:
    process, path = await pid(api), f"/storage/{kind}"
    stored = expect(await api.post(path, files=upload(name, "a b\n")), 201).json()
    assert (stored["storage_name"], stored["size"]) == (name, 4)
    assert stored["file"] == str(plane.folder / kind / name)
    refused(await api.post(path, files=upload(name, "a b\n")), 409)
    listed = expect(await api.get(path), 200).json()
    assert name in [file["storage_name"] for file in listed]
    read = expect(await api.get(f"{path}/{name}"), 200)
    assert (read.text, read.headers["content-type"]) == ("a b\n", "application/octet-stream")
    expect(await api.delete(f"{path}/{name}"), 204)
    for method in ("GET", "DELETE"):
        refused(await api.request(method, f"{path}/{name}"), 404)
    assert await pid(api) == process
    assert await plane.reloads() == 0


@pytest.mark.parametrize("kind", ["maps", "general"])
async def test_an_upload_needs_its_part(api: httpx.AsyncClient, kind: str) -> None:
    refused(await api.post(f"/storage/{kind}", files={"other": ("x.map", b"a b\n")}), 400)
    refused(await api.post(f"/storage/{kind}", content="a b\n", headers=TEXT), 415)


async def test_an_empty_map_can_be_stored_and_gets_its_extension(api: httpx.AsyncClient) -> None:
    stored = expect(await api.post("/storage/maps", files=upload("empty", "")), 201).json()
    assert (stored["storage_name"], stored["size"]) == ("empty.map", 0)


async def test_a_map_file_is_replaced_by_its_text_and_rows_stay_until_a_reload(
    plane: DataPlane, api: httpx.AsyncClient
) -> None:
    path, process = "/storage/maps/paths.map", await pid(api)
    expect(await api.put(path, params=SKIP, content="/a green\n", headers=TEXT), 204)
    assert (plane.folder / "maps/paths.map").read_text(encoding="utf-8") == "/a green\n"
    assert (await rows(api), await pid(api)) == ([], process)
    await reload(api)
    assert await rows(api) == [("/a", "green")]
    refused(await api.put("/storage/maps/nope.map", params=SKIP, content="a b\n", headers=TEXT), 404)
    refused(await api.put(path, params=SKIP, files=upload("paths.map", "")), 415)


async def test_a_map_file_cannot_be_emptied_but_by_an_empty_line(plane: DataPlane, api: httpx.AsyncClient) -> None:
    path = "/storage/maps/paths.map"
    refused(await api.put(path, params=SKIP, content="", headers=TEXT), 400)
    expect(await api.put(path, params=SKIP, content="\n", headers=TEXT), 204)
    await reload(api)
    assert await rows(api) == []
    assert await plane.reloads() == 1


async def test_a_general_file_is_replaced_by_an_upload(api: httpx.AsyncClient) -> None:
    path = "/storage/general/it.lua"
    expect(await api.post("/storage/general", files=upload("it.lua", "-- one\n")), 201)
    expect(await api.put(path, params=SKIP, files=upload("it.lua", "-- two\n")), 204)
    assert expect(await api.get(path), 200).text == "-- two\n"
    refused(await api.put(path, params=SKIP, content="-- three\n", headers=TEXT), 415)
    refused(await api.put("/storage/general/nope", params=SKIP, files=upload("nope", "x")), 404)


async def test_replacing_a_file_reloads_unless_told_not_to(plane: DataPlane, api: httpx.AsyncClient) -> None:
    path, process = "/storage/maps/paths.map", await pid(api)
    later = expect(await api.put(path, content="/a green\n", headers=TEXT), 202)
    assert (await reload_ends(api, later.headers["reload-id"]))["status"] == "succeeded"
    assert await rows(api) == [("/a", "green")]
    between = await pid(api)
    assert between != process
    expect(await api.put(path, params={"force_reload": "true"}, content="/b green\n", headers=TEXT), 204)
    assert await rows(api) == [("/b", "green")]
    assert await pid(api) != between
    assert await plane.reloads() == 2


async def test_a_file_that_the_configuration_names_cannot_be_deleted(api: httpx.AsyncClient) -> None:
    assert "paths.map" in refused(await api.delete("/storage/maps/paths.map"), 409)
    expect(await api.get("/storage/maps/paths.map"), 200)
