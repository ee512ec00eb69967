"""Secret: the certificate and private key of a TLS Secret, and nothing else of any Secret.

The surprising facts: what other types of Secrets hold is dropped before it is even looked at, annotations too (one may
hold the whole Secret once more), and no message about a Secret repeats a value, however wrong it is. ``stringData`` is
for files alone: an API server never gives it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from gwctl.api.meta import Object, without_notes
from gwctl.api.sensitive import Sensitive

TLS_TYPE = "kubernetes.io/tls"
CERTIFICATE_KEY = "tls.crt"
PRIVATE_KEY_KEY = "tls.key"

_KEPT = frozenset({CERTIFICATE_KEY, PRIVATE_KEY_KEY})


def _decode(value: Any) -> Any:
    if isinstance(value, Sensitive):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("base64", "must be base64")
    try:
        # Kubernetes lets line breaks through, as Go's decoder does.
        data = base64.b64decode(value.translate({10: None, 13: None}), validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("base64", "must be base64") from None
    return Sensitive(data.decode("latin-1"))


class Secret(Object):
    """A Secret. ``data`` and ``string_data`` hold ``tls.crt`` and ``tls.key`` of a TLS Secret, decoded, one character
    for each byte; they are empty for all other types.
    """

    kind: ClassVar[str] = "Secret"
    echoes: ClassVar[bool] = False
    unused: ClassVar[frozenset[str]] = Object.unused | {"immutable"}

    type: StrictStr = "Opaque"
    data: Mapping[StrictStr, Annotated[Sensitive, BeforeValidator(_decode)]] = Field(default_factory=dict)
    string_data: Mapping[StrictStr, Sensitive] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _drop_others(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kept = without_notes(value)
        for field in ("data", "stringData"):
            content = kept.get(field)
            if value.get("type") != TLS_TYPE:
                kept.pop(field, None)
            elif isinstance(content, Mapping):
                kept[field] = {key: item for key, item in content.items() if key in _KEPT}
        return kept

    def content(self, key: str) -> Sensitive | None:
        """Give what the Secret holds at a key, None when nothing."""
        return self.string_data.get(key, self.data.get(key))
