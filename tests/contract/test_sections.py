"""Sections with all their children in one call (`full_section`)."""

from typing import Any

import httpx
import pytest

from tests.contract.wire import Json, begin, expect, pid, raw, refused, version
from tests.harness import free_port

FULL = {"full_section": "true"}

# What a defaults section of gwctl's program is made of; the API returns every one of these as it was given.
PROGRAM: Json = {
    "name": "program",
    "mode": "http",
    "client_timeout": 30000,
    "connect_timeout": 5000,
    "server_timeout": 1500,
    "tunnel_timeout": 3600000,
    "log_format": r"%ci:%cp\ %b/%s",
    "redispatch": {"enabled": "enabled", "interval": -1},
    "retries": 2,
    "log_target_list": [{"global": True}],
    "http_request_rule_list": [
        {
            "type": "set-var",
            "var_scope": "txn",
            "var_name": "host",
            "var_expr": "req.hdr(host),host_only,lower",
        },
        {
            "type": "set-var-fmt",
            "var_scope": "txn",
            "var_name": "key",
            "var_format": "%[var(txn.host)]/%[path]",
        },
        {
            "type": "set-var",
            "var_scope": "txn",
            "var_name": "entry",
            "var_expr": "str(*),concat(/,txn.host)",
            "cond": "unless",
            "cond_test": "{ var(txn.entry) -m found } or { path -m beg /x }",
        },
        {
            "type": "set-headers-bin",
            "hdr_expr": "var(txn.set),b64dec",
            "cond": "if",
            "cond_test": "{ method GET }",
        },
        {"type": "add-headers-bin", "hdr_expr": "var(txn.add),b64dec"},
        {"type": "del-headers-bin", "hdr_expr": "var(txn.del),b64dec"},
        {"type": "set-header", "hdr_name": "x-host", "hdr_format": "%[var(txn.host)]"},
        {"type": "set-path", "path_fmt": "%[var(txn.path)]"},
        {"type": "set-query", "hdr_format": "%[var(txn.query)]"},  # its own query-fmt is not heeded
        {"type": "replace-path", "path_match": "(.*)", "path_fmt": r"/x\1"},
        {"type": "set-timeout", "timeout_type": "server", "timeout": "var(txn.timeout)"},
        {"type": "wait-for-body", "wait_time": 60000, "cond": "if", "cond_test": "{ req.hdr_val(length) le 9 }"},
        {"type": "pause", "expr": "var(txn.pause)"},
        {"type": "redirect", "redir_type": "location", "redir_value": "%[var(txn.to)]", "redir_code": 302},
        {
            "type": "return",
            "return_status_code": 404,
            "cond": "if",
            "cond_test": "!{ var(txn.entry) -m found }",
        },
        {"type": "deny", "deny_status": 500, "cond": "if", "cond_test": "{ var(txn.bad) -m bool }"},
    ],
    "http_response_rule_list": [
        {"type": "set-headers-bin", "hdr_expr": "var(txn.set),b64dec"},
        {"type": "return", "return_status_code": 204, "return_content_type": "", "cond": "if", "cond_test": "FALSE"},
        {"type": "del-header", "hdr_name": "x"},
    ],
    "http_after_response_rule_list": [
        {"type": "allow", "cond": "if", "cond_test": "!{ var(txn.entry) -m found }"},
        {"type": "set-header", "hdr_name": "x", "hdr_format": "y"},
        {"type": "add-header", "hdr_name": "vary", "hdr_format": "Origin"},
        {"type": "set-status", "status": 504, "cond": "if", "cond_test": "{ txn.sess_term_state sC }"},
        {"type": "del-headers-bin", "hdr_expr": "var(txn.del),ub64dec"},
        {"type": "set-headers-bin", "hdr_expr": "var(txn.set),ub64dec"},
        {"type": "add-headers-bin", "hdr_expr": "var(txn.add),ub64dec"},
    ],
    "tcp_request_rule_list": [
        {"type": "inspect-delay", "timeout": 5000},
        {"type": "content", "action": "accept", "cond": "if", "cond_test": "{ req.ssl_hello_type 1 }"},
    ],
}

SLOT: Json = {
    "name": "slot",
    "mode": "http",
    "from": "program",
    "maxconn": 1000,
    "binds": {
        "v4": {"name": "v4", "address": "127.0.0.1", "port": 20001},
        "v6": {"name": "v6", "address": "::", "port": 20002, "v4v6": True},
    },
    "http_request_rule_list": [{"type": "set-var", "var_scope": "txn", "var_name": "slot", "var_expr": "str(slot)"}],
    "backend_switching_rule_list": [
        {"name": "%[var(txn.backend)]", "cond": "if", "cond_test": "{ var(txn.backend) -m found }"},
        {"name": "%[var(txn.other)]"},
    ],
    "default_backend": "blue",
}

POOL: Json = {
    "name": "pool",
    "mode": "http",
    "from": "unnamed_defaults_1",
    "balance": {"algorithm": "leastconn"},
    "server_timeout": 5000,
    "http_reuse": "always",
    "http_request_rule_list": [{"type": "set-retries", "expr": "var(txn.retries)"}],
    "server_switching_rule_list": [
        {"target_server": "%[var(txn.server)]", "cond": "if", "cond_test": "{ var(txn.server) -m found }"}
    ],
    "servers": {
        "a": {"name": "a", "address": "127.0.0.1", "port": 80, "weight": 3, "maintenance": "enabled"},
        "b": {"name": "b", "address": "127.0.0.1", "port": 81},
    },
}


COUNTERS: Json = {
    "name": "counters",
    "mode": "http",
    "stick_table": {"type": "string", "keylen": 36, "size": 100000, "expire": 120000, "store": "gpc0"},
}

# A way back into HAProxy. An abstract socket is given back only where a variable stands for it.
SOCKET = '"${LOOP-abns@gwctl-contract}"'
LOOP: Json = {
    "name": "loop",
    "mode": "http",
    "from": "unnamed_defaults_1",
    "binds": {"loop": {"name": "loop", "address": SOCKET}},
    "http_request_rule_list": [
        {"type": "track-sc", "track_sc_key": "str(all)", "track_sc_table": "counters", "track_sc_stick_counter": 1},
        {"type": "sc-inc-gpc0", "sc_id": 1},
        {"type": "return", "return_status_code": 204},
    ],
}
BACK: Json = {
    "name": "back",
    "mode": "http",
    "from": "unnamed_defaults_1",
    "http_reuse": "always",
    "retry_on": "conn-failure 425",
    "servers": {"loop": {"name": "loop", "address": SOCKET, "proto": "h2"}},
}


async def test_a_request_goes_back_into_haproxy_and_is_counted(api: httpx.AsyncClient) -> None:
    port = free_port()
    front: Json = {"name": "front", "mode": "http", "from": "unnamed_defaults_1", "default_backend": "back"}
    front |= {"binds": {"v4": {"name": "v4", "address": "127.0.0.1", "port": port}}}
    within = FULL | {"transaction_id": await begin(api)}
    for kind, body in (("backends", COUNTERS), ("frontends", LOOP), ("backends", BACK), ("frontends", front)):
        assert expect(await api.post(f"/configuration/{kind}", params=within, json=body), 202).json() == body
        assert expect(await api.get(f"/configuration/{kind}/{body['name']}", params=within), 200).json() == body
    expect(await api.put(f"/transactions/{within['transaction_id']}", params={"force_reload": "true"}), 200)
    async with httpx.AsyncClient(verify=False) as client:
        for _ in range(3):
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 204
    (counter,) = expect(await api.get("/runtime/stick_tables/counters/entries"), 200).json()
    assert (counter["key"], counter["gpc0"]) == ("all", 3)


async def test_counters_that_are_not_there(api: httpx.AsyncClient) -> None:
    assert "No such table" in refused(await api.get("/runtime/stick_tables/nothing/entries"), 500)


@pytest.mark.parametrize(("kind", "body"), [("defaults", PROGRAM), ("backends", POOL)])
async def test_a_full_section_is_returned_as_it_was_given(api: httpx.AsyncClient, kind: str, body: Json) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    assert expect(await api.post(f"/configuration/{kind}", params=within, json=body), 202).json() == body
    assert expect(await api.get(f"/configuration/{kind}/{body['name']}", params=within), 200).json() == body
    listed = expect(await api.get(f"/configuration/{kind}", params=within), 200).json()
    assert body in listed


async def test_a_full_frontend_is_returned_as_it_was_given(api: httpx.AsyncClient) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/defaults", params=within, json=PROGRAM), 202)
    expect(await api.post("/configuration/frontends", params=within, json=SLOT), 202)
    assert expect(await api.get("/configuration/frontends/slot", params=within), 200).json() == SLOT
    binds = expect(await api.get("/configuration/frontends/slot/binds", params=within), 200).json()
    # children that go by name are written in any order
    assert sorted(binds, key=lambda bind: str(bind["name"])) == list(SLOT["binds"].values())


async def test_haproxy_accepts_the_program_and_follows_it(api: httpx.AsyncClient) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/defaults", params=within, json=PROGRAM), 202)
    frontend = SLOT | {"binds": {}}
    expect(await api.post("/configuration/frontends", params=within, json=frontend), 202)
    expect(await api.post("/configuration/backends", params=within, json=POOL), 202)
    text = await raw(api, transaction_id=within["transaction_id"])
    for line in (
        "frontend slot from program",
        "http-request set-var(txn.host) req.hdr(host),host_only,lower",
        "http-request set-headers-bin var(txn.set),b64dec if { method GET }",
        "http-request set-query %[var(txn.query)]",
        "http-request set-timeout server var(txn.timeout)",
        "http-request set-retries var(txn.retries)",
        "use_backend %[var(txn.backend)] if { var(txn.backend) -m found }",
        "server a 127.0.0.1:80 disabled weight 3",
    ):
        assert f"{line}\n" in text
    expect(await api.put(f"/transactions/{within['transaction_id']}", params={"force_reload": "true"}), 200)
    servers = expect(await api.get("/runtime/backends/pool/servers"), 200).json()
    assert {(server["name"], server["admin_state"], server["weight"]) for server in servers} == {
        ("a", "maint", 3),
        ("b", "ready", 1),
    }


async def test_a_frontend_and_a_backend_cannot_share_defaults_that_have_rules(api: httpx.AsyncClient) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/defaults", params=within, json=PROGRAM), 202)
    for kind in ("frontends", "backends"):
        body = {"name": kind, "mode": "http", "from": "program"}
        expect(await api.post(f"/configuration/{kind}", params=within, json=body), 202)
    refused(await api.put(f"/transactions/{within['transaction_id']}"), 400)


async def test_put_replaces_a_section_with_its_children(api: httpx.AsyncClient) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/backends", params=within, json=POOL), 202)
    smaller = {
        "name": "pool",
        "mode": "http",
        "servers": {"c": {"name": "c", "address": "127.0.0.1", "port": 82}},
    }
    expect(await api.put("/configuration/backends/pool", params=within, json=smaller), 202)
    assert expect(await api.get("/configuration/backends/pool", params=within), 200).json() == smaller


async def test_without_full_section_children_stay_out_of_sight_and_untouched(api: httpx.AsyncClient) -> None:
    within = {"transaction_id": await begin(api)}
    expect(await api.post("/configuration/backends", params=FULL | within, json=POOL), 202)
    alone = expect(await api.get("/configuration/backends/pool", params=within), 200).json()
    children = {"servers", "http_request_rule_list", "server_switching_rule_list"}
    assert alone == {key: value for key, value in POOL.items() if key not in children}
    expect(await api.put("/configuration/backends/pool", params=within, json=alone | {"server_timeout": 7}), 202)
    whole = expect(await api.get("/configuration/backends/pool", params=FULL | within), 200).json()
    assert whole == POOL | {"server_timeout": 7}


@pytest.mark.parametrize("kind", ["defaults", "frontends", "backends"])
async def test_post_creates_and_put_replaces_and_neither_does_both(api: httpx.AsyncClient, kind: str) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    body = {"name": "it", "mode": "http"}
    refused(await api.put(f"/configuration/{kind}/it", params=within, json=body), 404)
    expect(await api.post(f"/configuration/{kind}", params=within, json=body), 202)
    # a 404 for what exists is the real one's; without full_section it is the 409 that one expects
    assert "already exist" in refused(await api.post(f"/configuration/{kind}", params=within, json=body), 404)
    expect(await api.put(f"/configuration/{kind}/it", params=within, json=body), 202)
    expect(await api.delete(f"/configuration/{kind}/it", params=within), 202)
    refused(await api.delete(f"/configuration/{kind}/it", params=within), 404)
    refused(await api.get(f"/configuration/{kind}/it", params=within), 404)


async def test_without_full_section_an_existing_backend_is_a_conflict(api: httpx.AsyncClient) -> None:
    params = {"transaction_id": await begin(api)}
    refused(await api.post("/configuration/backends", params=params, json={"name": "blue"}), 409)


async def test_global_is_replaced_with_its_children(api: httpx.AsyncClient) -> None:
    within = FULL | {"transaction_id": await begin(api)}
    body = expect(await api.get("/configuration/global", params=within), 200).json()
    assert body["log_target_list"] == [{"address": "stdout", "facility": "local0", "format": "raw", "level": "info"}]
    body["performance_options"]["maxconn"] = 3000
    body["default_path"] = {"type": "config"}
    body["log_target_list"] = []
    expect(await api.put("/configuration/global", params=within, json=body), 202)
    del body["log_target_list"]  # an empty list is as good as none
    assert expect(await api.get("/configuration/global", params=within), 200).json() == body
    text = await raw(api, transaction_id=within["transaction_id"])
    assert "  maxconn 3000\n" in text
    assert "  default-path config\n" in text


async def test_children_of_an_empty_section_are_null_and_of_a_missing_one_an_empty_list(
    api: httpx.AsyncClient,
) -> None:
    assert expect(await api.get("/configuration/backends/blue/servers"), 200).json() is None
    assert expect(await api.get("/configuration/backends/nope/servers"), 200).json() == []
    assert expect(await api.get("/configuration/frontends/nope/binds"), 200).json() == []


async def test_bodies_are_checked_against_the_schema_but_unknown_keys_are_dropped(
    api: httpx.AsyncClient,
) -> None:
    path, within = "/configuration/backends", {"transaction_id": await begin(api)}
    refused(await api.post(path, params=within, json={"mode": "http"}), 422)
    refused(await api.post(path, params=within, json={"name": "it", "mode": "nope"}), 422)
    refused(await api.post(path, params=within, content="{}"), 415)
    answer = await api.post(path, params=within, json={"name": "it", "nope": 1})
    assert expect(answer, 202).json() == {"name": "it"}


async def test_outside_a_transaction_a_change_is_its_own_commit(api: httpx.AsyncClient) -> None:
    path, forced = "/configuration/backends", {"force_reload": "true"}

    async def params(**more: Any) -> Json:
        return {"version": await version(api), **more}

    process, number = await pid(api), await version(api)
    later = expect(await api.post(path, params=await params(), json={"name": "later"}), 202)
    assert later.headers["reload-id"]
    assert await version(api) == number + 1
    expect(await api.post(path, params=await params(**forced), json={"name": "now"}), 201)
    assert await pid(api) != process
    expect(await api.put(f"{path}/now", params=await params(**forced), json={"name": "now", "mode": "http"}), 200)
    expect(await api.delete(f"{path}/now", params=await params(**forced)), 204)
    refused(await api.delete(f"{path}/now", params=await params(**forced)), 404)
    assert await version(api) == number + 4
