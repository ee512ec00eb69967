"""Sockets without a file, by which HAProxy reaches itself: abstract Unix sockets.

They live in the network namespace of HAProxy alone, and have no file that a crash could leave. Two HAProxys with the
same directories in one namespace are told apart by an environment variable, with which all their addresses begin.
"""

from __future__ import annotations

from gwctl.haproxy.encoding import content_id
from gwctl.haproxy.names import PREFIX

VARIABLE = "GWCTL_SOCKETS"
"""The environment variable of HAProxy that holds the beginning of its addresses."""

BEGINNING = f"abns@{PREFIX}"
"""How they begin without it."""


def socket_name(maps: str, *purpose: str) -> str:
    """Give what comes after the beginning, which is told apart from other HAProxys' by the directory of the maps."""
    return f"-{content_id(' '.join((maps, *purpose)))}"


def socket_address(maps: str, *purpose: str) -> str:
    """Give the address for a purpose as the configuration names it.

    The Data Plane API would read another abstract socket than was written, but for one with a variable.
    """
    return f'"${{{VARIABLE}-{BEGINNING}}}{socket_name(maps, *purpose)}"'
