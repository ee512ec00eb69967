"""The part of the routing program that knows gRPC: calls may be long, and errors are told as gRPC statuses.

What HAProxy answers itself is 404, 500, 502, 503 or 504. A gRPC call gets such an error as a response without a body
whose headers hold the status ("Trailers-Only"): UNIMPLEMENTED where no rule takes it, else UNAVAILABLE
(GRPCRouteRule.backendRefs). What ExternalAuth refuses has the status that gRPC's clients make of HTTP's. The surprising
fact: an error's body is written before any rule sees its response, so bodies of errors are written for plain HTTP only.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

IS_GRPC = "{ var(txn.grpc) -m found }"

STREAM_SECONDS = 3600
"""How long a stream may be silent: a call's deadline is its client's business (``grpc-timeout``)."""

_UNIMPLEMENTED = 12
_UNAVAILABLE = 14

_CONTENT = "req.hdr(content-type)"
_ERRORS = (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE,
           HTTPStatus.GATEWAY_TIMEOUT)  # fmt: skip

Rule = dict[str, Any]


def recognize() -> Iterator[Rule]:
    """Rules of a request, the first of all. gRPC-Web, which has its statuses in bodies, is plain HTTP here."""
    content = f"{{ {_CONTENT} -m beg application/grpc }} !{{ {_CONTENT} -m beg application/grpc-web }}"
    yield _set("grpc", "bool(true)", content)
    yield set_timeout("client")


def set_timeout(side: str) -> Rule:
    """Let a call's stream be silent for longer. The server's side can be told in backends only."""
    milliseconds = str(STREAM_SECONDS * 1000)
    return _if({"type": "set-timeout", "timeout_type": side, "timeout": milliseconds}, IS_GRPC)


def note_answers() -> Iterator[Rule]:
    """Rules of a server's response: such a response is never changed into a status."""
    yield _set("answered", "bool(true)", IS_GRPC)


def answer_errors() -> Iterator[Rule]:
    """Rules of every response: an error that HAProxy made becomes a gRPC status, where Lua has not given it one."""
    is_error = "{ var(txn.grpc_status) -m found }"
    made_here = f"{IS_GRPC} !{is_error} !{{ var(txn.answered) -m found }}"
    yield _set("grpc_status", f"int({_UNIMPLEMENTED})", f"{made_here} {{ status {HTTPStatus.NOT_FOUND.value} }}")
    yield _set("grpc_status", f"int({_UNAVAILABLE})", f"{made_here} {{ status ge 400 }}")
    headers = {
        "content-type": "application/grpc",
        "grpc-status": "%[var(txn.grpc_status)]",
        "grpc-message": "HTTP%%20%[status]%%20of%%20the%%20gateway",
    }
    for name, value in headers.items():
        yield _if({"type": "set-header", "hdr_name": name, "hdr_format": value}, is_error)
    yield _if({"type": "set-status", "status": HTTPStatus.OK.value}, is_error)


def name_status(status: int) -> str:
    """Name the gRPC status that a call gets instead of an HTTP error of the gateway."""
    return "UNIMPLEMENTED" if status == HTTPStatus.NOT_FOUND else "UNAVAILABLE"


def error_bodies() -> Iterator[Rule]:
    """The errors that HAProxy itself finds: a line of text, and nothing at all for gRPC."""
    for status in _ERRORS:
        text = quote(f"{status.value} {status.phrase}\n")
        yield {
            "type": "status",
            "status": status.value,
            "return_content_type": "text/plain",
            "return_content_format": "lf-string",
            "return_content": f"%[var(txn.grpc,0),iif(,{text}),url_dec]",
        }


def _set(variable: str, expression: str, condition: str) -> Rule:
    return _if({"type": "set-var", "var_scope": "txn", "var_name": variable, "var_expr": expression}, condition)


def _if(rule: Rule, condition: str) -> Rule:
    return {**rule, "cond": "if", "cond_test": condition}
