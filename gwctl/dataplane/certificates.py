"""Certificates, authorities and crt-lists: given to HAProxy at runtime, read back, kept in files for its next start.

A certificate's name says what is in it, so nothing is ever replaced, only added and removed. The surprising facts:
HAProxy finds what it has at runtime and what it loads from files under one name only if ``default-path`` points at the
files, and the Data Plane API gives all files the mode 0644, so their directory is what keeps others out.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from gwctl.api.sensitive import Sensitive
from gwctl.dataplane.client import Client
from gwctl.dataplane.error import CertificateRefused, DataPlaneError, ForeignPath, NotFound, Refused, Unavailable
from gwctl.dataplane.placeholder import make_key, make_marker, make_placeholder
from gwctl.haproxy.names import PLACEHOLDER, PREFIX, is_authorities, is_certificate, is_crt_list
from gwctl.haproxy.plan import (
    AddAuthorities,
    AddCertificate,
    AddEntry,
    RemoveAuthorities,
    RemoveCertificate,
    RemoveEntry,
)
from gwctl.haproxy.program import Layout, crt_list_text
from gwctl.haproxy.state import CrtEntry, State

CertificateOperation = AddCertificate | RemoveCertificate | AddAuthorities | RemoveAuthorities | AddEntry | RemoveEntry

_MARKER = f"{PREFIX}.pem"
_EMPTY = "Empty"


class Certificates:
    """Applies what plans say of certificates through one client."""

    def __init__(self, client: Client, layout: Layout) -> None:
        self._client = client
        self._layout = layout

    async def apply(self, operation: CertificateOperation) -> None:
        """Apply an operation. Raises `CertificateRefused` when HAProxy does not take the certificate."""
        match operation:
            case AddCertificate(name, pem):
                await self._add(name, pem)
            case AddAuthorities(name, pem):
                await self._add_authorities(name, pem)
            case AddEntry(crt_list, entry):
                await self._add_entry(self._layout.crt_list(crt_list), entry)
            case RemoveEntry(crt_list, entry):
                await self._remove_entry(self._layout.crt_list(crt_list), entry)
            case RemoveCertificate(name):
                # One that is still in use goes when the next observation finds it.
                with contextlib.suppress(Refused):
                    await self._client.delete_certificate(name)
            case RemoveAuthorities(name):
                with contextlib.suppress(Refused):
                    await self._client.delete_authorities(name)

    async def find_mismatches(self, operations: Iterable[CertificateOperation]) -> list[str]:
        """Read back what operations wrote; give what is otherwise."""
        found: list[str] = []
        lists: dict[str, set[CrtEntry]] = {}
        authorities: dict[str, int] | None = None
        for operation in operations:
            match operation:
                case AddAuthorities(name, pem):
                    authorities = await self._client.authorities() if authorities is None else authorities
                    if authorities.get(name) != pem.reveal().count(ssl.PEM_HEADER):
                        found.append(f"authorities {name}")
                case AddCertificate(name, pem):
                    if not _is_there(await self._client.certificate(name), pem):
                        found.append(f"certificate {name}")
                case AddEntry(crt_list, entry) | RemoveEntry(crt_list, entry):
                    if crt_list not in lists:
                        lists[crt_list] = await self._entries(self._layout.crt_list(crt_list))
                    if (entry in lists[crt_list]) is not isinstance(operation, AddEntry):
                        found.append(f"{crt_list} {entry.certificate}")
        return found

    async def store(self, state: State) -> None:
        """Bring the files of certificates and crt-lists up to a state; what it no longer needs stays.

        A file that is named has been written before what names it, so a HAProxy that starts meanwhile finds all.
        """
        general = await self._client.stored("general")
        if state.crt_lists and PLACEHOLDER not in general:
            await self._client.store_general(PLACEHOLDER, make_placeholder().reveal())
        stored = await self._client.stored("ssl_certificates")
        for name in sorted(state.authorities - stored.keys()):
            await self._store_authorities(name, state.pems[name])
        for name in sorted(state.certificates - stored.keys()):
            await self._client.store_certificate(name, state.pems[name])
        for name, entries in sorted(state.crt_lists.items()):
            text = crt_list_text(entries, self._layout)
            if name not in general:
                await self._client.store_general(name, text)
            elif await self._client.stored_general(name) != text:
                await self._client.replace_general(name, text)

    async def delete_stale(self, state: State) -> None:
        """Delete the files of certificates and crt-lists that a state no longer has, once `store` has been called."""
        for name in await self._client.stored("ssl_certificates"):
            if (is_certificate(name) or is_authorities(name)) and name not in state.certificates | state.authorities:
                await self._client.delete_stored_certificate(name)
        for name in await self._client.stored("general"):
            if is_crt_list(name) and name not in state.crt_lists:
                # One that the configuration still names is kept by the API.
                with contextlib.suppress(Refused):
                    await self._client.delete_general(name)

    async def prepare_global(self, section: dict[str, Any]) -> dict[str, Any]:
        """Give HAProxy's ``global`` section with what certificates need: the same object where it has that.

        Raises `ForeignPath` when somebody else's setting is in the way.
        """
        directory = await self._find_directory()
        wanted = {"type": "origin", "path": directory}
        there: dict[str, Any] = section.get("default_path") or {}
        base = (section.get("ssl_options") or {}).get("crt_base")
        if base or (there and there != wanted):
            name = f"crt-base {base}" if base else f"default-path {there['type']} {there.get('path', '')}".strip()
            raise ForeignPath(
                f"HAProxy's global section has '{name}': certificates need 'default-path origin {directory}' "
                "and no crt-base"
            )
        return section if there else {**section, "default_path": wanted}

    async def _find_directory(self) -> str:
        for path in (await self._client.stored("ssl_certificates")).values():
            return path.rpartition("/")[0]
        path = await self._client.store_certificate(_MARKER, make_marker())
        return path.rpartition("/")[0]

    async def _entries(self, path: str) -> set[CrtEntry]:
        try:
            return {entry for _, entry in await self._client.crt_list(path)}
        except NotFound:
            return set()

    async def _add(self, name: str, pem: Sensitive) -> None:
        try:
            await self._client.add_certificate(name, pem)
            return
        except Refused:
            # It may be there, as after a call that broke off; whether it is the content is told by replacing it.
            pass
        try:
            await self._client.replace_certificate(name, pem)
        except Refused as error:
            await self._blame(name, error)

    async def blame_for_server(self, options: Mapping[str, str], error: Refused) -> None:
        """Say what is at fault for a server with TLS that HAProxy does not take: its certificate, else authorities.

        Raises `Unavailable` where one of them has vanished, `CertificateRefused` otherwise.
        """
        await self._client.process()
        authorities, certificate = options["ssl_cafile"], options.get("ssl_certificate", "")
        if is_authorities(authorities) and authorities not in await self._client.authorities():
            raise Unavailable(f"{authorities} is no longer there") from None
        if certificate and (await self._client.certificate(certificate) or {}).get("status", _EMPTY) == _EMPTY:
            raise Unavailable(f"{certificate} is no longer there") from None
        raise CertificateRefused(certificate or authorities, error.reason) from None

    async def _add_authorities(self, name: str, pem: Sensitive) -> None:
        """Add a set whose file has been written first, since the API may refuse to store what HAProxy takes."""
        try:
            if name not in await self._client.stored("ssl_certificates"):
                await self._store_authorities(name, pem)
            try:
                await self._client.add_authorities(name, pem)
            except Refused:
                await self._client.replace_authorities(name, pem)
        except Refused as error:
            await self._blame(name, error)

    async def _store_authorities(self, name: str, pem: Sensitive) -> None:
        """Store a set of authorities where certificates are: the API wants a key there, so it gets one of nobody."""
        await self._client.store_certificate(name, Sensitive(pem.reveal() + make_key().reveal()))

    async def _blame(self, name: str, error: Refused) -> NoReturn:
        """Say that a certificate is at fault, where HAProxy answers to everything else."""
        await self._client.process()
        delete = self._client.delete_authorities if is_authorities(name) else self._client.delete_certificate
        with contextlib.suppress(DataPlaneError):
            await delete(name)
        raise CertificateRefused(name, error.reason) from None

    async def _add_entry(self, path: str, entry: CrtEntry) -> None:
        try:
            await self._client.add_entry(path, entry)
        except Refused as error:
            await self._client.crt_list(path)
            if (await self._client.certificate(entry.certificate) or {}).get("status", _EMPTY) == _EMPTY:
                raise Unavailable(f"{entry.certificate} is no longer there") from None
            await self._blame(entry.certificate, error)

    async def _remove_entry(self, path: str, entry: CrtEntry) -> None:
        try:
            there = await self._client.crt_list(path)
        except NotFound:
            return
        for line, found in there:
            if found == entry:
                await self._client.delete_entry(path, entry.certificate, line)


def _is_there(described: Mapping[str, Any] | None, pem: Sensitive) -> bool:
    """Tell whether a certificate that HAProxy describes is the first one of ``pem``."""
    text = pem.reveal()
    first = text[: text.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
    digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(first), usedforsecurity=False).hexdigest()
    return described is not None and str(described.get("sha1_finger_print", "")).lower() == digest
