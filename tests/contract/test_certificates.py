"""Certificates: stored for the next start, and given to the running HAProxy without a reload."""

import asyncio
import re
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.contract.conftest import CONFIG
from tests.contract.wire import TEXT, Json, expect, pid, refused, reload
from tests.harness import DataPlane, free_port

SKIP = {"skip_reload": "true"}
STORED, CERTS, ENTRIES, AUTHORITIES = (
    "/storage/ssl_certificates",
    "/runtime/ssl_certs",
    "/runtime/ssl_crt_lists/entries",
    "/runtime/ssl_ca_files",
)


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate, alone and with its key."""

    certificate: bytes
    pem: bytes


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    """Two certificates for one name."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("THE CERTIFICATE CALLS ARE NOT CHECKED: no openssl on PATH")
    folder = tmp_path_factory.mktemp("certificates")
    made = []
    for number in range(2):
        key, certificate = folder / f"{number}.key", folder / f"{number}.crt"
        command: list[str | Path] = [
            openssl,
            "req",
            "-x509",
            "-nodes",
            "-days",
            "30",
            "-subj",
            "/CN=a.example",
        ]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-addext", "subjectAltName=DNS:a.example", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, capture_output=True)
        made.append(Pair(certificate.read_bytes(), certificate.read_bytes() + key.read_bytes()))
    return made[0], made[1]


@pytest.fixture(scope="session")
def tls_port() -> int:
    """Where the frontend `tls` listens."""
    return free_port()


@pytest.fixture(scope="session")
def config(tls_port: int) -> str:
    """A frontend that starts with no certificate at all, which takes `strict-sni`."""
    tls = f"""
global
  default-path origin {{folder}}/ssl

frontend tls
  bind 127.0.0.1:{tls_port} ssl crt-list {{folder}}/ssl/list.txt strict-sni
  default_backend blue
"""
    return CONFIG + tls


def upload(name: str, content: bytes) -> dict[str, tuple[str, bytes]]:
    """The multipart body of a file."""
    return {"file_upload": (name, content)}


async def served(port: int) -> str | None:
    """The certificate that the name gets, in PEM; None if the handshake is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.example")
    except (ssl.SSLError, ConnectionError):
        return None
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(certificate)


async def test_a_certificate_is_served_rotated_and_removed_without_a_reload(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair], tls_port: int
) -> None:
    process, list_name = await pid(api), {"name": str(plane.folder / "ssl/list.txt")}
    assert expect(await api.get("/runtime/ssl_crt_lists"), 200).json() == [{"file": list_name["name"]}]
    assert expect(await api.get(ENTRIES, params=list_name), 200).json() == []
    assert expect(await api.get(CERTS), 200).json() is None
    assert await served(tls_port) is None

    expect(await api.post(CERTS, files=upload("/some/where/a.pem", pairs[0].pem)), 201)
    (listed,) = expect(await api.get(CERTS), 200).json()
    assert listed["storage_name"] == "a.pem"  # the base name is left of the path
    shown = expect(await api.get(f"{CERTS}/a.pem"), 200).json()
    assert (shown["subject"], shown["status"]) == ("/CN=a.example", "Unused")
    assert await served(tls_port) is None
    entry: Json = {"file": "a.pem", "sni_filter": ["a.example", "*.b.example"]}
    expect(await api.post(ENTRIES, params=list_name, json=entry), 201)
    assert expect(await api.get(ENTRIES, params=list_name), 200).json() == [entry | {"line_number": 1}]
    assert await served(tls_port) == pairs[0].certificate.decode()

    expect(await api.put(f"{CERTS}/a.pem", files=upload("a.pem", pairs[1].pem)), 200)
    assert await served(tls_port) == pairs[1].certificate.decode()

    refused(await api.delete(f"{CERTS}/a.pem"), 500)  # in use
    expect(await api.delete(ENTRIES, params=list_name | {"cert_file": "a.pem", "line_number": "1"}), 204)
    expect(await api.delete(f"{CERTS}/a.pem"), 204)
    assert await served(tls_port) is None
    assert await pid(api) == process
    assert await plane.reloads() == 0


async def test_a_stored_certificate_is_found_under_the_same_name_after_a_reload(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair], tls_port: int
) -> None:
    stored = expect(await api.post(STORED, params=SKIP, files=upload("a.pem", pairs[0].pem)), 201).json()
    assert (stored["storage_name"], stored["file"]) == ("a.pem", str(plane.folder / "ssl/a.pem"))
    (plane.folder / "ssl/list.txt").write_text("a.pem a.example\n", encoding="utf-8")
    assert await served(tls_port) is None
    await reload(api)
    assert await served(tls_port) == pairs[0].certificate.decode()
    (listed,) = expect(await api.get(CERTS), 200).json()
    assert listed["storage_name"].endswith("a.pem")


async def test_certificates_are_stored_replaced_and_deleted_without_a_reload(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    path, file = f"{STORED}/a.pem", plane.folder / "ssl/a.pem"
    expect(await api.post(STORED, params=SKIP, files=upload("a.pem", pairs[0].pem)), 201)
    refused(await api.post(STORED, params=SKIP, files=upload("a.pem", pairs[0].pem)), 409)
    assert file.read_bytes() == pairs[0].pem
    expect(await api.put(path, params=SKIP, content=pairs[1].pem, headers=TEXT), 200)
    assert file.read_bytes() == pairs[1].pem
    assert [one["storage_name"] for one in expect(await api.get(STORED), 200).json()] == ["a.pem"]
    assert expect(await api.get(path), 200).json()["subject"] == "a.example"
    refused(await api.put(f"{STORED}/nope.pem", params=SKIP, content=pairs[1].pem, headers=TEXT), 404)
    refused(await api.post(STORED, params=SKIP, files=upload("bad.pem", b"no certificate")), 500)
    expect(await api.delete(path, params=SKIP), 204)
    refused(await api.delete(path, params=SKIP), 404)
    refused(await api.get(path), 404)
    assert await plane.reloads() == 0


async def test_runtime_certificates_answer_500_for_what_exists_or_is_missing(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    list_name = {"name": str(plane.folder / "ssl/list.txt")}
    expect(await api.post(CERTS, files=upload("a.pem", pairs[0].pem)), 201)
    refused(await api.post(CERTS, files=upload("a.pem", pairs[0].pem)), 500)
    refused(await api.delete(f"{CERTS}/nope.pem"), 500)
    refused(await api.post(ENTRIES, params=list_name, json={"file": "nope.pem"}), 500)
    refused(await api.get(f"{CERTS}/nope.pem"), 404)
    refused(await api.delete(ENTRIES, params=list_name | {"cert_file": "nope.pem"}), 404)
    refused(await api.get(ENTRIES, params={"name": "/nope"}), 404)


async def test_an_error_of_a_certificate_call_repeats_the_private_key(
    api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    message = refused(await api.put(f"{CERTS}/nope.pem", files=upload("nope.pem", pairs[0].pem)), 500)
    assert re.search("BEGIN (EC )?PRIVATE KEY", message)


async def test_a_refused_certificate_leaves_an_empty_one_behind(api: httpx.AsyncClient) -> None:
    refused(await api.post(CERTS, files=upload("bad.pem", b"no certificate\n")), 500)
    assert [one["storage_name"] for one in expect(await api.get(CERTS), 200).json()] == ["bad.pem"]


async def test_a_server_checks_its_peer_against_an_authority_given_at_runtime(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    expect(await api.post(AUTHORITIES, files=upload("ca.crt", pairs[0].certificate)), 201)
    refused(await api.post(AUTHORITIES, files=upload("ca.crt", pairs[0].certificate)), 500)
    listed = expect(await api.get(AUTHORITIES), 200).json()
    assert "ca.crt" in [one["storage_name"] for one in listed]
    assert expect(await api.get(f"{AUTHORITIES}/ca.crt"), 200).json()["count"] == "1 certificate(s)"
    expect(await api.put(f"{AUTHORITIES}/ca.crt", files=upload("ca.crt", pairs[1].certificate)), 201)
    expect(await api.post(CERTS, files=upload("client.pem", pairs[0].pem)), 201)
    server: Json = {
        "name": "a",
        "address": "127.0.0.1",
        "port": 8443,
        "ssl": "enabled",
        "verify": "required",
        "ssl_cafile": "ca.crt",
        "ssl_certificate": "client.pem",
        "sni": "str(a.example)",
        "verifyhost": "a.example",
        "alpn": "h2",
    }
    assert expect(await api.post("/runtime/backends/blue/servers", json=server), 201).json() == server
    (state,) = expect(await api.get("/runtime/backends/blue/servers"), 200).json()
    assert state["use_ssl"] is True
    expect(await api.delete("/runtime/backends/blue/servers/a"), 204)
    expect(await api.delete(f"{AUTHORITIES}/ca.crt"), 204)
    refused(await api.delete(f"{AUTHORITIES}/ca.crt"), 500)
    assert await plane.reloads() == 0


async def test_authorities_are_stored_beside_a_key_of_nobody_and_loaded_under_their_name(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    name, key = "gwctl-ca-1.pem", pairs[1].pem.removeprefix(pairs[1].certificate)
    refused(await api.post(STORED, params=SKIP, files=upload(name, pairs[0].certificate)), 500)
    expect(await api.post(STORED, params=SKIP, files=upload(name, pairs[0].certificate + key)), 201)
    server = {"name": "a", "address": "127.0.0.1", "port": 8443, "ssl": "enabled", "verify": "required"}
    expect(await api.post("/runtime/backends/blue/servers", json=server | {"ssl_cafile": "@system-ca"}), 201)
    await reload(api)
    refused(await api.post("/runtime/backends/blue/servers", json=server | {"ssl_cafile": name}), 500)
    section = f"\nbackend tls_servers\n  server a 127.0.0.1:8443 ssl verify required ca-file {name}\n"
    plane.config_file.write_text(plane.config_file.read_text(encoding="utf-8") + section, encoding="utf-8")
    await plane.restart_haproxy()
    listed = {one["storage_name"]: one["count"] for one in expect(await api.get(AUTHORITIES), 200).json()}
    assert listed[name] == "1 certificate(s)"
    expect(await api.post("/runtime/backends/blue/servers", json=server | {"ssl_cafile": name}), 201)


async def test_an_entry_may_ask_clients_for_a_certificate(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair]
) -> None:
    list_name = {"name": str(plane.folder / "ssl/list.txt")}
    expect(await api.post(AUTHORITIES, files=upload("ca.crt", pairs[0].certificate)), 201)
    expect(await api.post(CERTS, files=upload("a.pem", pairs[0].pem)), 201)
    entry: Json = {
        "file": "a.pem",
        "ssl_bind_config": "ca-file ca.crt verify required",
        "sni_filter": ["a.example"],
    }
    expect(await api.post(ENTRIES, params=list_name, json=entry), 201)
    (listed,) = expect(await api.get(ENTRIES, params=list_name), 200).json()
    # HAProxy says the settings in an order of its own
    assert listed == entry | {"line_number": 1, "ssl_bind_config": "verify required ca-file ca.crt"}


async def test_a_wildcard_of_an_entry_may_leave_names_out_and_one_file_have_several_entries(
    plane: DataPlane, api: httpx.AsyncClient, pairs: tuple[Pair, Pair], tls_port: int
) -> None:
    list_name = {"name": str(plane.folder / "ssl/list.txt")}
    expect(await api.post(CERTS, files=upload("a.pem", pairs[0].pem)), 201)
    names = ["!a.example", "*.example", *(f"!{'x' * 40}{number}.example" for number in range(236))]
    assert 12_000 < len(" ".join(names)) < 12_500
    without: Json = {"file": "a.pem", "sni_filter": names}
    expect(await api.post(ENTRIES, params=list_name, json=without), 201)
    assert expect(await api.get(ENTRIES, params=list_name), 200).json() == [without | {"line_number": 1}]
    assert await served(tls_port) is None
    whole: Json = {"file": "a.pem", "sni_filter": ["*.example"]}
    expect(await api.post(ENTRIES, params=list_name, json=whole), 201)
    assert await served(tls_port) == pairs[0].certificate.decode()
    second = expect(await api.get(ENTRIES, params=list_name), 200).json()[1]
    line = {"cert_file": "a.pem", "line_number": str(second["line_number"])}
    expect(await api.delete(ENTRIES, params=list_name | line), 204)
    assert await served(tls_port) is None
    assert expect(await api.get(ENTRIES, params=list_name), 200).json() == [without | {"line_number": 1}]
