"""The part of the routing program that does what a row in ``filters`` says, to requests and to responses.

The fields of such a row are those of ``_compile_filters`` in ``table.py``. Requests without filters never get here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gwctl.haproxy import grpc, loop
from gwctl.haproxy.action import (
    Rule,
    answer,
    count_requests,
    find_slot_again,
    found,
    lua,
    set_header,
    set_variable,
    when,
)
from gwctl.haproxy.encoding import encode_header_names
from gwctl.haproxy.names import LOST_COPIES, Table
from gwctl.routing.effect import CORS_HEADERS

Files = Callable[[Table], str]
"""Gives the path of a table's file."""

IS_ERROR = "{ var(txn.target) -m str ! }"

WHOLE_BODY = 12_000
"""How many bytes of a body can be sent twice: with the headers it must fit into a buffer."""

BODY_MILLISECONDS = 3_600_000
"""How long a client may take for such a body in all; one that is silent is given up earlier, by ``client_timeout``."""

_ROWS = {
    "headers": (1, Table.REQUEST_HEADERS),
    "response_headers": (2, Table.RESPONSE_HEADERS),
    "location": (3, Table.LOCATIONS),
    "cors": (5, Table.CORS),
    "mirrors": (6, Table.MIRRORS),
    "auths": (8, Table.AUTHS),
}
"""By variables: the rows that a row in ``filters`` names, by the number of its field."""


def filter_request(files: Files) -> Iterator[Rule]:
    """Rules of a request that has filters. All rows are looked up first: a route may change while a request waits."""
    yield set_variable("row", f"var(txn.filters),map_str({files(Table.FILTERS)})")
    # A row that is missing must not let through what it would have kept out.
    yield answer(500, f"!{found('row')}")
    yield from _find_rows(files, *_ROWS)
    yield from _answer_preflight()
    yield lua("gwctl_ask", found("auths"))
    # Whatever keeps Lua from saying yes, such as a fault of its own.
    yield answer(503, f"{found('auths')} !{found('allowed')}")
    yield from find_path()
    yield from _redirect()
    yield answer(500, IS_ERROR)
    # Calls of gRPC are never repeated: they may be streams, and tell what became of them in trailers.
    yield set_variable("retry", "var(txn.row),field(7,|)", f"{{ var(txn.row),field(7,|) -m len gt 0 }} !{grpc.IS_GRPC}")
    yield from _await_body()
    yield find_slot_again(files(Table.SERVICES))
    yield lua("gwctl_mirror", found("mirrors"))
    yield from count_requests(LOST_COPIES, "str(all)", found("copy_lost"))
    yield from _change_request()
    yield set_variable("timeouts", "var(txn.row),field(4,|)", "{ var(txn.row),field(4,|) -m len gt 0 }")
    yield from loop.enter()


def change_copy(files: Files) -> Iterator[Rule]:
    """Rules of a copy on the loop: what its rule's filters before the mirror have done, is done to it too."""
    yield answer(500, f"!{found('row')} !{{ var(txn.filters) -m str -- {loop.NO_FILTERS} }}")
    yield from _find_rows(files, "headers", "location")
    yield from find_path()
    yield from _change_request()


def _find_rows(files: Files, *variables: str) -> Iterator[Rule]:
    """Find rows that a row in ``filters`` names; where one of them is missing it cannot be followed."""
    for variable in variables:
        number, table = _ROWS[variable]
        yield set_variable(variable, f"var(txn.row),field({number},|),map_str({files(table)})")
    for variable in variables:
        yield answer(500, f"{{ var(txn.row),field({_ROWS[variable][0]},|) -m len gt 0 }} !{found(variable)}")


def _change_request() -> Iterator[Rule]:
    """Change headers, then path and host, as `find_path` has found them."""
    yield from change_headers("headers")
    yield when({"type": "set-path", "path_fmt": "%[var(txn.to_path)]"}, found("to_path"))
    yield set_header("host", "%[var(txn.location),field(5,|)]", _LOCATION_HOST)


def _await_body() -> Iterator[Rule]:
    """Wait for a body that is sent twice, where it is known to fit into a buffer."""
    length = "req.hdr_val(content-length)"
    for needs_it in ("mirrors", "retry"):
        fits = f"{found(needs_it)} {{ {length} gt 0 }} {{ {length} le {WHOLE_BODY} }}"
        yield when({"type": "wait-for-body", "wait_time": BODY_MILLISECONDS}, fits)


def _answer_preflight() -> Iterator[Rule]:
    """Let Lua compare the origin, where there is one; what it says goes into the response."""
    yield set_variable("origin", "req.hdr(origin)", found("cors"))
    yield lua("gwctl_cors", found("origin"))
    yield answer(204, found("preflight"))


def expose_headers() -> Iterator[Rule]:
    """Name the headers of a response where a policy exposes all and may not say so: see ``gwctl_expose``."""
    yield lua("gwctl_expose", found("expose"))


def _answer_cors() -> Iterator[Rule]:
    """The policy alone says what a browser may do: what a backend says of it is taken out."""
    names = encode_header_names(sorted(CORS_HEADERS))
    yield when({"type": "del-headers-bin", "hdr_expr": f"str({names}),ub64dec"}, found("origin"))
    yield when({"type": "set-headers-bin", "hdr_expr": "var(txn.cors_headers)"}, found("cors_headers"))
    yield set_header("access-control-expose-headers", "%[var(txn.exposed)]", "{ var(txn.exposed) -m len gt 0 }")
    for_anyone = "{ var(txn.cors) -m beg *|0| }"
    vary = {"type": "add-header", "hdr_name": "vary", "hdr_format": "Origin"}
    yield when(vary, f"{found('cors')} !{for_anyone}")


def change_response() -> Iterator[Rule]:
    """Change responses, those that HAProxy itself gives included."""
    unfiltered = f"!{found('filters')}"
    yield when({"type": "allow"}, f"{unfiltered} !{grpc.IS_GRPC}")
    yield from grpc.answer_errors()
    yield when({"type": "allow"}, unfiltered)
    # Waiting for a connection, which HAProxy answers 503, is a part of the time that a rule allows.
    yield when({"type": "set-status", "status": 504}, f"{found('timeouts')} {{ txn.sess_term_state sC }}")
    yield from _answer_cors()
    yield from change_headers("response_headers")


def change_headers(variable: str) -> Iterator[Rule]:
    """Do what a row of header changes says: see ``_header_row`` in ``table.py``."""
    for number, action in enumerate(("del-headers-bin", "set-headers-bin", "add-headers-bin"), 1):
        field = f"var(txn.{variable}),field({number},|)"
        yield when({"type": action, "hdr_expr": f"{field},ub64dec"}, f"{{ {field} -m len gt 0 }}")


_LOCATION_STATUS = "{ var(txn.location),field(6,|) -m found }"


def find_path() -> Iterator[Rule]:
    """Find the path of a redirect or a rewrite: see ``_location_row`` in ``table.py``."""
    cut = "{ var(txn.location),field(1,|) -m str prefix }"
    yield set_variable(
        "to_path", "var(txn.location),field(2,|),url_dec", "{ var(txn.location),field(1,|) -m len gt 0 }"
    )
    yield set_variable("cut", "var(txn.location),field(4,|)", cut)
    yield set_variable("rest", "path,bytes(txn.cut)", cut)
    before = "var(txn.location),field(3,|),url_dec,concat(,txn.rest)"
    yield set_variable("to_path", before, f"{cut} {{ var(txn.rest) -m len gt 0 }}")


def _redirect() -> Iterator[Rule]:
    yield set_variable("to_path", "path", f"{_LOCATION_STATUS} !{found('to_path')}")
    yield set_variable("to_host", "req.hdr(host),host_only", _LOCATION_STATUS)
    yield set_variable("to_host", "var(txn.location),field(5,|)", f"{_LOCATION_STATUS} {_LOCATION_HOST}")
    location = (
        "%[var(txn.location),field(7,|)]://%[var(txn.to_host)]%[var(txn.location),field(8,|)]"
        "%[var(txn.to_path)]%[query(with_qm)]"
    )
    for status in (301, 302, 303, 307, 308):
        rule = {"type": "redirect", "redir_type": "location", "redir_value": location, "redir_code": status}
        yield when(rule, f"{{ var(txn.location),field(6,|) -m str {status} }}")


_LOCATION_HOST = "{ var(txn.location),field(5,|) -m len gt 0 }"


def set_timeouts() -> Iterator[Rule]:
    """Set a rule's timeouts, which only a backend may do; see ``_timeouts_field`` in ``table.py``."""
    yield when({"type": "allow"}, f"!{found('filters')}")
    for kind, number in (("server", 1), ("connect", 2)):
        field = f"var(txn.timeouts),field({number},:)"
        yield when({"type": "set-timeout", "timeout_type": kind, "timeout": field}, f"{{ {field} -m len gt 0 }}")
