"""gRPC for tests: a server that says what reached it, and a client for calls of any service.

Both are grpcio's, which most users' clients are made of. No messages are defined: they are bytes, and answers are JSON.
The surprising fact: grpcio's C core takes part in ``fork``, and kills the harness's children, unless it is told
otherwise before it is first imported; so no other module of the tests imports it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.certificates import Pair
from tests.harness import free_port

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import grpc

Metadata = tuple[tuple[str, str], ...]

UNIMPLEMENTED = "UNIMPLEMENTED"
UNAVAILABLE = "UNAVAILABLE"
OK = "OK"

END = grpc.aio.EOF
"""What a stream's ``read`` gives after the last message."""

CALL_SECONDS = 20.0
UNTIL_SECONDS = 30.0


class GrpcEcho(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A gRPC server in this process, with TLS where it gets a certificate. It has every service.

    A method's name says what it does.

    ``Fail`` ends with FAILED_PRECONDITION. ``Count`` streams as many messages as the request says. ``Sum`` adds up
    the lengths of a stream. ``Chat`` answers each message before the next. ``Wait`` sends one message and then is
    silent until `release` is set. Every other method is unary and answers with JSON: name, path, metadata.
    """

    def __init__(self, name: str, *, pair: Pair | None = None) -> None:
        self.name = name
        self.port = free_port()
        self.calls = 0
        self._pair = pair
        self.lengths: list[int] = []
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._server: Any = None

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        if self._pair is None:
            self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            pairs = [(self._pair.key.encode(), self._pair.certificate.encode())]
            self._server.add_secure_port(f"127.0.0.1:{self.port}", grpc.ssl_server_credentials(pairs))
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.stop(grace=None)

    def service(self, details: Any) -> Any:
        """Give the handler of a call."""
        self.calls += 1
        match details.method.rpartition("/")[2]:
            case "Fail":
                return grpc.unary_unary_rpc_method_handler(self._fail)
            case "Count":
                return grpc.unary_stream_rpc_method_handler(self._count)
            case "Wait":
                return grpc.unary_stream_rpc_method_handler(self._wait)
            case "Sum":
                return grpc.stream_unary_rpc_method_handler(self._sum)
            case "Chat":
                return grpc.stream_stream_rpc_method_handler(self._chat)
        return grpc.unary_unary_rpc_method_handler(self._echo(details.method))

    def _echo(self, path: str) -> Callable[[bytes, Any], Any]:
        async def echo(request: bytes, context: Any) -> bytes:
            self.lengths.append(len(request))
            await context.send_initial_metadata((("x-backend", self.name),))
            context.set_trailing_metadata((("x-trailer", "sent last"), ("x-blob-bin", b"\x00\xff")))
            received: dict[str, list[str]] = {}
            for key, value in context.invocation_metadata():
                received.setdefault(key, []).append(str(value))
            reply = {"name": self.name, "path": path, "metadata": received, "length": len(request)}
            return json.dumps(reply).encode()

        return echo

    async def _fail(self, _: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö", (("x-trailer", "sent last"),))

    async def _count(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield str(number).encode()

    async def _wait(self, _: bytes, __: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await self.release.wait()
            yield b"last"
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def _sum(self, requests: AsyncIterator[bytes], _: Any) -> bytes:
        total = 0
        async for request in requests:
            total += len(request)
        return str(total).encode()

    async def _chat(self, requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a unary call. ``echo`` is the server's JSON, empty where it did not answer."""

    code: str
    message: str
    headers: Mapping[str, str | bytes]
    trailers: Mapping[str, str | bytes]
    echo: Mapping[str, Any]

    @property
    def backend(self) -> str:
        return str(self.echo.get("name", ""))


class Call(NamedTuple):
    """A unary call: ``path`` is ``/service/method``."""

    path: str
    host: str = "grpc.test"
    metadata: Metadata = ()
    body: bytes = b""


class GrpcClient:
    """Calls through a port of HAProxy; one connection for each host that is called.

    With ``trusted``, certificates in PEM, it speaks TLS and asks for the host in the handshake.
    """

    def __init__(self, port: int, *, trusted: str = "") -> None:
        self._address = f"127.0.0.1:{port}"
        self._trusted = trusted
        self._channels: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()

    def channel(self, host: str = "grpc.test") -> Any:
        """Give the channel whose calls are for a host."""
        if host not in self._channels:
            options = (
                ("grpc.default_authority", host),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 20),
                ("grpc.min_reconnect_backoff_ms", 20),
                ("grpc.max_reconnect_backoff_ms", 100),
                # What answers must be this server's or HAProxy's, not what the library made of it by trying again.
                ("grpc.enable_retries", 0),
            )
            if self._trusted:
                named = (("grpc.ssl_target_name_override", host), *options)
                credentials = grpc.ssl_channel_credentials(self._trusted.encode())
                self._channels[host] = grpc.aio.secure_channel(self._address, credentials, options=named)
            else:
                self._channels[host] = grpc.aio.insecure_channel(self._address, options=options)
        return self._channels[host]

    async def call(self, call: Call) -> Reply:
        """Make a unary call."""
        method = self.channel(call.host).unary_unary(call.path)
        running = method(call.body, metadata=call.metadata, timeout=CALL_SECONDS)
        try:
            echo = json.loads(await running)
        except grpc.aio.AioRpcError:
            echo = {}
        code, message = await running.code(), await running.details()
        return Reply(
            code.name,
            message or "",
            dict(await running.initial_metadata()),
            dict(await running.trailing_metadata()),
            echo,
        )

    async def until(self, call: Call, code: str, backend: str = "") -> Reply:
        """Make a call until it ends with this code, and comes from this backend."""
        reply: Reply | None = None
        try:
            async with asyncio.timeout(UNTIL_SECONDS):
                while True:
                    reply = await self.call(call)
                    if reply.code == code and backend in ("", reply.backend):
                        return reply
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"{call} did not end with {code} from {backend or 'anyone'}: {reply}") from None
