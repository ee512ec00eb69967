"""A frontend that looks at the name in a handshake and hands the connection to another frontend of the same HAProxy."""

import asyncio

import httpx

from tests.contract.wire import Json, begin, expect, reload
from tests.harness import TcpServer, free_port

# In a frontend, not in its defaults: HAProxy does not come back to rules of defaults that wait for data.
RULES: list[Json] = [
    {"type": "inspect-delay", "timeout": 5000},
    {"type": "content", "action": "reject", "cond": "if", "cond_test": "!{ req.ssl_hello_type 1 }"},
    {
        "type": "content",
        "action": "set-var",
        "var_scope": "txn",
        "var_name": "host",
        "expr": "req.ssl_sni,lower,rtrim(.)",
        "cond": "if",
        "cond_test": "{ req.ssl_sni -m found }",
    },
    {"type": "content", "action": "reject", "cond": "if", "cond_test": "!{ var(txn.host) -m str a.test }"},
    {"type": "content", "action": "set-var", "var_scope": "txn", "var_name": "way", "expr": "str(>tls),bytes(1)"},
    {"type": "content", "action": "set-log-level", "log_level": "silent"},
    {"type": "content", "action": "accept", "cond": "if", "cond_test": "{ var(txn.way) -m found }"},
    {"type": "content", "action": "reject"},
]

# An abstract socket is given back only where a variable stands for it.
SOCKET = '"${INNER-abns@gwctl-handover}"'
INNER: Json = {"name": "bind-0", "address": SOCKET, "accept_proxy": True}
LOOP: Json = {"name": "loop", "address": SOCKET, "send-proxy-v2": "enabled"}
BACKEND: Json = {"mode": "tcp", "connect_timeout": 2000, "server_timeout": 5000}


def client_hello(name: str) -> bytes:
    """The first message of a handshake (RFC 8446, section 4.1.2), with a name (RFC 6066, section 3) or without."""

    def sized(data: bytes, octets: int = 2) -> bytes:
        return len(data).to_bytes(octets, "big") + data

    extensions = b"\x00\x00" + sized(sized(b"\x00" + sized(name.encode()))) if name else b""
    body = b"\x03\x03" + bytes(32) + sized(b"", 1) + sized(b"\x13\x01") + sized(b"\x00", 1) + sized(extensions)
    return b"\x16\x03\x01" + sized(b"\x01" + sized(body, 3))


async def test_a_connection_is_handed_over_with_all_it_has_sent(api: httpx.AsyncClient) -> None:
    hello = client_hello("A.test")
    reached: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        reached.put_nowait(await reader.readexactly(len(hello)))

    async def send(*parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()
            await writer.wait_closed()

    async with TcpServer(take) as server:
        port, end = free_port(), server.port
        await commit(
            api,
            (
                "defaults",
                {"name": "quiet", "mode": "tcp", "client_timeout": 5000, "log_target_list": [{"global": True}]},
            ),
            (
                "backends",
                BACKEND | {"name": "end", "servers": {"end": {"name": "end", "address": "127.0.0.1", "port": end}}},
            ),
            ("backends", BACKEND | {"name": "port.to-tls", "servers": {"loop": LOOP}}),
            (
                "frontends",
                {
                    "name": "port.tls",
                    "mode": "tcp",
                    "from": "quiet",
                    "binds": {"bind-0": INNER},
                    "default_backend": "end",
                },
            ),
            (
                "frontends",
                {
                    "name": "port",
                    "mode": "tcp",
                    "from": "quiet",
                    "binds": {"bind-0": {"name": "bind-0", "address": "127.0.0.1", "port": port}},
                    "tcp_request_rule_list": RULES,
                    "backend_switching_rule_list": [{"name": "%[fe_name,concat(.to-,txn.way)]"}],
                },
            ),
        )
        for _ in range(2):
            for parts in ([hello], [hello[:20], hello[20:]], [hello[:-3], hello[-3:]]):
                assert await send(*parts) == b""
                assert await asyncio.wait_for(reached.get(), 5) == hello
            for other in (client_hello(""), client_hello("b.test"), b"GET / HTTP/1.1\r\n\r\n"):
                assert await send(other) == b""
            await reload(api)
    assert reached.empty()


async def commit(api: httpx.AsyncClient, *sections: tuple[str, Json]) -> None:
    """Write sections that must be read back as they were given."""
    within = {"full_section": "true", "transaction_id": await begin(api)}
    for kind, body in sections:
        assert expect(await api.post(f"/configuration/{kind}", params=within, json=body), 202).json() == body
        assert expect(await api.get(f"/configuration/{kind}/{body['name']}", params=within), 200).json() == body
    expect(await api.put(f"/transactions/{within['transaction_id']}", params={"force_reload": "true"}), 200)
