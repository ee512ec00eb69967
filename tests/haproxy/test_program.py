"""The program's sections: which of before may serve on in place of one that HAProxy does not take."""

from __future__ import annotations

import pytest

from gwctl.graph.gatewayservice import Mode
from gwctl.haproxy.program import Layout, Listening, listener_slot_sections, stands_in
from gwctl.haproxy.state import Section

LAYOUT = Layout("/maps", "/general")
IPV6 = Layout("/maps", "/general", Listening(ipv6=True))


def section(mode: Mode, layout: Layout = LAYOUT, *, falls_back: bool = False) -> Section:
    """The frontend of a listener."""
    return next(iter(listener_slot_sections(mode, 1, layout, falls_back=falls_back)))[1]


@pytest.mark.parametrize("mode", ["http", "https", "tls", "tcp"])
def test_one_that_listens_elsewhere_serves_on_and_one_of_another_mode_does_not(mode: Mode) -> None:
    assert stands_in(section(mode), section(mode, IPV6))
    assert not any(stands_in(section("http"), section(other)) for other in ("https", "tls", "tcp"))


def test_one_that_lets_in_clients_whom_the_other_refuses_does_not_serve_on() -> None:
    strict, lax = section("https"), section("https", falls_back=True)
    assert not stands_in(lax, strict)
    assert stands_in(strict, lax)
    assert stands_in(lax, lax)


def test_what_somebody_else_has_made_of_it_does_not_serve_on() -> None:
    assert not stands_in({"name": "gwctl-listener-1"}, section("http"))
