"""A thin client of the Data Plane API: one method for each call that gwctl makes.

Names in, JSON values out; errors are those of `gwctl.dataplane.error`. The surprising fact: a key in a URL is encoded
byte by byte, since the API decodes a path twice unless it holds an escape that needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from gwctl.api.sensitive import Sensitive
from gwctl.dataplane.error import (
    AlreadyExists,
    ConfigurationRefused,
    NotFound,
    Refused,
    TooManyTransactions,
    Unavailable,
    VersionConflict,
    redact_parts,
)
from gwctl.haproxy.names import PLACEHOLDER
from gwctl.haproxy.state import CrtEntry, Section, SectionKey, SectionKind

Json = Any
T = TypeVar("T")
Observer = Callable[[str, str, int], None]
"""Called after every request with the method, the call's template and the status (0: no answer)."""

_RELOAD_ID = "Reload-ID"
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
"""The API itself waits up to 30 s for a HAProxy that died, one call after the other: asking anew only adds to that."""

_CONFIGURATION = "/services/haproxy/configuration"
_RAW = f"{_CONFIGURATION}/raw"
_TRANSACTIONS = "/services/haproxy/transactions"

_NOT_TAKEN = (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY)
_TRANSACTION_GONE = "transaction does not exist"
"""What the API says within a transaction that somebody else's commit has outdated."""


@dataclass(frozen=True, slots=True)
class Process:
    """A worker process of HAProxy. Another one has another ``pid`` or an uptime that went back."""

    pid: int
    uptime: int
    version: str


class Client:
    """Talks to one Data Plane API. Use it as an asynchronous context manager."""

    def __init__(
        self,
        url: str,
        username: str,
        password: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        observer: Observer | None = None,
    ) -> None:
        """``url`` is ``http://host:port`` or ``unix:///path/of/socket``."""
        self._url = base = url
        if url.startswith("unix://"):
            base, transport = "http://dataplane", transport or httpx.AsyncHTTPTransport(uds=url.removeprefix("unix://"))
        self._http = httpx.AsyncClient(
            base_url=f"{base.rstrip('/')}/v3",
            auth=httpx.BasicAuth(username, password),
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,
        )
        self._observer = observer or (lambda method, call, status: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def api_version(self) -> str:
        """Give the Data Plane API's own version, such as ``v3.4.2``."""
        return await self._get("/info", lambda body: str(body["api"]["version"]).split()[0])

    async def process(self) -> Process:
        """Give HAProxy's worker process. Where HAProxy is gone, the API answers 200 without saying anything of it."""
        process = await self._get("/services/haproxy/runtime/info", _read_process)
        if process is None:
            raise Unavailable("GET /services/haproxy/runtime/info: HAProxy does not answer")
        return process

    # Configuration

    async def configuration_version(self) -> int:
        """Give the version that the next transaction must name."""
        return await self._get("/services/haproxy/configuration/version", int)

    async def sections(self, kind: SectionKind, transaction: str | None = None) -> list[dict[str, Json]]:
        """Give all sections of a kind with their children, each with its name."""
        parameters = {"full_section": "true", **_transaction(transaction)}
        return await self._get(f"/services/haproxy/configuration/{kind}", _read_sections, parameters)

    async def global_section(self, transaction: str | None = None) -> dict[str, Json]:
        """Give the ``global`` section."""
        parameters = {"full_section": "true", **_transaction(transaction)}
        return await self._get("/services/haproxy/configuration/global", _read_object, parameters)

    async def replace_global(self, section: Mapping[str, Json], transaction: str) -> None:
        """Replace the ``global`` section within a transaction."""
        await self._send(
            "PUT",
            "/services/haproxy/configuration/global",
            {"full_section": "true", "transaction_id": transaction},
            json=section,
        )

    async def put_section(self, key: SectionKey, section: Section, existing: bool, transaction: str) -> None:
        """Create or replace a section with its children within a transaction."""
        path = f"/services/haproxy/configuration/{key.kind}"
        parameters = {"full_section": "true", "transaction_id": transaction}
        if existing:
            await self._send("PUT", f"{path}/{{name}}", parameters, name=key.name, json=section)
        else:
            await self._send("POST", path, parameters, json=section)

    async def delete_section(self, key: SectionKey, transaction: str) -> None:
        """Delete a section within a transaction."""
        path = f"/services/haproxy/configuration/{key.kind}/{{name}}"
        await self._send("DELETE", path, {"transaction_id": transaction}, name=key.name)

    async def begin(self, version: int) -> str:
        """Open a transaction on the configuration of this version; give its id."""
        response = await self._send("POST", _TRANSACTIONS, {"version": str(version)})
        return _understand(response, lambda body: str(body["id"]), f"POST {_TRANSACTIONS}")

    async def open_transactions(self) -> dict[str, int]:
        """Give the transactions that are open, whoever has begun them: id to the version that each was begun on."""
        return await self._get(
            _TRANSACTIONS,
            lambda body: {str(item["id"]): int(item["_version"]) for item in body or ()},
            {"status": "in_progress"},
        )

    async def commit(self, transaction: str) -> str | None:
        """Commit a transaction; give the id of the reload that follows, None when HAProxy has reloaded already."""
        path = f"{_TRANSACTIONS}/{{name}}"
        try:
            response = await self._send("PUT", path, name=transaction)
        except NotFound:
            raise _conflict("PUT", path) from None
        reload: str | None = response.headers.get(_RELOAD_ID)
        return reload

    async def drop(self, transaction: str) -> None:
        """Drop a transaction; one that is gone is no error."""
        try:
            await self._send("DELETE", "/services/haproxy/transactions/{name}", name=transaction)
        except NotFound:
            return

    async def reload_status(self, reload: str) -> tuple[str, str]:
        """Give a reload's status (``in_progress``, ``succeeded`` or ``failed``) and what HAProxy said."""
        path = "/services/haproxy/reloads/{name}"
        return await self._get(path, lambda body: (str(body["status"]), str(body.get("response", ""))), name=reload)

    async def configuration_text(self, transaction: str | None = None) -> bytes:
        """Give the configuration as the API renders it, with the changes of a transaction."""
        return (await self._send("GET", _RAW, _transaction(transaction))).content

    async def store_configuration(self, text: bytes, version: int) -> None:
        """Replace the configuration's file and nothing else: HAProxy takes it when it next starts."""
        parameters = {"version": str(version), "skip_reload": "true"}
        await self._send("POST", _RAW, parameters, content=text, headers={"Content-Type": "text/plain"})

    async def reread_file(self) -> None:
        """Make the API take the configuration from its file again, which it fails to do after a failed reload."""
        await self.store_configuration(await self.configuration_text(), await self.configuration_version())

    # Files

    async def store_map(self, name: str, text: str) -> str:
        """Write a map's file, which changes nothing at runtime; give its path. The text must not be empty."""
        path = "/services/haproxy/storage/maps"
        there = (await self.stored("maps")).get(name)
        if there is None:
            return await self._upload(path, name, text)
        headers = {"Content-Type": "text/plain"}
        parameters = {"skip_reload": "true"}
        await self._send("PUT", f"{path}/{{name}}", parameters, name=name, content=text.encode(), headers=headers)
        return there

    async def stored_map(self, name: str) -> str:
        """Give the text of a map's file."""
        return (await self._send("GET", "/services/haproxy/storage/maps/{name}", name=name)).text

    async def store_general(self, name: str, text: str) -> str:
        """Add a file of general use; give its path."""
        return await self._upload("/services/haproxy/storage/general", name, text)

    async def replace_general(self, name: str, text: str) -> None:
        """Replace a file of general use, which changes nothing at runtime."""
        path = "/services/haproxy/storage/general/{name}"
        files = {"file_upload": (name, text.encode(), "text/plain")}
        await self._send("PUT", path, {"skip_reload": "true"}, name=name, files=files)

    async def stored_general(self, name: str) -> str:
        """Give the text of a file of general use."""
        return (await self._send("GET", "/services/haproxy/storage/general/{name}", name=name)).text

    async def store_certificate(self, name: str, pem: Sensitive) -> str:
        """Add a certificate's file, which changes nothing at runtime; give its path."""
        path = "/services/haproxy/storage/ssl_certificates"
        response = await self._send_certificate("POST", path, name, pem, {"skip_reload": "true"})
        return _understand(response, lambda body: str(body["file"]), f"POST {path}")

    async def delete_stored_certificate(self, name: str) -> None:
        """Delete a certificate's file; one that is gone is no error."""
        path = "/services/haproxy/storage/ssl_certificates/{name}"
        try:
            await self._send("DELETE", path, {"skip_reload": "true"}, name=name)
        except NotFound:
            return

    async def stored(self, kind: Literal["maps", "general", "ssl_certificates"]) -> dict[str, str]:
        """Give the stored files of a kind: name to path."""
        return await self._get(
            f"/services/haproxy/storage/{kind}",
            lambda body: {str(item["storage_name"]): str(item["file"]) for item in body or ()},
        )

    async def delete_general(self, name: str) -> None:
        """Delete a file of general use."""
        await self._send("DELETE", "/services/haproxy/storage/general/{name}", name=name)

    async def _upload(self, path: str, name: str, text: str) -> str:
        files = {"file_upload": (name, text.encode(), "text/plain")}
        response = await self._send("POST", path, files=files)
        return _understand(response, lambda body: str(body["file"]), f"POST {path}")

    # Runtime: rows

    async def rows(self, table: str) -> list[tuple[str, str]]:
        """Give all rows of a map as HAProxy has them, in its order; a key may be there twice."""
        return await self._get(
            "/services/haproxy/runtime/maps/{name}/entries",
            lambda body: [(str(row["key"]), str(row["value"])) for row in body or ()],
            name=table,
        )

    async def count(self, table: str) -> int:
        """Give the sum of a table of counters; zero where HAProxy has no such table."""
        path = "/services/haproxy/runtime/stick_tables/{name}/entries"
        try:
            return await self._get(
                path, lambda body: sum(int(entry.get("gpc0") or 0) for entry in body or ()), name=table
            )
        except Refused as error:
            if "No such table" in str(error):
                return 0
            raise

    async def row(self, table: str, key: str) -> str | None:
        """Give the value of a row, None where there is none."""
        path = "/services/haproxy/runtime/maps/{name}/entries/{key}"
        try:
            return await self._get(path, lambda body: str(body["value"]), name=table, key=key)
        except NotFound:
            return None

    async def add_row(self, table: str, key: str, value: str) -> None:
        """Add a row."""
        path = "/services/haproxy/runtime/maps/{name}/entries"
        await self._send("POST", path, name=table, json={"key": key, "value": value})

    async def set_row(self, table: str, key: str, value: str) -> None:
        """Replace the value of a row."""
        path = "/services/haproxy/runtime/maps/{name}/entries/{key}"
        await self._send("PUT", path, name=table, key=key, json={"value": value})

    async def delete_row(self, table: str, key: str) -> None:
        """Delete a row; one that is gone is no error."""
        path = "/services/haproxy/runtime/maps/{name}/entries/{key}"
        try:
            await self._send("DELETE", path, name=table, key=key)
        except NotFound:
            return

    async def replace_rows(self, table: str, rows: Mapping[str, str]) -> None:
        """Replace all rows of a map in one step. It is atomic only for more than 8,192 bytes; always read back."""
        entries = [{"key": key, "value": value} for key, value in rows.items()]
        await self._send("PUT", "/services/haproxy/runtime/maps/{name}", name=table, json=entries)

    # Runtime: servers

    async def servers(self, slot: str) -> list[dict[str, Json]]:
        """Give the servers of a backend as HAProxy has them, each with its name, address and port."""
        return await self._get("/services/haproxy/runtime/backends/{name}/servers", _read_servers, name=slot)

    async def add_server(self, slot: str, server: Mapping[str, Json]) -> None:
        """Add a server, which is in maintenance first."""
        await self._send("POST", "/services/haproxy/runtime/backends/{name}/servers", name=slot, json=server)

    async def change_server(self, slot: str, server: str, change: Mapping[str, Json]) -> None:
        """Change a server's ``admin_state``, ``address`` and ``port``, or ``weight``."""
        path = "/services/haproxy/runtime/backends/{name}/servers/{key}"
        await self._send("PUT", path, name=slot, key=server, json=change)

    async def delete_server(self, slot: str, server: str) -> None:
        """Delete a server, which HAProxy refuses while it has connections; one that is gone is no error."""
        path = "/services/haproxy/runtime/backends/{name}/servers/{key}"
        try:
            await self._send("DELETE", path, name=slot, key=server)
        except NotFound:
            return

    # Runtime: certificates

    async def certificates(self) -> list[str]:
        """Give the names of all certificates that HAProxy holds, those without content included."""
        return await self._get(
            "/services/haproxy/runtime/ssl_certs", lambda body: [str(item["storage_name"]) for item in body or ()]
        )

    async def certificate(self, name: str) -> dict[str, Json] | None:
        """Describe a certificate that HAProxy holds, None where it holds none of that name."""
        try:
            return await self._get("/services/haproxy/runtime/ssl_certs/{name}", _read_object, name=name)
        except NotFound:
            return None

    async def add_certificate(self, name: str, pem: Sensitive) -> None:
        """Give HAProxy a certificate. One that is there already is refused, as is content that it does not take."""
        await self._send_certificate("POST", "/services/haproxy/runtime/ssl_certs", name, pem)

    async def replace_certificate(self, name: str, pem: Sensitive) -> None:
        """Replace what a certificate of HAProxy holds."""
        await self._send_certificate("PUT", "/services/haproxy/runtime/ssl_certs/{name}", name, pem)

    async def delete_certificate(self, name: str) -> None:
        """Take a certificate from HAProxy's memory, which it refuses while an entry names it."""
        await self._send("DELETE", "/services/haproxy/runtime/ssl_certs/{name}", name=name)

    async def authorities(self) -> dict[str, int]:
        """Give all sets of authorities that HAProxy holds, and of how many certificates each is."""
        return await self._get(
            "/services/haproxy/runtime/ssl_ca_files",
            lambda body: {str(item["storage_name"]): int(str(item["count"]).split()[0]) for item in body or ()},
        )

    async def add_authorities(self, name: str, pem: Sensitive) -> None:
        """Give HAProxy a set of authorities. One that is there is refused, as is content that it does not take."""
        await self._send_certificate("POST", "/services/haproxy/runtime/ssl_ca_files", name, pem)

    async def replace_authorities(self, name: str, pem: Sensitive) -> None:
        """Replace what is in a set of authorities of HAProxy."""
        await self._send_certificate("PUT", "/services/haproxy/runtime/ssl_ca_files/{name}", name, pem)

    async def delete_authorities(self, name: str) -> None:
        """Take a set of authorities from HAProxy's memory, which it refuses while something names it."""
        await self._send("DELETE", "/services/haproxy/runtime/ssl_ca_files/{name}", name=name)

    async def crt_list(self, path: str) -> list[tuple[int, CrtEntry]]:
        """Give the entries of a crt-list, each with the number of its line."""
        return await self._get(
            "/services/haproxy/runtime/ssl_crt_lists/entries",
            lambda body: [(int(item["line_number"]), _read_entry(item)) for item in body or ()],
            {"name": path},
        )

    async def add_entry(self, path: str, entry: CrtEntry) -> None:
        """Add an entry to a crt-list."""
        file = _file_of(path, entry.certificate)
        body: dict[str, Json] = {"file": file, "sni_filter": list(entry.filters)}
        if entry.options:
            body["ssl_bind_config"] = entry.options
        await self._send("POST", "/services/haproxy/runtime/ssl_crt_lists/entries", {"name": path}, json=body)

    async def delete_entry(self, path: str, certificate: str, line: int) -> None:
        """Delete an entry of a crt-list by its line."""
        parameters = {"name": path, "cert_file": _file_of(path, certificate), "line_number": str(line)}
        await self._send("DELETE", "/services/haproxy/runtime/ssl_crt_lists/entries", parameters)

    async def _send_certificate(
        self, method: str, path: str, name: str, pem: Sensitive, parameters: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Upload a certificate with its key. Of what the API says about it nothing is told that was sent."""
        files = {"file_upload": (name, pem.reveal().encode(), "text/plain")}
        return await self._send(method, path, parameters, name=name, sent=pem, files=files)

    # Transport

    async def _get(
        self,
        path: str,
        take: Callable[[Json], T],
        parameters: Mapping[str, str] | None = None,
        *,
        name: str = "",
        key: str = "",
    ) -> T:
        return _understand(await self._send("GET", path, parameters, name=name, key=key), take, f"GET {path}")

    async def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        *,
        name: str = "",
        key: str = "",
        sent: Sensitive | None = None,
        **content: Any,
    ) -> httpx.Response:
        url = path.format(name=_escape(name), key=_escape(key))
        try:
            response = await self._request(method, url, params=parameters, **content)
        except httpx.HTTPError as error:
            self._observer(method, path, 0)
            raise Unavailable(f"{method} {path}: no answer from {self._url}: {type(error).__name__}") from error
        self._observer(method, path, response.status_code)
        if response.is_success:
            return response
        raise _error(method, path, response, sent, within="transaction_id" in (parameters or ()))

    @retry(
        retry=retry_if_exception_type(httpx.ConnectError),
        stop=stop_after_attempt(4),
        wait=wait_exponential_jitter(multiplier=0.05, max=1.0),
        reraise=True,
    )
    async def _request(self, method: str, url: str, **content: Any) -> httpx.Response:
        return await self._http.request(method, url, **content)


def _understand(response: httpx.Response, take: Callable[[Json], T], call: str) -> T:
    """Take what is wanted from a response's JSON; one that holds something else counts as no answer."""
    try:
        return take(response.json())
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise Unavailable(f"{call}: the Data Plane API's answer is not what was asked for: {kind}") from None


def _read_process(body: Json) -> Process | None:
    """Read the worker process, None where the API says nothing of it."""
    info = (body[0] if isinstance(body, list) else body).get("info") or {}
    return Process(int(info["pid"]), int(info.get("uptime", 0)), str(info["version"])) if "pid" in info else None


def _read_object(body: Json) -> dict[str, Json]:
    return {**body}


def _read_sections(body: Json) -> list[dict[str, Json]]:
    return [{**section, "name": str(section["name"])} for section in body or ()]


def _read_servers(body: Json) -> list[dict[str, Json]]:
    return [
        {**server, "name": str(server["name"]), "address": str(server["address"]), "port": int(server["port"])}
        for server in body or ()
    ]


def _error(method: str, path: str, response: httpx.Response, sent: Sensitive | None, *, within: bool) -> Exception:
    """Give the error that a response stands for; ``within``: of a call within a transaction."""
    try:
        message = str(response.json().get("message", ""))
    except (ValueError, AttributeError):
        message = response.reason_phrase
    if sent is not None:
        message = redact_parts(message, sent)
    if response.status_code == httpx.codes.NOT_FOUND:
        return NotFound(method, path, response.status_code, message)
    if within and (response.status_code == httpx.codes.NOT_ACCEPTABLE or _TRANSACTION_GONE in message):
        return _conflict(method, path)
    if response.status_code in (httpx.codes.NOT_ACCEPTABLE, httpx.codes.CONFLICT):
        if path.startswith(_TRANSACTIONS):
            return _conflict(method, path)
        return AlreadyExists(method, path, response.status_code, message)
    if response.status_code in (httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE):
        return Unavailable(f"{method} {path}: {response.status_code}")
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS and path == _TRANSACTIONS:
        return TooManyTransactions(method, path, response.status_code, message)
    if response.status_code in _NOT_TAKEN and path.startswith((_CONFIGURATION, _TRANSACTIONS)):
        return ConfigurationRefused(method, path, response.status_code, message)
    return Refused(method, path, response.status_code, message)


def _conflict(method: str, path: str) -> VersionConflict:
    return VersionConflict(f"{method} {path}: the configuration was changed meanwhile")


def _transaction(transaction: str | None) -> dict[str, str]:
    return {} if transaction is None else {"transaction_id": transaction}


def _escape(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _file_of(crt_list: str, certificate: str) -> str:
    """Give the name under which HAProxy knows a certificate: of the placeholder, which lies beside the list, a path."""
    return f"{crt_list.rpartition('/')[0]}/{PLACEHOLDER}" if certificate == PLACEHOLDER else certificate


def _read_entry(item: Mapping[str, Json]) -> CrtEntry:
    """Read an entry of a crt-list; of its settings only how clients are verified is ours."""
    words = str(item.get("ssl_bind_config") or "").strip("[] ").split()
    authorities = words[words.index("ca-file") + 1] if "ca-file" in words[:-1] else ""
    file = str(item["file"])
    certificate = PLACEHOLDER if file.endswith(f"/{PLACEHOLDER}") else file
    return CrtEntry(certificate, tuple(sorted(item.get("sni_filter") or ())), authorities, "optional" in words)
