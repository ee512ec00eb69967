"""What holds for every call: credentials, errors, headers."""

import httpx

from tests.contract.wire import expect, pid, refused
from tests.harness import DataPlane


async def test_info_names_the_version(plane: DataPlane) -> None:
    async with plane.client() as client:
        assert expect(await client.get("/info"), 200).json()["api"]["version"].startswith("v3.4.")


async def test_runtime_info_names_the_serving_process_and_its_version(plane: DataPlane, api: httpx.AsyncClient) -> None:
    info = expect(await api.get("/runtime/info"), 200).json()["info"]
    assert info["pid"] == await plane.worker_pid() == await pid(api)
    assert info["version"].startswith("3.")
    assert info["uptime"] >= 0


async def test_without_the_right_password_nothing_is_answered(plane: DataPlane) -> None:
    for auth in (None, ("admin", "wrong"), ("nobody", plane.password)):
        async with httpx.AsyncClient(base_url=plane.url, auth=auth) as client:
            answer = await client.get("/v3/services/haproxy/runtime/info")
            refused(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Basic")


async def test_an_unknown_path_is_a_404_with_the_usual_body(api: httpx.AsyncClient) -> None:
    refused(await api.get("/nope"), 404)


async def test_answers_carry_the_version_of_the_configuration(api: httpx.AsyncClient) -> None:
    number = expect(await api.get("/configuration/version"), 200).json()
    assert isinstance(number, int)
    for path in ("/runtime/info", "/configuration/backends", "/configuration/backends/nope"):
        assert (await api.get(path)).headers["configuration-version"] == str(number)
