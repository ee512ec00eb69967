"""A real HAProxy with a Data Plane API, and backends for it, in one folder; used by tests, demo and benchmark
alike.

In: the programs of `tests.parts`. Out: `DataPlane`, running processes with an address and credentials, and
`EchoBackend` and `TcpEcho`, servers that say what reached them. Surprising: what HAProxy did (process, start
time, reloads) is read from HAProxy's own sockets, never from gwctl or the Data Plane API, so a test can trust
it.
"""

import argparse
import asyncio
import base64
import contextlib
import ctypes
import hashlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx
import yaml

from tests.parts import Part, find_dataplaneapi, find_haproxy

START_SECONDS = 30.0
STOP_SECONDS = 5.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.02
LONGEST_SOCKET_FOLDER = 80  # a socket's path has 108 bytes, some of them for HAProxy's own suffix
FOLDERS = ("maps", "ssl", "general", "spoe", "dataplane", "transactions", "spoe-transactions", "backups")

BOOTSTRAP = """\
global
  stats socket {sockets}/admin.sock mode 600 level admin
  maxconn 4000
  fd-hard-limit 20000
  hard-stop-after 10s
  log stdout format raw local0 info

userlist dataplane
  user {username} insecure-password {password}

defaults unnamed_defaults_1
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
"""


class HarnessError(Exception):
    """A process did not start, died or did not answer in time; ends with the last lines of its log."""


@dataclass(frozen=True)
class Worker:
    """HAProxy's serving process. Two equal values mean: no reload and no restart in between."""

    pid: int
    started: int  # seconds since the epoch


class DataPlane:
    """HAProxy in master-worker mode and a Data Plane API beside it, as an async context manager.

    `haproxy_cfg` replaces the bootstrap configuration; it is formatted with `{sockets}`, `{folder}`,
    `{username}` and `{password}`. A folder that is not given is a temporary one and removed at the end.
    """

    username = "admin"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        haproxy: Path | None = None,
        api: Part | None = None,
        haproxy_cfg: str = BOOTSTRAP,
    ) -> None:
        self.haproxy = haproxy or find_haproxy()
        self.api = api or find_dataplaneapi()
        self.password = secrets.token_hex(8)
        self.port = 0
        self._temporary: list[Path] = []
        self.folder = folder.absolute() if folder else self._make_temporary()
        self.maps = self.folder / "maps"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sockets = self.folder
        if len(os.fsencode(self.folder)) > LONGEST_SOCKET_FOLDER:
            self.sockets = self._make_temporary()
        self._haproxy_cfg = haproxy_cfg
        self._haproxy_process: subprocess.Popen[bytes] | None = None
        self._api_process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where the Data Plane API listens, without `/v3`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def kind(self) -> str:
        """Whether the Data Plane API is the "real" one or the "standin"."""
        return self.api.kind

    @property
    def config_file(self) -> Path:
        """HAProxy's configuration, which the Data Plane API rewrites."""
        return self.folder / "haproxy.cfg"

    @property
    def haproxy_log(self) -> Path:
        """What HAProxy printed: its warnings, and a line for each request where a frontend logs."""
        return self.folder / "haproxy.log"

    @property
    def api_log(self) -> Path:
        """What the Data Plane API printed."""
        return self.folder / "dataplaneapi.log"

    def client(self) -> httpx.AsyncClient:
        """An HTTP client of the Data Plane API, with credentials and `…/v3` as its base."""
        auth = (self.username, self.password)
        # Certificates, which nobody needs here, would take 40 ms to load.
        return httpx.AsyncClient(base_url=f"{self.url}/v3", auth=auth, timeout=60, verify=False)

    async def start(self) -> None:
        """Start both processes and wait until the Data Plane API answers with HAProxy's own data."""
        for name in FOLDERS:
            (self.folder / name).mkdir(exist_ok=True)
        config = self._haproxy_cfg.format(
            sockets=self.sockets, folder=self.folder, username=self.username, password=self.password
        )
        self.config_file.write_text(config, encoding="utf-8")
        await self.start_haproxy()
        await self.start_api()

    async def start_haproxy(self) -> None:
        """Start HAProxy from the configuration file as it is now and wait until it answers."""
        command: list[str | Path] = [
            self.haproxy,
            "-W",
            "-S",
            self.sockets / "master.sock",
            "-f",
            self.config_file,
        ]
        self._haproxy_process = _start(command, self.haproxy_log, self.folder)
        await self._until("HAProxy", self._haproxy_process, self.haproxy_log, self._haproxy_answers)

    async def start_api(self) -> None:
        """Start the Data Plane API, on the port it had before, and wait until it answers."""
        settings = self.folder / "dataplaneapi.yaml"
        for attempt in range(3):
            if attempt or not self.port:
                self.port = free_port()
            settings.write_text(yaml.safe_dump(self._api_settings(), sort_keys=False), encoding="utf-8")
            self._api_process = _start([self.api.path, "-f", settings], self.api_log, self.folder)
            try:
                await self._until("the Data Plane API", self._api_process, self.api_log, self._api_answers)
            except HarnessError as error:
                if attempt == 2 or "address already in use" not in str(error):
                    raise
            else:
                return

    async def stop(self) -> None:
        """End both processes with all that they started, and remove temporary folders."""
        await self.stop_api()
        await self.stop_haproxy()
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)

    async def stop_api(self, *, kill: bool = False) -> None:
        """End the Data Plane API, with `kill` as a crash would."""
        if self._api_process:
            await _end(self._api_process, signal.SIGKILL if kill else signal.SIGTERM)
            self._api_process = None

    async def stop_haproxy(self, *, kill: bool = False) -> None:
        """End HAProxy's master and workers at once, with `kill` as a crash would."""
        if self._haproxy_process:
            await _end(self._haproxy_process, signal.SIGKILL if kill else signal.SIGTERM)
            self._haproxy_process = None

    async def restart_haproxy(self) -> None:
        """Kill HAProxy and start it again from its file: everything that was runtime state only is gone."""
        await self.stop_haproxy(kill=True)
        await self.start_haproxy()
        assert self._api_process
        await self._until("the Data Plane API", self._api_process, self.api_log, self._api_answers)

    async def restart_api(self) -> None:
        """Kill the Data Plane API and start it again on the same port."""
        await self.stop_api(kill=True)
        await self.start_api()

    async def runtime(self, command: str) -> str:
        """Send a command to the worker's own socket, for example `show map`."""
        return await _ask(self.sockets / "admin.sock", command)

    async def master(self, command: str) -> str:
        """Send a command to the master's socket, for example `show proc`."""
        return await _ask(self.sockets / "master.sock", f"{command};quit")  # without it, it stays open

    async def worker(self) -> Worker:
        """The process that serves now, as HAProxy itself says; a reload or a restart gives another one."""
        info = _info(await self.runtime("show info"))
        return Worker(int(info["Pid"]), int(info["Start_time_sec"]))

    async def worker_pid(self) -> int:
        """The serving process's id."""
        return (await self.worker()).pid

    async def worker_start(self) -> int:
        """When the serving process started, in seconds since the epoch."""
        return (await self.worker()).started

    async def reloads(self) -> int:
        """How often the master has reloaded since it was started, successfully or not."""
        for line in (await self.master("show proc")).splitlines():
            fields = line.split()
            if len(fields) > 2 and fields[1] == "master":
                return int(fields[2])
        raise HarnessError("HAProxy's master does not say how often it has reloaded")

    async def wait_for_reload(self, before: Worker) -> Worker:
        """Wait until another worker serves than `before` and return it."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, KeyError):
                if (now := await self.worker()) != before:
                    return now
            await asyncio.sleep(POLL_SECONDS)
        raise HarnessError(f"HAProxy did not reload in {START_SECONDS} s\n{_tail(self.haproxy_log)}")

    def _make_temporary(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="gwctl-"))
        self._temporary.append(folder)
        return folder

    def _api_settings(self) -> dict[str, object]:
        at = {name: str(self.folder / name) for name in FOLDERS}
        return {
            "config_version": 2,
            "name": "gwctl-harness",
            "dataplaneapi": {
                "host": "127.0.0.1",
                "port": self.port,
                "scheme": ["http"],
                "userlist": {"userlist": "dataplane"},
                "transaction": {
                    "transaction_dir": at["transactions"],
                    "backups_dir": at["backups"],
                    "backups_number": 2,
                },
                "resources": {
                    "maps_dir": str(self.maps),
                    "ssl_certs_dir": at["ssl"],
                    "general_storage_dir": at["general"],
                    "dataplane_storage_dir": at["dataplane"],
                    "spoe_dir": at["spoe"],
                    "spoe_transaction_dir": at["spoe-transactions"],
                },
            },
            "haproxy": {
                "config_file": str(self.config_file),
                "haproxy_bin": str(self.haproxy),
                "master_runtime": str(self.sockets / "master.sock"),
                "master_worker_mode": True,
                "delayed_start_tick": "50ms",
                # the master's socket does the work, but the custom strategy wants commands to be named
                "reload": {
                    "reload_delay": 1,
                    "reload_strategy": "custom",
                    "reload_cmd": "true",
                    "restart_cmd": "true",
                },
            },
            "log_targets": [{"log_to": "stdout", "log_level": "info", "log_types": ["app", "access"]}],
        }

    async def _haproxy_answers(self) -> bool:
        await self.worker()
        return bool(await self.master("show version"))

    async def _api_answers(self) -> bool:
        async with self.client() as client:
            return (await client.get("/services/haproxy/runtime/info")).status_code == httpx.codes.OK

    async def _until(
        self, name: str, process: subprocess.Popen[bytes], log: Path, answers: Callable[[], Awaitable[bool]]
    ) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise HarnessError(f"{name} ended with status {process.returncode}\n{_tail(log)}")
            with contextlib.suppress(OSError, KeyError, httpx.TransportError):
                if await answers():
                    return
            await asyncio.sleep(POLL_SECONDS)
        raise HarnessError(f"{name} did not answer in {START_SECONDS} s\n{_tail(log)}")


_handed_out: set[int] = set()


def free_port() -> int:
    """A loopback TCP port that nothing listens on, not handed out before by this process.

    It lies below the range that the kernel takes clients' ports from, so no client can be in its way, and below the
    ports of listener slots.
    """
    for _ in range(1000):
        port = random.randrange(12000, 20000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
        if port not in _handed_out:
            _handed_out.add(port)
            return port
    raise HarnessError("no free port between 12000 and 20000")


class EchoBackend:
    """An HTTP/1.1 server in this process that answers with JSON about the request.

    The answer is `{"name", "method", "path", "query", "headers", "body_length"}`; `path` and `query` as
    received, `headers` from lower-case names to lists of values. `/status/503` answers with that status; a header
    `answer-NAME` of the request is the header `NAME` of the answer. A query of `delay=0.5` delays the answer by so many
    seconds. A WebSocket is opened, and all bytes that come after that are sent back.
    """

    def __init__(self, name: str, port: int = 0, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.tls = tls
        self.host = host
        self.port = port
        self.requests = 0
        self.connections = 0
        self.paths: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._open: set[_EchoProtocol] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a port of 0 becomes a free one, and a stopped backend starts again on the port it had."""
        self.port = self.port or free_port()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _EchoProtocol(self), self.host, self.port, backlog=1024, reuse_address=True, ssl=self.tls
        )

    async def stop(self) -> None:
        """Stop listening and close the connections that are open."""
        if self._server:
            self._server.close()
            for connection in tuple(self._open):
                connection.close()
            await self._server.wait_closed()
            self._server = None

    def note(self, reply: dict[str, object]) -> None:
        """Hear of each request, as it is answered; for tests that want to know what came in."""

    def answer(self, method: str, target: str, headers: Mapping[str, list[str]], body_length: int) -> bytes:
        """The whole response to one request."""
        path, _, query = target.partition("?")
        self.requests += 1
        self.paths[path] += 1
        status = int(path[8:11]) if path.startswith("/status/") and path[8:11].isdecimal() else 200
        status = 101 if wants_websocket(headers) else status
        reply = {
            "name": self.name,
            "method": method,
            "path": path,
            "query": query,
            "headers": headers,
            "body_length": body_length,
        }
        self.note(reply)
        body = b"" if status in (101, 204, 304) else json.dumps(reply).encode()
        length = f"content-length: {len(body)}\r\n" if body else ""
        asked = ((name[7:], value) for name, lines in headers.items() if name.startswith("answer-") for value in lines)
        more = "".join(f"{name}: {value}\r\n" for name, value in asked)
        more += _accept_websocket(headers) if status == 101 else "content-type: application/json\r\n"
        head = f"HTTP/1.1 {status} Echo\r\n{more}{length}\r\n"
        return head.encode("latin-1") + (b"" if method == "HEAD" else body)


def wants_websocket(headers: Mapping[str, list[str]]) -> bool:
    """Tell whether a request opens a WebSocket (RFC 6455, section 4.1)."""
    return [value.lower() for value in headers.get("upgrade", [])] == ["websocket"]


def _accept_websocket(headers: Mapping[str, list[str]]) -> str:
    key = headers["sec-websocket-key"][0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    return f"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n"


class _EchoProtocol(asyncio.Protocol):
    """One connection: requests one after another, with a body by length or in chunks."""

    def __init__(self, backend: EchoBackend) -> None:
        self._backend = backend
        self._buffer = b""
        self._is_websocket = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._backend.connections += 1
        self._backend._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._backend._open.discard(self)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while not self._is_websocket and self._answer_one():
                pass
        except (ValueError, IndexError):
            if self._transport:
                self._transport.write(b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.close()
        if self._is_websocket and self._transport:
            self._transport.write(self._buffer)
            self._buffer = b""

    def _answer_one(self) -> bool:
        """Answer the first request if the buffer holds all of it."""
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator or not self._transport:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers: dict[str, list[str]] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        if "chunked" in headers.get("transfer-encoding", []):
            body = _chunked(rest)
        else:
            length = int(headers.get("content-length", ["0"])[0])
            body = (length, length) if len(rest) >= length else None
        if body is None:
            return False
        length, consumed = body
        self._buffer = rest[consumed:]
        if target.startswith("http://"):
            parts = urlsplit(target)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
        answer = self._backend.answer(method, target, headers, length)
        self._is_websocket = answer.startswith(b"HTTP/1.1 101")
        if "?delay=" in target:
            delay = float(target.partition("?delay=")[2].partition("&")[0])
            asyncio.get_running_loop().call_later(delay, self._transport.write, answer)
            return True
        self._transport.write(answer)
        if headers.get("connection") == ["close"]:
            self.close()
        return True


def _chunked(data: bytes) -> tuple[int, int] | None:
    """The length of a chunked body and the bytes it takes, or None when it is not complete."""
    length = position = 0
    while (end := data.find(b"\r\n", position)) >= 0:
        size = int(data[position:end].split(b";")[0], 16)
        position = end + 2 + size + 2
        if position > len(data):
            return None
        if size == 0:
            return length, position
        length += size
    return None


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class TcpServer:
    """A TCP server in this process that hands each connection to a handler; with ``tls`` once a handshake is done.

    Connections end with the server, whatever their handlers wait for.
    """

    def __init__(
        self, handle: Handler, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.host = host
        self.port = port
        self.connections = 0
        self._handle = handle
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; a port of 0 becomes a free one, and a stopped server starts again on the port it had."""
        self.port = self.port or free_port()
        self._server = await asyncio.start_server(self._accept, self.host, self.port, backlog=1024, ssl=self._tls)

    async def stop(self) -> None:
        """Stop listening and close the connections that are open."""
        if self._server:
            self._server.close()
            for _ in range(5):  # what was accepted, but not handed over yet
                await asyncio.sleep(0)
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            writer.close()


class TcpEcho(TcpServer):
    """A TCP server that greets with its name and a line end, then sends back what it gets."""

    def __init__(self, name: str, port: int = 0, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._echo, port, host, tls)
        self.name = name

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{self.name}\n".encode())
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def _die_with_parent() -> None:
    """In a child before it becomes its program: end with the parent, even when the parent is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _start(command: list[str | Path], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, its output appended to a file."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


async def _end(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    """End a process that `_start` started and its group: by `with_signal`, after a while by force."""
    deadline = time.monotonic() + STOP_SECONDS
    group = process.pid
    _signal_group(group, with_signal)
    while process.poll() is None or _group_lives(group):
        if time.monotonic() > deadline:
            _signal_group(group, signal.SIGKILL)
            process.wait()
            return
        await asyncio.sleep(POLL_SECONDS)


def _signal_group(group: int, which: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, which)


def _group_lives(group: int) -> bool:
    """Whether a process of the group still runs; zombies that wait for init do not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text(encoding="latin-1").rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False


async def _ask(path: Path, command: str) -> str:
    """One command to a socket of HAProxy; it closes the connection after its answer."""
    async with asyncio.timeout(ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(f"{command}\n".encode())
            await writer.drain()
            return (await reader.read()).decode("utf-8", "replace")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _info(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(": ") for line in text.splitlines())}


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


async def _serve(backend: EchoBackend | TcpEcho) -> None:
    async with backend:
        print(f"{backend.name} listens on {backend.host}:{backend.port}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """`python -m tests.harness NAME --port 8001 [--tcp]`: one backend as a process of its own."""
    parser = argparse.ArgumentParser(description="an example backend that says what reached it")
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--tcp", action="store_true", help="echo bytes instead of answering HTTP")
    options = parser.parse_args()
    server = TcpEcho if options.tcp else EchoBackend
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(server(options.name, options.port, options.host)))


if __name__ == "__main__":
    main()
