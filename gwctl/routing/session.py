"""Session persistence of a rule: how a client says with which server its session is."""

from __future__ import annotations

from dataclasses import dataclass

from gwctl.api.httproute import SessionPersistence, duration_milliseconds


@dataclass(frozen=True, slots=True)
class Session:
    """What a gateway gives a client, to be sent back: a cookie, or a header of that name.

    An empty ``name`` is of gwctl's choosing. ``seconds``: how long a session is good for; zero is for ever.
    ``is_permanent``: the cookie outlives the browser.
    """

    in_header: bool
    name: str
    seconds: int
    is_permanent: bool


def build_session(session: SessionPersistence | None) -> Session | None:
    """Build what a rule says of sessions."""
    if session is None:
        return None
    milliseconds = duration_milliseconds(session.absolute_timeout) if session.absolute_timeout is not None else 0
    permanent = session.cookie_config is not None and session.cookie_config.lifetime_type == "Permanent"
    return Session(session.type == "Header", session.session_name or "", -(-milliseconds // 1000), permanent)
