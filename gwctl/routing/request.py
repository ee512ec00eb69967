"""A request as the matcher sees it: what HAProxy sees, decoded in the same places and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes


@dataclass(frozen=True, slots=True)
class Request:
    """``host`` is the Host header's text (it may name a port), ``path`` the raw path as sent.

    ``query`` is what follows the ``?``. ``headers`` are name and value in the order sent. All text is Latin-1: one
    character for each byte.
    """

    method: str
    host: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def host_without_port(self) -> str:
        """The host as sent, without its port; an IPv6 address keeps its brackets."""
        if self.host.startswith("["):
            return self.host.partition("]")[0] + "]"
        return self.host.partition(":")[0]

    @property
    def hostname(self) -> str:
        """The host as rules see it: in lower case and without final dots."""
        return self.host_without_port.lower().rstrip(".")

    @property
    def preflight_method(self) -> str:
        """The method that a CORS preflight asks about (Fetch, "CORS-preflight request"), empty when it is none."""
        if self.method != "OPTIONS" or self.header("origin") is None:
            return ""
        return self.header("access-control-request-method") or ""

    def header(self, name: str) -> str | None:
        """Give the value of a header, its lines joined by commas (RFC 9110, section 5.3); ``name`` is in lower case."""
        if name == "host":
            return self.host or None
        lines = [value for key, value in self.headers if key.lower() == name]
        return ",".join(lines) if lines else None

    def parameter(self, name: str) -> str | None:
        """Give the first query parameter of this name, percent-decoded and with ``+`` as a space."""
        for part in self.query.split("&"):
            if not part:
                continue
            key, _, value = part.partition("=")
            if _decode(key) == name:
                return _decode(value)
        return None


def _decode(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("latin-1")
