"""ConfigMap: the CA certificates that it holds, and nothing else of it.

The surprising fact: what else a ConfigMap holds, annotations included, is dropped before it is even looked at; it is
none of gwctl's business, and may be large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, StrictStr, model_validator

from gwctl.api.meta import Object, without_notes

CA_KEY = "ca.crt"


class ConfigMap(Object):
    """A ConfigMap. ``data`` holds ``ca.crt`` at most, and ``binary_data`` says whether it is there in base64."""

    kind: ClassVar[str] = "ConfigMap"
    echoes: ClassVar[bool] = False
    unused: ClassVar[frozenset[str]] = Object.unused | {"immutable"}

    data: Mapping[StrictStr, StrictStr] = Field(default_factory=dict)
    binary_data: Mapping[StrictStr, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _drop_others(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kept = without_notes(value)
        for field in ("data", "binaryData"):
            content = kept.get(field)
            if isinstance(content, Mapping):
                kept[field] = {CA_KEY: content[CA_KEY]} if CA_KEY in content else {}
        if isinstance(kept.get("binaryData"), Mapping):
            kept["binaryData"] = dict.fromkeys(kept["binaryData"], "")
        return kept
