"""The part of the program that knows gRPC: what calls need that no test waits an hour for."""

from __future__ import annotations

from gwctl.haproxy import grpc
from gwctl.haproxy.names import DEFAULTS_HTTP, DEFAULTS_HTTP_SLOT
from gwctl.haproxy.program import Layout, program_sections
from gwctl.haproxy.state import Section, SectionKey, SectionKind


def section(name: str) -> Section:
    return program_sections(Layout("/maps", "/general"))[SectionKey(SectionKind.DEFAULTS, name)]


def test_a_call_may_be_silent_for_an_hour_on_both_sides() -> None:
    for name, side in ((DEFAULTS_HTTP, "client"), (DEFAULTS_HTTP_SLOT, "server")):
        timeouts = [rule for rule in section(name)["http_request_rule_list"] if rule["type"] == "set-timeout"]
        assert {
            "type": "set-timeout",
            "timeout_type": side,
            "timeout": "3600000",
            "cond": "if",
            "cond_test": "{ var(txn.grpc) -m found }",
        } in timeouts


def test_calls_are_recognized_before_anything_is_answered() -> None:
    rules = section(DEFAULTS_HTTP)["http_request_rule_list"]
    assert rules[: len(list(grpc.recognize()))] == list(grpc.recognize())


def test_errors_become_statuses_before_filters_change_headers() -> None:
    rules = section(DEFAULTS_HTTP)["http_after_response_rule_list"]
    first, *others = rules
    assert first["type"] == "allow" and "txn.grpc" in first["cond_test"]
    assert others[: len(list(grpc.answer_errors()))] == list(grpc.answer_errors())


def test_bodies_of_errors_have_no_space_or_quote_that_the_data_plane_api_would_split() -> None:
    bodies = {rule["status"]: rule["return_content"] for rule in grpc.error_bodies()}
    assert bodies[503] == "%[var(txn.grpc,0),iif(,503%20Service%20Unavailable%0A),url_dec]"
    assert not any(character in body for body in bodies.values() for character in " \"'\\")


def test_peers_that_are_gone_are_noticed_though_streams_may_be_silent() -> None:
    for name, side in ((DEFAULTS_HTTP, "cli"), (DEFAULTS_HTTP_SLOT, "srv")):
        found = {key: value for key, value in section(name).items() if key.startswith(f"{side}tcpka")}
        assert found == {
            f"{side}tcpka": "enabled",
            f"{side}tcpka_idle": 60_000,
            f"{side}tcpka_intvl": 10_000,
            f"{side}tcpka_cnt": 3,
        }
