"""What can go wrong with the Data Plane API. ``transient`` errors may succeed when tried again."""

from __future__ import annotations

import re

from gwctl.api.sensitive import REDACTED, Sensitive

_PEM = re.compile(r"-----BEGIN.*?(-----END[^-]*-----|$)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{12,}")
_LINE = 40
_LONGEST_MESSAGE = 300


class DataPlaneError(Exception):
    """The root of the package's errors."""

    transient = False


class Unavailable(DataPlaneError):
    """The API, or HAProxy behind it, does not answer."""

    transient = True


class VersionConflict(DataPlaneError):
    """The configuration has another version than the one the call was made for."""

    transient = True


class Refused(DataPlaneError):
    """The API answered a call with an error status. What it said is shortened, and holds no PEM block."""

    def __init__(self, method: str, path: str, status: int, message: str) -> None:
        self.status = status
        self.reason = redact(message)
        super().__init__(f"{method} {path}: {status}: {self.reason}")


class NotFound(Refused):
    """What the call names is not there."""


class AlreadyExists(Refused):
    """What the call would add is there."""


class ConfigurationRefused(Refused):
    """The configuration that the call asks for is not one that the API or HAProxy takes."""


class TooManyTransactions(Refused):
    """As many transactions are open as the API allows."""


class CertificateRefused(DataPlaneError):
    """HAProxy does not take a certificate. Others are taken."""

    def __init__(self, certificate: str, reason: str) -> None:
        self.certificate = certificate
        self.reason = reason
        super().__init__(f"HAProxy does not take {certificate}: {reason}")


class ReloadFailed(DataPlaneError):
    """HAProxy did not load the new configuration; the Data Plane API has put the last good one back."""


class ForeignLua(DataPlaneError):
    """The one place in HAProxy's configuration for Lua per thread is taken by somebody else's file."""


class ForeignPath(DataPlaneError):
    """HAProxy's configuration says of its own where certificates are looked for, and gwctl's would not be found."""


class UnsupportedVersion(DataPlaneError):
    """HAProxy or the Data Plane API is older than what gwctl stands on."""


def redact(message: str) -> str:
    """Take PEM blocks out of a message, since error bodies repeat commands, private keys included, and shorten it."""
    return _PEM.sub(REDACTED, message)[:_LONGEST_MESSAGE]


def redact_parts(message: str, sent: Sensitive) -> str:
    """Take out of a message what may be a part of a PEM that was sent, even without what begins and ends a block."""
    whole = "".join(sent.reveal().split())

    def hide(match: re.Match[str]) -> str:
        text = match[0]
        return REDACTED if len(text) >= _LINE or text in whole else text

    return _BASE64.sub(hide, _PEM.sub(REDACTED, message))
