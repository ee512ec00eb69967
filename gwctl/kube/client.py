"""A client of the Kubernetes API that takes and gives JSON.

Paths and JSON values in, JSON values out; errors are those of `gwctl.kube.error`. The surprising facts: importing
kubernetes_asyncio takes a second and 40 MB, so only entering the client does it; and a dead connection is noticed by
TCP itself within half a minute, because a watch may rightly be silent for longer.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
from pydantic_core import from_json

from gwctl import __version__
from gwctl.kube.error import Malformed, NoConfiguration, Unauthorized, Unreachable, build_refused

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

log = logging.getLogger(__name__)

Json = Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_CONNECT_SECONDS = 10.0
_CREDENTIALS_SECONDS = 60.0
_GRACE_SECONDS = 15.0
_LONGEST_RETRY_AFTER = 120.0
_PROXY_STATUS = frozenset({502, 503, 504})
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class WatchEvent(NamedTuple):
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: dict[str, Json]


class KubeClient:
    """Talks to one API server. Use it as an asynchronous context manager; entering it raises `NoConfiguration`.

    ``kubeconfig`` goes before ``$KUBECONFIG``, before a service account, before ``~/.kube/config``.
    """

    def __init__(
        self,
        kubeconfig: str | os.PathLike[str] | None = None,
        *,
        timeout: float = 30.0,
        service_account: Path = SERVICE_ACCOUNT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kubeconfig = os.fspath(kubeconfig) if kubeconfig is not None else os.environ.get("KUBECONFIG", "")
        self._service_account = service_account
        self._timeout = timeout
        self._clock = clock
        self._renew_at = 0.0
        self._unreachable_since: float | None = None
        self._api: ApiClient

    async def __aenter__(self) -> Self:
        from kubernetes_asyncio.client import ApiClient, Configuration

        configuration = Configuration()
        await self._load(configuration)
        configuration.refresh_api_key_hook = self._renew
        configuration.connection_pool_maxsize = 0  # every watch keeps a connection: no limit
        try:
            self._api = ApiClient(configuration)
        except OSError as error:
            raise NoConfiguration(f"the cluster's or the user's certificate cannot be used: {error}") from None
        self._api.user_agent = f"gwctl/{__version__}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.close()

    @property
    def unreachable_seconds(self) -> float | None:
        """For how long no call has been answered; None while the API server answers."""
        return None if self._unreachable_since is None else self._clock() - self._unreachable_since

    # Reading

    async def get(self, path: str) -> Json:
        """Give an object."""
        return await self._call("GET", path)

    async def get_annotations(self, path: str) -> dict[str, str]:
        """Give the annotations of an object, without the object."""
        answer = await self._call("GET", path, accept=_METADATA)
        try:
            return answer["metadata"].get("annotations") or {}
        except (KeyError, TypeError, AttributeError):
            raise Malformed(f"GET {path}: the answer is no object's metadata") from None

    async def list_page(self, path: str, token: str = "", *, field_selector: str = "", limit: int = 500) -> Json:
        """Give one page of a list; ``token`` is ``metadata.continue`` of the page before."""
        query = {"limit": str(limit), "continue": token, "fieldSelector": field_selector}
        return await self._call("GET", path, {key: value for key, value in query.items() if value})

    async def watch(
        self,
        path: str,
        resource_version: str,
        *,
        field_selector: str = "",
        seconds: float = 300.0,
        silence: float = 150.0,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Give what happens after a resourceVersion, until the API server ends it after about ``seconds``.

        Raises `Gone` when the resourceVersion is too old, `Unreachable` when nothing was heard for ``silence``
        seconds (bookmarks come every minute).
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version}
        query |= {"timeoutSeconds": str(max(1, round(seconds)))}
        if field_selector:
            query["fieldSelector"] = field_selector
        limits = aiohttp.ClientTimeout(
            total=seconds + _GRACE_SECONDS,
            sock_connect=_CONNECT_SECONDS,
            sock_read=min(silence, seconds + _GRACE_SECONDS),
        )
        response = await self._send("GET", path, query, limits=limits)
        try:
            _keep_alive(response)
            async for line in _lines(response, path):
                yield _decode_event(line, path)
        finally:
            response.close()

    # Writing

    async def create(self, path: str, body: Json) -> Json:
        """Create an object in the collection at ``path``; give it as the API server has it."""
        return await self._call("POST", path, body=body)

    async def patch(self, path: str, body: Json) -> Json:
        """Merge into an object (RFC 7396); with ``metadata.resourceVersion`` only while it still is that one."""
        return await self._call("PATCH", path, body=body, content_type="application/merge-patch+json")

    async def patch_status(self, path: str, status: Json, resource_version: str) -> Json:
        """Merge into the status of the object at ``path``. Raises `Conflict` when it has another version."""
        body = {"metadata": {"resourceVersion": resource_version}, "status": status}
        return await self.patch(f"{path}/status", body)

    async def apply(self, path: str, body: Json, *, manager: str = "gwctl", force: bool = True) -> Json:
        """Apply an object on the server's side: create it, or bring the fields that ``manager`` owns to ``body``."""
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query, body=body, content_type="application/apply-patch+yaml")

    async def delete(self, path: str, uid: str = "") -> None:
        """Delete an object; with a ``uid`` only the one that has it (else `Conflict`)."""
        await self._call("DELETE", path, body={"preconditions": {"uid": uid}} if uid else None)

    # Transport

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Json = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Json:
        limits = aiohttp.ClientTimeout(total=self._timeout, sock_connect=min(_CONNECT_SECONDS, self._timeout))
        response = await self._send(
            method, path, query, body=body, content_type=content_type, accept=accept, limits=limits
        )
        with _translated(method, path):
            data = await response.read()
        try:
            return from_json(data)
        except ValueError:
            raise Malformed(f"{method} {path}: the answer is no JSON") from None

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        *,
        limits: aiohttp.ClientTimeout,
        body: Json = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> aiohttp.ClientResponse:
        try:
            with _translated(method, path):
                response: aiohttp.ClientResponse = await self._api.call_api(
                    path,
                    method,
                    query_params=list((query or {}).items()),
                    header_params={"Accept": accept, "Content-Type": content_type},
                    body=body,
                    auth_settings=["BearerToken"],
                    _preload_content=False,
                    _request_timeout=limits,
                )
                self._api.last_response = None  # type: ignore[attr-defined]
                if response.ok:
                    self._note_reachable()
                    return response
                data = await response.read()
            status = _decode_status(data)
            if status is None and response.status in _PROXY_STATUS:
                raise Unreachable(f"{method} {path}: {response.status} from a proxy")
        except Unreachable as error:
            self._note_unreachable(error)
            raise
        self._note_reachable()
        refused = build_refused(method, path, response.status, status, _retry_after(response))
        if isinstance(refused, Unauthorized):
            self._renew_at = 0.0
        raise refused

    def _note_unreachable(self, error: Unreachable) -> None:
        if self._unreachable_since is None:
            self._unreachable_since = self._clock()
            log.warning("the Kubernetes API server does not answer", extra={"error": str(error)})

    def _note_reachable(self) -> None:
        seconds, self._unreachable_since = self.unreachable_seconds, None
        if seconds is not None:
            log.info("the Kubernetes API server answers again", extra={"seconds": round(seconds, 1)})

    # Credentials

    async def _renew(self, configuration: Configuration) -> None:
        """Read the credentials again, every minute and after a 401: tokens of service accounts rotate."""
        if self._clock() < self._renew_at:
            return
        try:
            await self._load(configuration)
        except NoConfiguration as error:
            log.warning("cannot read the credentials again, using the last ones", extra={"error": str(error)})

    async def _load(self, configuration: Configuration) -> None:
        from kubernetes_asyncio.config import load_incluster_config, load_kube_config

        self._renew_at = self._clock() + _CREDENTIALS_SECONDS
        kubeconfig = self._locate()
        try:
            if kubeconfig:
                await load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
            else:
                load_incluster_config(  # type: ignore[no-untyped-call]
                    configuration,
                    try_refresh_token=False,
                    token_filename=str(self._service_account / "token"),
                    cert_filename=str(self._service_account / "ca.crt"),
                )
        except Exception as error:  # the loaders raise whatever an odd file leads them to
            where = f"kubeconfig {kubeconfig}" if kubeconfig else f"service account {self._service_account}"
            raise NoConfiguration(f"{where}: {_without_credentials(error)}") from None
        token = configuration.api_key.get("BearerToken")
        if token is not None:
            configuration.api_key["BearerToken"] = token.strip()  # a newline makes no header

    def _locate(self) -> str:
        """Give the paths of the kubeconfig, empty where the service account is to be used."""
        paths = self._kubeconfig
        if not paths:
            if "KUBERNETES_SERVICE_HOST" in os.environ:
                return ""
            paths = str(Path.home() / ".kube" / "config")
        if not any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path):
            raise NoConfiguration(f"kubeconfig {paths}: no such file, and this is no pod of a cluster")
        return paths


def _without_credentials(error: Exception) -> str:
    """Say what is wrong with a kubeconfig. The library's messages end in the part of it that is, tokens included."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    text = str(error).partition(" in ")[0]
    return text if type(error).__name__ == "ConfigException" else f"cannot be read: {type(error).__name__}"


@contextmanager
def _translated(method: str, path: str) -> Iterator[None]:
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise Unreachable(f"{method} {path}: {error}") from None
    except TimeoutError:
        raise Unreachable(f"{method} {path}: no answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unreachable(f"{method} {path}: {type(error).__name__}") from None


def _decode_status(data: bytes) -> dict[str, Json] | None:
    with suppress(ValueError):
        status = from_json(data)
        if isinstance(status, dict):
            return status
    return None


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER) if re.fullmatch(r"[0-9]{1,9}", text) else None


async def _lines(response: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
    """Give whole lines. What is left when the connection ends is half an event, and comes again."""
    rest = b""
    while True:
        with _translated("GET", path):
            chunk = await response.content.readany()
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line


def _decode_event(line: bytes, path: str) -> WatchEvent:
    try:
        event = from_json(line)
        kind, found = event["type"], event["object"]
    except (ValueError, KeyError, TypeError):
        raise Malformed(f"GET {path}: an event of the watch is no event") from None
    if not isinstance(kind, str) or not isinstance(found, dict):
        raise Malformed(f"GET {path}: an event of the watch is no event")
    if kind == "ERROR":
        code = found.get("code")
        raise build_refused("GET", path, code if isinstance(code, int) else 500, found)
    return WatchEvent(kind, found)


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    connection = response.connection
    if connection is None or connection.transport is None:
        return
    peer = connection.transport.get_extra_info("socket")
    for name, value in _KEEPALIVE:
        if peer is not None and hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
