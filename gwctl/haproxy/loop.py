"""The loop: a way from HAProxy back into HAProxy, for what one pass through the program cannot do.

Three kinds of requests take it. A *copy* is sent by Lua to a Service that mirrors a request. An *attempt* is a request
of a rule with retries: HAProxy's own retries, which the configuration decides, carry it around the loop, and what comes
in there decides by the rule's row whether an answer is final. So codes, pauses and deadlines are data.

A *question* is Lua's too: whether a request may pass; it gets the answer as it is.

What a request is there for stands in one header, which no backend sees. The surprising fact: an attempt that failed is
answered by a status that means "again"; the last one gets its own status back where the loop began.
"""

from __future__ import annotations

from collections.abc import Iterator

from gwctl.haproxy.action import (
    REQUESTS_SO_FAR,
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
from gwctl.haproxy.names import ATTEMPTS, RETRY

HEADER = "gwctl-loop"
"""``copy|SERVICE|FILTERS``, ``ask|SERVICE|-``, or ``attempt|SERVICE|FILTERS|DEADLINE|ID``.

The deadline is a time in milliseconds, the id a name."""

NO_FILTERS = "-"
"""Stands for the key of a row in ``filters`` where there is none."""

STATUS = "gwctl-status"
"""The header that holds the real status of an answer whose status says "again"."""

AGAIN = 425
"""The status that HAProxy retries (Too Early, which means something to TLS clients only)."""

COPY_MILLISECONDS = 5_000
"""How long a copy waits for its answer: so long it holds one of the workers that send copies."""

COPY_CONNECT_MILLISECONDS = 700
"""How long a copy waits for a connection, which HAProxy tries four times."""

_LONGEST_REFUSAL = 12_000
"""How many bytes of a refusal are waited for, the sizes of chunks included: Lua passes on shorter bodies only."""

_ATTEMPT = "{ var(txn.loop) -m beg attempt| }"
_COPY = "{ var(txn.loop) -m beg copy| }"
_ASK = "{ var(txn.loop) -m beg ask| }"
_RETRY = found("retry")


def forget() -> Rule:
    """Give the rule that takes our header out of what a client sends."""
    return {"type": "del-header", "hdr_name": HEADER}


def enter() -> Iterator[Rule]:
    """Rules that send a request of a rule with retries around the loop, the last of all.

    The field is ``ATTEMPTS:PAUSE:LIMIT:CODES``: see ``_retry_field`` in ``table.py``.
    """
    yield set_variable("limit", "var(txn.retry),field(3,:)")
    limited = "{ var(txn.limit) -m len gt 0 }"
    yield set_variable("deadline", "date(0,ms),add(txn.limit)", limited)
    yield set_variable("id", "uuid()", "{ var(txn.retry),field(2,:) -m int gt 0 }")
    purpose = "attempt|%[var(txn.target)]|%[var(txn.filters)]|%[var(txn.deadline)]|%[var(txn.id)]"
    yield set_header(HEADER, purpose, _RETRY)
    yield set_variable("backend", f"str({RETRY})", _RETRY)


def try_once() -> Iterator[Rule]:
    """Rules of a slot, where an attempt is one connection: the next is another attempt."""
    yield when({"type": "set-retries", "expr": "0"}, _RETRY)


def carry_on() -> Iterator[Rule]:
    """Rules of the backend that carries attempts."""
    yield when({"type": "set-retries", "expr": "var(txn.retry),field(1,:)"}, _RETRY)


def give_status_back() -> Iterator[Rule]:
    """Rules of an answer that comes back from the loop."""
    yield lua("gwctl_status", f"{{ res.hdr({STATUS}) -m found }}")


def leave(services: str, filters: str) -> Iterator[Rule]:
    """Rules of a request that comes in on the loop, before a copy is changed; ``services``, ``filters``: map files."""
    yield set_variable("loop", f"req.hdr({HEADER})")
    yield answer(403, f"!{found('loop')}")
    yield forget()
    yield set_variable("target", "var(txn.loop),field(2,|)")
    yield set_variable("backend", f"var(txn.target),map_str({services})")
    yield set_variable("filters", "var(txn.loop),field(3,|)")
    yield set_variable("row", f"var(txn.filters),map_str({filters})")
    yield set_variable("timeouts", f"str({COPY_MILLISECONDS}:{COPY_CONNECT_MILLISECONDS})", _COPY)
    yield set_variable("timeouts", f"str({COPY_MILLISECONDS}:{COPY_CONNECT_MILLISECONDS})", _ASK)
    yield when({"type": "allow"}, _ASK)
    yield from _attempt(services)
    yield when({"type": "allow"}, _ATTEMPT)


def _attempt(services: str) -> Iterator[Rule]:
    """Pause before an attempt that is not the first, and wait for its answer no longer than the deadline allows."""
    yield set_variable("timeouts", "var(txn.row),field(4,|)", f"{_ATTEMPT} {{ var(txn.row),field(4,|) -m len gt 0 }}")
    yield set_variable("retry", "var(txn.row),field(7,|)", _ATTEMPT)
    yield set_variable("deadline", "var(txn.loop),field(4,|)", f"{_ATTEMPT} {{ var(txn.loop),field(4,|) -m len gt 0 }}")
    named = "{ var(txn.loop),field(5,|) -m len gt 0 }"
    yield from count_requests(ATTEMPTS, "var(txn.loop),field(5,|)", named)
    yield from _find_rest()
    again = f"{named} {{ {REQUESTS_SO_FAR} gt 1 }}"
    pause = "var(txn.retry),field(2,:)"
    yield set_variable("pause", pause, again)
    yield set_variable("pause", "var(txn.rest)", f"{again} {_LIMITED} {{ var(txn.rest),sub(txn.pause) lt 0 }}")
    yield when({"type": "pause", "expr": "var(txn.pause)"}, again)
    yield find_slot_again(services, again)
    yield from _find_rest()
    yield set_variable("late", "bool(true)", _NOTHING_LEFT)
    yield answer(504, found("late"))
    server, connect = "var(txn.timeouts),field(1,:)", "var(txn.timeouts),field(2,:)"
    yield set_variable("server", server, _LIMITED)
    yield set_variable("connect", connect, _LIMITED)
    shorter = f"{_LIMITED} {{ var(txn.rest),sub(txn.server) lt 0 }}"
    yield set_variable("timeouts", "var(txn.rest),concat(:,txn.connect)", shorter)


_LIMITED = found("deadline")
_NOTHING_LEFT = f"{_LIMITED} {{ var(txn.rest) -m int le 0 }}"


def _find_rest() -> Iterator[Rule]:
    """Find how many milliseconds are left."""
    yield set_variable("now", "date(0,ms)", _LIMITED)
    yield set_variable("rest", "var(txn.deadline),sub(txn.now)", _LIMITED)


def judge() -> Iterator[Rule]:
    """Rules of a backend's answer on the loop: Lua knows the codes; the client of a copy wants no answer at all."""
    yield set_variable("answered", "bool(true)")
    yield when({"type": "return", "return_status_code": 204, "return_content_type": ""}, _COPY)
    # Lua reads bodies of refusals only, and waits for each byte of them anew.
    whole = {"type": "wait-for-body", "wait_time": COPY_MILLISECONDS, "wait_at_least": _LONGEST_REFUSAL}
    yield when(whole, f"{_ASK} !{{ status 200 }}")
    yield when({"type": "del-header", "hdr_name": STATUS}, "")
    yield from _find_rest()
    yield lua("gwctl_judge", f"{_RETRY} {{ status 400:599 }}")


def judge_errors() -> Iterator[Rule]:
    """Rules of every answer on the loop: where no backend has answered, it is tried again, but not without servers."""
    unanswered = f"!{found('answered')}"
    yield from _find_rest()
    yield set_variable("late", "bool(true)", f"{unanswered} {_NOTHING_LEFT}")
    yield when({"type": "set-status", "status": 504}, found("late"))
    yield when({"type": "set-status", "status": 504}, f"{found('timeouts')} {{ txn.sess_term_state sC }}")
    failed = f"{_RETRY} {unanswered} !{found('late')} !{{ var(txn.backend),nbsrv eq 0 }} {{ status ge 500 }}"
    yield set_header(STATUS, "%[status]", failed)
    yield when({"type": "set-status", "status": AGAIN}, failed)
