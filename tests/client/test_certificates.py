"""Certificates through the API: what is done when HAProxy does not take one, and what must never be told."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import httpx
import pytest

from gwctl.api.sensitive import Sensitive
from gwctl.dataplane import CertificateRefused, ForeignPath, Refused, Unavailable
from gwctl.dataplane.certificates import Certificates
from gwctl.dataplane.client import Client
from gwctl.dataplane.placeholder import make_marker, make_placeholder
from gwctl.haproxy.plan import (
    AddAuthorities,
    AddCertificate,
    AddEntry,
    RemoveAuthorities,
    RemoveCertificate,
    RemoveEntry,
)
from gwctl.haproxy.program import Layout
from gwctl.haproxy.state import CrtEntry, State
from tests.certificates import Pair, make_authority, make_pair

PAIR = make_pair("a.test")
PEM = Sensitive(PAIR.certificate + PAIR.key)
LAYOUT = Layout("/maps", "/general")
ENTRY = CrtEntry("gwctl-1.pem", ("a.test",))
RUNTIME = "/v3/services/haproxy/runtime"
STORAGE = "/v3/services/haproxy/storage"


class Api:
    """An API that answers as HAProxy would: certificates with their content, lists of entries, files."""

    def __init__(self) -> None:
        self.certificates: dict[str, str] = {}
        self.authorities: dict[str, str] = {}
        self.entries: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, str]] = {"general": {}, "ssl_certificates": {}}
        self.refused: set[str] = set()
        self.unstorable: set[str] = set()
        self.calls: list[str] = []
        self.is_gone = False

    def client(self) -> Client:
        return Client("http://dataplane", "a", "b", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls.append(f"{request.method} {path.removeprefix('/v3/services/haproxy')}")
        if path == f"{RUNTIME}/info":
            return httpx.Response(200, json={"info": {} if self.is_gone else {"pid": 1, "version": "3.4.7"}})
        if path.startswith(f"{RUNTIME}/ssl_certs"):
            return self.answer_certificate(request, path.removeprefix(f"{RUNTIME}/ssl_certs").removeprefix("/"))
        if path.startswith(f"{RUNTIME}/ssl_ca_files"):
            return self.answer_authorities(request, path.removeprefix(f"{RUNTIME}/ssl_ca_files").removeprefix("/"))
        if path == f"{RUNTIME}/ssl_crt_lists/entries":
            return self.answer_entries(request)
        kind, _, name = path.removeprefix(f"{STORAGE}/").partition("/")
        return self.answer_file(request, self.files[kind], kind, name)

    def answer_certificate(self, request: httpx.Request, name: str) -> httpx.Response:
        if request.method == "GET":
            if name not in self.certificates:
                return httpx.Response(404, json={"message": "none"})
            content = self.certificates[name]
            described = {"storage_name": name, "status": "Unused" if content else "Empty"}
            return httpx.Response(200, json={**described, "sha1_finger_print": fingerprint(content)})
        if request.method == "DELETE":
            return httpx.Response(204 if self.certificates.pop(name, None) is not None else 500, json={"message": "no"})
        uploaded, content = read_upload(request)
        name = name or uploaded
        if request.method == "POST" and name in self.certificates:
            return httpx.Response(500, json={"message": f"{name} exists already"})
        self.certificates.setdefault(name, "")
        if name in self.refused:
            return httpx.Response(500, json={"message": f"unable to load: set ssl cert {name} <<\n{content}"})
        self.certificates[name] = content
        return httpx.Response(201)

    def answer_authorities(self, request: httpx.Request, name: str) -> httpx.Response:
        if request.method == "GET":
            counts = {key: content.count("BEGIN CERT") for key, content in self.authorities.items()}
            items = [{"storage_name": key, "count": f"{number} certificate(s)"} for key, number in counts.items()]
            return httpx.Response(200, json=items or None)
        if request.method == "DELETE":
            return httpx.Response(204 if self.authorities.pop(name, None) is not None else 500, json={"message": "no"})
        uploaded, content = read_upload(request)
        if request.method == "POST" and uploaded in self.authorities:
            return httpx.Response(500, json={"message": f"{uploaded} exists already"})
        self.authorities[name or uploaded] = "" if uploaded in self.refused else content
        return httpx.Response(500 if uploaded in self.refused else 201, json={"message": "Invalid payload"})

    def answer_entries(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=self.entries)
        if request.method == "DELETE":
            line = int(request.url.params["line_number"])
            self.entries = [entry for entry in self.entries if entry["line_number"] != line]
            return httpx.Response(204)
        entry = json.loads(request.content)
        if entry["file"] in self.refused:
            return httpx.Response(500, json={"message": "unable to load chain certificate: ca key too small"})
        self.entries.append({**entry, "line_number": len(self.entries) + 2})
        return httpx.Response(201)

    def answer_file(self, request: httpx.Request, files: dict[str, str], kind: str, name: str) -> httpx.Response:
        match request.method:
            case "GET" if not name:
                return httpx.Response(200, json=[{"storage_name": key, "file": f"/{kind}/{key}"} for key in files])
            case "GET":
                return httpx.Response(200, text=files[name])
            case "DELETE":
                del files[name]
                return httpx.Response(204)
        uploaded, content = read_upload(request)
        if uploaded in self.unstorable:
            return httpx.Response(500, json={"message": "x509: negative serial number"})
        files[name or uploaded] = content
        return httpx.Response(201, json={"file": f"/{kind}/{name or uploaded}"})


def read_upload(request: httpx.Request) -> tuple[str, str]:
    head, _, content = request.content.decode().partition("\r\n\r\n")
    found = re.search('filename="([^"]*)"', head)
    assert found is not None
    return found[1], content.rpartition("\r\n--")[0]


def fingerprint(pem: str) -> str:
    return hashlib.sha1(Pair(pem, "").der, usedforsecurity=False).hexdigest().upper() if pem else ""


async def test_a_certificate_is_added_and_read_back() -> None:
    api = Api()
    add = AddCertificate("gwctl-1.pem", PEM)
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        await certificates.apply(add)
        assert await certificates.find_mismatches([add]) == []
        api.certificates["gwctl-1.pem"] = make_pair("b.test").certificate
        assert await certificates.find_mismatches([add]) == ["certificate gwctl-1.pem"]
        api.certificates["gwctl-1.pem"] = ""
        assert await certificates.find_mismatches([add]) == ["certificate gwctl-1.pem"]
        api.certificates.clear()
        assert await certificates.find_mismatches([add]) == ["certificate gwctl-1.pem"]


async def test_one_that_a_call_which_broke_off_has_left_empty_is_filled() -> None:
    api = Api()
    api.certificates["gwctl-1.pem"] = ""
    async with api.client() as client:
        await Certificates(client, LAYOUT).apply(AddCertificate("gwctl-1.pem", PEM))
    assert api.certificates["gwctl-1.pem"] == PEM.reveal()


async def test_one_that_haproxy_does_not_take_is_refused_by_name_and_leaves_nothing_behind() -> None:
    api = Api()
    api.refused.add("gwctl-1.pem")
    async with api.client() as client:
        with pytest.raises(CertificateRefused) as error:
            await Certificates(client, LAYOUT).apply(AddCertificate("gwctl-1.pem", PEM))
    assert error.value.certificate == "gwctl-1.pem"
    assert error.value.reason.startswith("unable to load")
    assert not [line for line in PAIR.key.splitlines() if line in f"{error.value} {error.value!r} {error.value.args}"]
    assert api.certificates == {}


@pytest.mark.parametrize("start", [0, 1, 30, 100])
async def test_a_part_of_a_key_is_not_repeated_even_without_its_frame(start: int) -> None:
    content = "\n".join(PAIR.key.splitlines()[1:-1])[start:]
    transport = httpx.MockTransport(lambda _: httpx.Response(500, json={"message": f"Unknown command: {content}\nx"}))
    async with Client("http://dataplane", "a", "b", transport=transport) as client:
        with pytest.raises(Refused) as error:
            await client.replace_certificate("gwctl-1.pem", PEM)
    assert not [line for line in content.splitlines() if line in str(error.value)]
    assert "Unknown command" in str(error.value)


async def test_an_entry_that_haproxy_does_not_take_is_the_certificates_fault() -> None:
    api = Api()
    api.certificates["gwctl-1.pem"] = PEM.reveal()
    api.refused.add("gwctl-1.pem")
    async with api.client() as client:
        with pytest.raises(CertificateRefused, match="ca key too small"):
            await Certificates(client, LAYOUT).apply(AddEntry("l.crt-list", ENTRY))


async def test_an_entry_of_a_certificate_that_has_vanished_is_tried_again() -> None:
    api = Api()
    api.refused.add("gwctl-1.pem")
    async with api.client() as client:
        with pytest.raises(Unavailable):
            await Certificates(client, LAYOUT).apply(AddEntry("l.crt-list", ENTRY))


async def test_no_certificate_is_blamed_when_haproxy_is_gone() -> None:
    api = Api()
    api.refused.add("gwctl-1.pem")
    api.is_gone = True
    async with api.client() as client:
        with pytest.raises(Unavailable):
            await Certificates(client, LAYOUT).apply(AddCertificate("gwctl-1.pem", PEM))


async def test_an_entry_is_removed_by_its_line_and_no_other() -> None:
    api = Api()
    other = CrtEntry("gwctl-1.pem", ("b.test",))
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        for entry in (ENTRY, other, ENTRY):
            await certificates.apply(AddEntry("l.crt-list", entry))
        await certificates.apply(RemoveEntry("l.crt-list", ENTRY))
        assert [entry["sni_filter"] for entry in api.entries] == [["b.test"]]
        right = (AddEntry("l.crt-list", other), RemoveEntry("l.crt-list", ENTRY))
        assert await certificates.find_mismatches(right) == []
        wrong = (AddEntry("l.crt-list", ENTRY), RemoveEntry("l.crt-list", other))
        assert await certificates.find_mismatches(wrong) == ["l.crt-list gwctl-1.pem"] * 2


async def test_a_certificate_that_is_still_in_use_is_left_for_later() -> None:
    api = Api()
    async with api.client() as client:
        await Certificates(client, LAYOUT).apply(RemoveCertificate("gwctl-1.pem"))
    assert api.calls == ["DELETE /runtime/ssl_certs/gwctl-1.pem"]


CA = f"gwctl-ca-{'1' * 32}.pem"
AUTHORITIES = Sensitive(make_authority("one") + make_authority("two"))


async def test_authorities_are_stored_with_a_key_of_nobody_then_added_and_read_back() -> None:
    api = Api()
    add = AddAuthorities(CA, AUTHORITIES)
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        await certificates.apply(add)
        assert await certificates.find_mismatches([add]) == []
        api.authorities[CA] = make_authority("one")
        assert await certificates.find_mismatches([add]) == [f"authorities {CA}"]
        await certificates.apply(add)
        assert api.authorities == {CA: AUTHORITIES.reveal()}
        stored = api.files["ssl_certificates"][CA]
        assert stored.startswith(AUTHORITIES.reveal())
        assert "PRIVATE KEY" in stored
        await certificates.apply(RemoveAuthorities(CA))
        await certificates.apply(RemoveAuthorities(CA))
        await certificates.store(State({}, {}, {}, ""))
        await certificates.delete_stale(State({}, {}, {}, ""))
    assert (api.authorities, api.files["ssl_certificates"]) == ({}, {})


@pytest.mark.parametrize("where", ["refused", "unstorable"])
async def test_authorities_that_are_not_taken_are_refused_by_name_and_leave_nothing_at_runtime(where: str) -> None:
    api = Api()
    getattr(api, where).add(CA)
    async with api.client() as client:
        with pytest.raises(CertificateRefused) as error:
            await Certificates(client, LAYOUT).apply(AddAuthorities(CA, AUTHORITIES))
    assert error.value.certificate == CA
    assert api.authorities == {}


async def test_files_of_authorities_are_written_once_and_kept_while_they_are_needed() -> None:
    api = Api()
    wanted = State({}, {}, {}, "", authorities=frozenset({CA}), pems={CA: AUTHORITIES})
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        for _ in range(2):
            await certificates.store(wanted)
            await certificates.delete_stale(wanted)
    assert list(api.files["ssl_certificates"]) == [CA]
    assert [call for call in api.calls if not call.startswith("GET")] == ["POST /storage/ssl_certificates"]


def state(**pairs: str) -> State:
    """A state with certificates by name, each the only entry of a list of the same name."""
    names = {f"gwctl-{key * 32}.pem": text for key, text in pairs.items()}
    lists = {f"gwctl-{name}.crt-list": frozenset({CrtEntry(name, ("a.test",))}) for name in names}
    pems = {name: Sensitive(text) for name, text in names.items()}
    return State({}, {}, {}, "", certificates=frozenset(names), crt_lists=lists, pems=pems)


async def test_files_are_written_before_what_names_them_and_deleted_after() -> None:
    api = Api()
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        await certificates.store(state(a="one"))
        writes = [call for call in api.calls if not call.startswith("GET")]
        assert writes == ["POST /storage/general", "POST /storage/ssl_certificates", "POST /storage/general"]
        api.calls.clear()
        await certificates.store(state(a="one"))
        assert [call for call in api.calls if not call.startswith("GET")] == []
        await certificates.store(state(b="two"))
        assert len(api.files["ssl_certificates"]) == 2
        await certificates.delete_stale(state(b="two"))
    assert list(api.files["ssl_certificates"]) == [f"gwctl-{'b' * 32}.pem"]
    assert sorted(api.files["general"]) == [f"gwctl-gwctl-{'b' * 32}.pem.crt-list", "gwctl-placeholder.pem"]


async def test_a_state_without_lists_writes_nothing() -> None:
    api = Api()
    async with api.client() as client:
        await Certificates(client, LAYOUT).store(State({}, {}, {}, ""))
    assert not [call for call in api.calls if not call.startswith("GET")]


async def test_global_says_where_certificates_are() -> None:
    api = Api()
    async with api.client() as client:
        certificates = Certificates(client, LAYOUT)
        changed = await certificates.prepare_global({"daemon": True})
        assert changed == {"daemon": True, "default_path": {"type": "origin", "path": "/ssl_certificates"}}
        assert await certificates.prepare_global(changed) is changed
        for theirs, named in (
            ({"default_path": {"type": "config"}}, "default-path config"),
            ({"default_path": {"type": "origin", "path": "/etc"}}, "default-path origin /etc"),
            ({"ssl_options": {"crt_base": "/etc"}}, "crt-base /etc"),
        ):
            with pytest.raises(ForeignPath, match=f"'{named}'"):
                await certificates.prepare_global(theirs)
    assert list(api.files["ssl_certificates"]) == ["gwctl.pem"]


def test_placeholders_are_pairs_of_their_own_each_time() -> None:
    made = [make_placeholder(), make_placeholder(), make_marker()]
    assert len({item.reveal() for item in made}) == 3
    assert all(item.reveal().count("-----BEGIN") == 2 for item in made)
