"""What can go wrong with the Kubernetes API. ``transient`` errors may succeed when tried again as they are.

::

    KubeError
    ├── NoConfiguration      no kubeconfig or service account, or one that cannot be used
    ├── Unreachable *        no answer, or one that does not come from an API server
    ├── Malformed *          an answer that is not what was asked for
    └── Refused              the API server answered with an error status
        ├── Invalid          400 or 422: what was sent is wrong
        ├── Unauthorized *   401: the credentials do not count (tokens are read again)
        ├── Forbidden        403
        ├── NotFound         404
        ├── Conflict         409: somebody else wrote meanwhile
        ├── AlreadyExists    409
        ├── Gone             410: the resourceVersion or the continue token is too old
        ├── TooManyRequests *  429
        └── ServerError *    500 and above

    * transient

The surprising fact: the API server repeats values that it refuses, so what it says of a Secret is left out.
"""

from __future__ import annotations

import re
from typing import Any

_PEM = re.compile(r"-----BEGIN.*?(-----END[^-]*-----|$)", re.DOTALL)
_LONGEST_MESSAGE = 400
_SECRETS = re.compile(r"/secrets(/|$)")


class KubeError(Exception):
    """The root of the package's errors. ``retry_after``: seconds that the API server asks to wait, None as a rule."""

    transient = False
    retry_after: float | None = None


class NoConfiguration(KubeError):
    """There is no usable kubeconfig or service account."""


class Unreachable(KubeError):
    """The API server does not answer."""

    transient = True


class Malformed(KubeError):
    """An answer or event is not what was asked for."""

    transient = True


class Refused(KubeError):
    """The API server answered with an error status. ``reason`` is its word for it, such as ``NotFound``."""

    def __init__(self, message: str, status: int, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Invalid(Refused):
    """What was sent is wrong."""


class Unauthorized(Refused):
    """The credentials do not count, or no longer."""

    transient = True


class Forbidden(Refused):
    """The credentials do not suffice."""


class NotFound(Refused):
    """There is no such object, or no such kind."""


class Conflict(Refused):
    """Somebody else wrote the object meanwhile."""


class AlreadyExists(Refused):
    """An object of that name is there."""


class Gone(Refused):
    """The resourceVersion or the continue token is too old: list again."""


class TooManyRequests(Refused):
    """The API server has too much to do."""

    transient = True


class ServerError(Refused):
    """The API server failed."""

    transient = True


_BY_STATUS = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooManyRequests,
}


def build_refused(method: str, path: str, code: int, status: object, retry_after: float | None = None) -> Refused:
    """Give the error for an answer; ``status`` is its body, a ``Status`` as a rule."""
    fields: dict[str, Any] = status if isinstance(status, dict) else {}
    reason = str(fields.get("reason") or "")
    message = reason if _SECRETS.search(path) else _PEM.sub("[redacted]", str(fields.get("message") or reason))
    kind = _BY_STATUS.get(code, ServerError if code >= 500 else Refused)
    if kind is Conflict and reason == "AlreadyExists":
        kind = AlreadyExists
    text = f"{method} {path}: {code}: {message[:_LONGEST_MESSAGE]}".rstrip(": ")
    return kind(text, code, reason, retry_after)
