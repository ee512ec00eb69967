"""Sockets without a file, by which HAProxy reaches itself: abstract Unix sockets.

They live in the network namespace of HAProxy alone, and have no file that a crash could leave.
"""

from __future__ import annotations

from gwctl.haproxy.encoding import content_id
from gwctl.haproxy.names import PREFIX


def abstract_socket(maps: str, *purpose: str) -> str:
    """Give the address of the socket for a purpose, told apart from other HAProxys' by the directory of the maps."""
    return f"abns@{PREFIX}-{content_id(' '.join((maps, *purpose)))}"


def configured(address: str) -> str:
    """Give an address as the configuration names it: the Data Plane API reads abstract sockets as variables only."""
    return f'"${{GWCTL_LOOP-{address}}}"'
