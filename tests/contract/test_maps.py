"""Rows of maps: the calls that carry nearly all of gwctl's changes."""

import httpx
import pytest

from tests.contract.wire import ROWS, Json, add_row, expect, pid, refused, reload, row_path, rows
from tests.harness import DataPlane, EchoBackend

MAP = "/runtime/maps/paths.map"
ALPHABET = "AZaz09%._~*/|,:=@!+-"  # what gwctl's keys and values are made of
ADDRESSABLE = [sign for sign in ALPHABET if sign not in "*,="]


def entries(pairs: list[tuple[str, str]]) -> list[Json]:
    """Rows as a body."""
    return [{"key": key, "value": value} for key, value in pairs]


async def test_a_map_of_the_configuration_is_listed_and_found_by_name(plane: DataPlane, api: httpx.AsyncClient) -> None:
    (listed,) = expect(await api.get("/runtime/maps"), 200).json()
    assert listed["storage_name"] == "paths.map"
    assert listed["file"] == str(plane.folder / "maps/paths.map")
    assert int(listed["id"]) >= 0
    for name in ("paths.map", "paths"):
        assert expect(await api.get(f"/runtime/maps/{name}"), 200).json()["file"] == listed["file"]
    refused(await api.get("/runtime/maps/nope.map"), 404)
    assert await rows(api) == []


async def test_a_row_is_added_set_and_deleted_without_reload(plane: DataPlane, api: httpx.AsyncClient) -> None:
    process = await pid(api)
    assert expect(await add_row(api, "/a", "green"), 201).json() == {"key": "/a", "value": "green"}
    assert await rows(api) == [("/a", "green")]
    assert expect(await api.get(row_path("/a")), 200).json() == {"key": "/a", "value": "green"}
    assert expect(await api.put(row_path("/a"), json={"value": "blue"}), 200).json()["value"] == "blue"
    assert await rows(api) == [("/a", "blue")]
    expect(await api.delete(row_path("/a")), 204)
    assert await rows(api) == []
    assert (plane.folder / "maps/paths.map").read_text(encoding="utf-8") == ""
    assert await pid(api) == process
    assert await plane.reloads() == 0


async def test_requests_follow_the_rows(api: httpx.AsyncClient, web_port: int) -> None:
    async with EchoBackend("green") as green, EchoBackend("blue") as blue, httpx.AsyncClient() as client:
        for backend in (green, blue):
            path = f"/runtime/backends/{backend.name}/servers"
            expect(await api.post(path, json={"name": "a", "address": backend.host, "port": backend.port}), 201)
            expect(await api.put(f"{path}/a", json={"admin_state": "ready"}), 200)

        async def reached() -> str:
            return str((await client.get(f"http://127.0.0.1:{web_port}/a/b")).json()["name"])

        assert await reached() == "blue"
        expect(await add_row(api, "/a/", "green"), 201)
        assert await reached() == "green"
        expect(await api.put(row_path("/a/"), json={"value": "blue"}), 200)
        assert await reached() == "blue"


async def test_what_is_missing_and_what_exists(api: httpx.AsyncClient) -> None:
    refused(await api.get("/runtime/maps/nope.map/entries"), 404)
    refused(await api.post("/runtime/maps/nope.map/entries", json={"key": "/a", "value": "x"}), 400)
    refused(await api.put("/runtime/maps/nope.map", json=entries([("/a", "x")])), 400)
    refused(await api.get(row_path("/a")), 404)
    refused(await api.put(row_path("/a"), json={"value": "x"}), 404)
    refused(await api.delete(row_path("/a")), 404)
    expect(await add_row(api, "/a", "x"), 201)
    refused(await add_row(api, "/a", "y"), 409)
    assert await rows(api) == [("/a", "x")]


async def test_every_sign_of_the_alphabet_survives_in_keys_and_values(api: httpx.AsyncClient) -> None:
    want = [(f"/k{sign}{sign}k", f"{sign}v{sign}") for sign in ALPHABET] + [(ALPHABET, ALPHABET[::-1])]
    for key, value in want:
        expect(await add_row(api, key, value), 201)
    assert await rows(api) == want


async def test_a_key_with_most_signs_can_be_addressed(api: httpx.AsyncClient) -> None:
    expect(await add_row(api, "other", "row"), 201)
    for sign in ADDRESSABLE:
        for key in (f"{sign}k{sign}{sign}k{sign}", f"%41{sign}"):
            expect(await add_row(api, key, "one"), 201)
            assert expect(await api.get(row_path(key)), 200).json() == {"key": key, "value": "one"}
            expect(await api.put(row_path(key), json={"value": f"{sign}two{sign}"}), 200)
            assert await rows(api) == [("other", "row"), (key, f"{sign}two{sign}")]
            expect(await api.delete(row_path(key)), 204)
            assert await rows(api) == [("other", "row")]


async def test_a_percent_sign_is_ambiguous_in_a_path_that_escapes_only_what_it_must(
    api: httpx.AsyncClient,
) -> None:
    expect(await add_row(api, "k%", "v"), 201)
    refused(await api.get(f"{ROWS}/k%25"), 400)
    expect(await api.get(f"{ROWS}/%6B%25"), 200)


async def test_a_key_with_an_asterisk_can_be_added_but_never_changed_or_deleted(
    api: httpx.AsyncClient,
) -> None:
    expect(await add_row(api, "*.example", "x"), 201)
    for answer in (
        await api.get(row_path("*.example")),
        await api.put(row_path("*.example"), json={"value": "y"}),
        await api.delete(row_path("*.example")),
    ):
        refused(answer, 400)
    assert await rows(api) == [("*.example", "x")]


@pytest.mark.parametrize("sign", [",", "="])
async def test_a_key_with_comma_or_equals_sign_is_changed_but_said_to_be_missing(
    api: httpx.AsyncClient, sign: str
) -> None:
    key = f"k{sign}k"
    expect(await add_row(api, key, "one"), 201)
    expect(await api.get(row_path(key)), 404)
    expect(await api.put(row_path(key), json={"value": "two"}), 404)
    assert await rows(api) == [(key, "two")]
    expect(await add_row(api, key, "three"), 201)  # and a second row is not noticed
    assert await rows(api) == [(key, "two"), (key, "three")]
    for left in ([(key, "three")], []):  # one row at a time
        expect(await api.delete(row_path(key)), 204)
        assert await rows(api) == left


async def test_a_value_with_comma_or_equals_sign_is_whole_only_in_the_list(api: httpx.AsyncClient) -> None:
    expect(await add_row(api, "k", "a=b,c"), 201)
    assert expect(await api.get(row_path("k")), 200).json()["value"] == "a"
    assert await rows(api) == [("k", "a=b,c")]
    expect(await api.put(row_path("k"), json={"value": "d,e=f"}), 200)
    assert await rows(api) == [("k", "d,e=f")]


async def test_a_semicolon_is_refused(api: httpx.AsyncClient) -> None:
    refused(await add_row(api, "k;", "v"), 400)
    refused(await add_row(api, "k", "v;"), 400)
    refused(await api.put(MAP, json=entries([("k", "v;")])), 400)
    assert await rows(api) == []


async def test_values_of_8_kb_survive(api: httpx.AsyncClient) -> None:
    values = [sign * 8192 for sign in "abc"]
    expect(await add_row(api, "k", values[0]), 201)
    expect(await api.put(row_path("k"), json={"value": values[1]}), 200)
    assert await rows(api) == [("k", values[1])]
    expect(await api.put(MAP, json=entries([("one", values[2]), ("two", values[0])])), 201)
    assert await rows(api) == [("one", values[2]), ("two", values[0])]


async def test_a_value_beyond_haproxys_buffer_is_lost_without_a_word(api: httpx.AsyncClient) -> None:
    expect(await add_row(api, "k", "v" * 16384), 201)
    assert await rows(api) == []


async def test_a_small_bulk_change_adds_rows(api: httpx.AsyncClient) -> None:
    expect(await add_row(api, "old", "x"), 201)
    pairs = [("a", "1"), ("b", "2")]
    for _ in range(2):
        expect(await api.put(MAP, json=entries(pairs)), 201)
    assert await rows(api) == [("old", "x"), *pairs, *pairs]


@pytest.mark.parametrize(("count", "width"), [(1000, 28), (274, 28), (274, 32)])
async def test_a_large_bulk_change_replaces_the_map_but_must_be_read_back(
    api: httpx.AsyncClient, count: int, width: int
) -> None:
    """At some sizes the real one loses the last row; of rows of 32 bytes it adds 256 and no more."""
    expect(await add_row(api, "old", "x"), 201)
    want = {f"/path/{number:05}": "v" * (width - 13) for number in range(count)}
    expect(await api.put(MAP, json=entries(list(want.items()))), 201)
    got = dict(await rows(api))
    assert set(got) <= {"old", *want}
    assert len(set(want) - set(got)) <= (18 if width == 32 else 1)
    for key in set(got) - set(want):
        expect(await api.delete(row_path(key)), 204)
    for key in set(want) - set(got):
        expect(await add_row(api, key, want[key]), 201)
    assert dict(await rows(api)) == want


async def test_a_map_is_emptied_by_delete_and_not_by_an_empty_bulk_change(api: httpx.AsyncClient) -> None:
    expect(await add_row(api, "k", "v"), 201)
    assert (await api.put(MAP, json=[])).is_error
    assert await rows(api) == [("k", "v")]
    expect(await api.delete(MAP), 204)
    assert await rows(api) == []


async def test_a_reload_loses_rows_that_were_not_saved(plane: DataPlane, api: httpx.AsyncClient) -> None:
    for key in ("b", "a"):
        expect(await add_row(api, key, "saved", force_sync="true"), 201)
    expect(await add_row(api, "c", "lost"), 201)
    # saving sorts the rows
    assert (plane.folder / "maps/paths.map").read_text(encoding="utf-8") == "a saved\nb saved\n"
    await reload(api)
    assert await rows(api) == [("a", "saved"), ("b", "saved")]


@pytest.mark.parametrize("how", ["set", "delete", "bulk", "clear"])
async def test_every_change_of_rows_can_be_saved_at_once(plane: DataPlane, api: httpx.AsyncClient, how: str) -> None:
    file, params = plane.folder / "maps/paths.map", {"force_sync": "true"}
    expect(await add_row(api, "k", "v", **params), 201)
    assert file.read_text(encoding="utf-8") == "k v\n"
    match how:
        case "set":
            expect(await api.put(row_path("k"), params=params, json={"value": "w"}), 200)
        case "delete":
            expect(await api.delete(row_path("k"), params=params), 204)
        case "bulk":
            expect(await api.put(MAP, params=params, json=entries([("l", "w")])), 201)
        case _:
            expect(await api.delete(MAP, params=params), 204)
    assert file.read_text(encoding="utf-8") == {"set": "k w\n", "bulk": "k v\nl w\n"}.get(how, "")


async def test_a_row_has_key_and_value(api: httpx.AsyncClient) -> None:
    refused(await api.post(ROWS, content="k v", headers={"content-type": "text/plain"}), 415)
